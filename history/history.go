// Package history is a bounded, ordered log of opaque messages. Any number of
// readers follow it, each at its own pace and without a queue of its own.
//
//	package main
//
//	import (
//		"context"
//		"fmt"
//
//		"github.com/relayguard/relayguard/history"
//	)
//
//	func main() {
//		ctx := context.Background()
//		log, err := history.Open(ctx, history.Config{})
//		if err != nil {
//			panic(err)
//		}
//		log.Append(ctx, []byte("hello"))
//		reader := log.Reader(history.Oldest())
//		batch, err := reader.Next(ctx) // waits only if there is nothing new
//		if err != nil {
//			panic(err)
//		}
//		for _, entry := range batch.Entries {
//			fmt.Printf("%d: %s\n", entry.Seq, entry.Data)
//		}
//	}
//
// # Reading
//
// A [Reader] is a cursor in the log. Its first [Reader.Next] returns all kept
// entries, each later one returns all entries appended since the call before. A
// reader therefore loses no entry between loading the history and following the
// log, and gets no entry twice. A slow reader costs the log nothing: it gets
// everything since its last call in one [Batch].
//
// # Retention
//
// By default, a log keeps 1,000 entries. The append that makes them more than
// 1,200 drops the oldest entries until 1,000 are left. With two limits instead
// of one, few appends have to clean up. [Config] also has limits for the age,
// the bytes and the weight of entries. [Batch.Missed] counts the entries that
// retention dropped before the reader read them. A value that was said once and
// still holds can outlive its entry: see [Config.Pins].
//
// # The end
//
// [Log.Finish] says that nothing more will be appended, for example when a
// build has ended. A reader reads the entries that it has not read, and then
// gets [ErrFinished]. With a [Store], a log is still finished after a restart.
//
// # Many logs
//
// A [Set] holds logs by name. It opens each log on first use, closes it when it
// has not been used for a while, and bounds the number of open logs and their
// memory. Package sse sends a log to browsers.
//
// # Several processes
//
// With an [Origin], several processes share a log, and each holds a replica of
// it. A position is then good in all of them. A process that is behind the one
// that gave a position reads on from there as soon as it has caught up. While
// the Origin cannot be reached, readers read the replica, and changes fail.
// [Log.AppendAfter] appends only if no other process has changed the log.
// Package redislog has an Origin on Redis or Valkey.
//
// # Epochs
//
// Within an epoch, entries are only appended at the end of the log and dropped
// at its beginning. [Log.Replace], [Log.Clear] and [Log.Delete] begin a new
// epoch. A reader with a position of an earlier epoch, even one that comes back
// on a later connection, then gets a [Batch] with Reset set: the batch holds
// all kept entries, and they replace everything that the reader had. Sequence
// numbers go on across epochs, and no number is used twice.
//
// # Concurrency and cost
//
// All methods of [Log] may be called from any goroutine. A [Reader] may be used
// by one goroutine at a time. Reading takes no lock: an atomic pointer leads to
// an immutable state, and successive states share one array of entries. A
// timer's goroutine wakes the waiting readers, at most once per [Config.Wake].
// An appender spends no time on it. The package starts no goroutine that lasts,
// except one for each log with an Origin, until [Log.Close].
//
// These are ratios within one run of go test -bench . (November 2026, two
// shared cores):
//
//	append, 1,000 readers waiting: 1.3 times the append with none
//	    (under 0.5 µs, 2 allocations)
//	append, 1,000 readers following: 1/50 or less of the time that it takes
//	    to put the message into 1,000 queues
//	snapshot of 1,000 entries: 1/600 or less of copying them, no allocation
package history

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// defaultKeep is the default of [Config.Keep].
const defaultKeep = 1000

// defaultWake is the default of [Config.Wake].
const defaultWake = 10 * time.Millisecond

var (
	// ErrClosed is returned by the methods that change a closed log, and by
	// [Reader.Next] after the reader has read all its entries. A [Set] also
	// closes the logs that it evicts: acquire the log again.
	ErrClosed = errors.New("history: log is closed")

	// ErrFinished is returned by Append and Replace after [Log.Finish], and by
	// [Reader.Next] after the reader has read all entries. Nothing more will be
	// appended. If a finished log is closed too, ErrFinished takes precedence.
	ErrFinished = errors.New("history: log is finished")

	// ErrTooLarge is returned for an entry that is longer than Config.MaxBytes.
	ErrTooLarge = errors.New("history: entry is larger than Config.MaxBytes")

	// ErrNotErased is wrapped by the error of Replace, Clear or Delete if the
	// change is made, but the Store could not complete it: the content from
	// before may still be readable on disk, and may be back after a crash.
	ErrNotErased = errors.New("history: the change is made, but the content from before may still be readable")
)

// Config configures a log. With the zero value, the log keeps 1,000 entries of
// any age, in memory.
type Config struct {
	// Keep is the number of entries that a clean-up leaves. 0 means 1,000.
	Keep int

	// TrimAt is the number of entries that the log may hold between clean-ups.
	// The append that exceeds it drops the oldest entries until Keep are left.
	// 0 means Keep plus a fifth of it: 1,200 with the default Keep.
	TrimAt int

	// MaxAge is how long an entry is kept. 0 means no limit. A timer drops
	// entries even if nothing is appended, at most MaxAge/64 (or a millisecond,
	// if that is longer) after they reach MaxAge. If the machine sleeps or its
	// clock is set, they are dropped at most a minute later.
	//
	// The age is measured by the wall clock. An entry with a time after now,
	// from a clock that was ahead, is kept for MaxAge from now.
	MaxAge time.Duration

	// MaxBytes limits the sum of the lengths of all entries. The append that
	// exceeds it drops the oldest entries until at most five sixths of MaxBytes
	// are left, but never the entry that it appends. 0 means no limit: the log
	// then grows to TrimAt times the longest message that the caller appends.
	MaxBytes int64

	// KeepWeight is the least weight of the entries that a clean-up leaves, such
	// as the length of the text in them. The append that makes it more than a
	// fifth larger drops the oldest entries. 0 means no limit. Keep and MaxBytes
	// still hold: a log whose only limit is KeepWeight needs a Keep of
	// KeepWeight entries, if each entry weighs something.
	KeepWeight int64

	// Weigh returns the weight of an entry for KeepWeight. It must always return
	// the same for the same data. nil means the length of the data.
	Weigh func(data []byte) int64

	// Pins, if not nil, returns the values in an entry or a note that outlive it:
	// they are there for every reader until another entry gives another value to
	// their keys, until Delete erases the entry, or until the next Replace. There
	// should be few keys, and short values: no limit counts them. The log calls
	// it when it drops an entry, so it must always return the same for the same
	// data, and must not call the log.
	Pins func(data []byte) []Pin

	// Wake is the shortest time between two wakings of waiting readers. The
	// first append after a pause of at least Wake wakes them at once. Later
	// appends wake them together, once Wake has passed. 0 means 10 ms, a
	// negative value means none.
	//
	// Waking costs about a microsecond of CPU per reader, and each reader then
	// does its own work. With thousands of readers, a longer Wake saves CPU and
	// adds latency.
	Wake time.Duration

	// Store makes the log durable. If nil, the log is in memory only.
	Store Store

	// Origin makes the log one that several processes share. If nil, this
	// process alone decides about it. An Origin cannot be combined with a
	// Store. All processes should have the same limits.
	Origin Origin

	// OnTrim, if not nil, is called after each clean-up, with no lock held. It
	// runs in the goroutine that caused the clean-up: one that changes the log,
	// or a timer's. Two calls may overlap.
	OnTrim func(Trim)
}

// ConfigError is one problem of a [Config]. It never holds a value.
type ConfigError struct {
	Field  string // with its struct, such as "Config.Keep"
	Reason error  // a [ConfigReason]
}

func (e *ConfigError) Error() string { return "history: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns Reason, so that [errors.Is] finds it.
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a [Config] is refused. The set is closed. It
// is an error, so that [errors.Is] finds it.
type ConfigReason string

// The reasons of a [ConfigError].
const (
	ConfigNegative ConfigReason = "must not be negative"
	ConfigTooSmall ConfigReason = "must not be below Config.Keep"
	ConfigShared   ConfigReason = "must not be shared by several logs"
	ConfigCombined ConfigReason = "cannot be combined with Config.Store"
)

func (r ConfigReason) Error() string { return string(r) }

// withDefaults returns c with the defaults of its fields. The fields of errors
// begin with prefix.
func (c Config) withDefaults(prefix string) (_ Config, errs []error) {
	refuse := func(bad bool, field string, reason ConfigReason) {
		if bad {
			errs = append(errs, &ConfigError{prefix + field, reason})
		}
	}
	refuse(c.Keep < 0, "Keep", ConfigNegative)
	refuse(c.TrimAt < 0, "TrimAt", ConfigNegative)
	refuse(c.MaxAge < 0, "MaxAge", ConfigNegative)
	refuse(c.MaxBytes < 0, "MaxBytes", ConfigNegative)
	refuse(c.KeepWeight < 0, "KeepWeight", ConfigNegative)
	if c.Keep == 0 {
		c.Keep = defaultKeep
	}
	if c.TrimAt == 0 {
		c.TrimAt = c.Keep + c.Keep/5
	}
	refuse(c.TrimAt >= 0 && c.TrimAt < c.Keep, "TrimAt", ConfigTooSmall)
	refuse(c.Origin != nil && c.Store != nil, "Origin", ConfigCombined)
	if c.Wake == 0 {
		c.Wake = defaultWake
	}
	return c, errs
}

// Open returns a log with the entries that cfg.Store or cfg.Origin holds, if
// there is one. If cfg is wrong, the error joins a [*ConfigError] for each
// problem. If the Store or the Origin fails, the error wraps that of it. Open
// passes ctx to it.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg, errs := cfg.withDefaults("Config.")
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if cfg.Origin != nil {
		return openReplica(ctx, cfg)
	}
	return open(ctx, cfg, true, nil)
}

// open is Open with a checked cfg. If nothing is saved and create is not set,
// the error is ErrNotExist. A log of a Set has a budget.
func open(ctx context.Context, cfg Config, create bool, b *budget) (*Log, error) {
	var saved Saved
	var err error
	if cfg.Store != nil {
		if saved, err = cfg.Store.Load(ctx); err != nil {
			return nil, fmt.Errorf("history: load: %w", err)
		}
	}
	fresh := saved.ID == 0
	if fresh && !create {
		return nil, ErrNotExist
	}
	if fresh {
		saved.ID = newID()
	}
	first, err := saved.state()
	if err != nil {
		return nil, fmt.Errorf("history: load: %w", err)
	}
	if cfg.Store != nil && fresh {
		if err := cfg.Store.Replace(ctx, saved); err != nil {
			return nil, fmt.Errorf("history: save: %w", err)
		}
	}
	l := &Log{cfg: cfg, budget: b}
	l.begin(first)
	return l, nil
}

// begin makes first the state of a new log.
func (l *Log) begin(first *state) {
	l.wake.init(l.cfg.Wake)
	l.ageTimer = stopped(l.onAge)
	l.mu.Lock()
	now := wall(time.Now())
	if l.replica == nil {
		first.entries = dated(first.entries, now)
	}
	first.weight = l.weigh(first.entries...)
	trims := l.retain(first, now)
	l.publish(first)
	l.mu.Unlock()
	l.report(trims)
}

// newID returns a random name for a log, by which a position of another log is
// recognised. It is not 0, the name in Oldest and Latest.
func newID() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:])
		if id := binary.LittleEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}

// stopped returns a timer that does not run f before its Reset is called.
func stopped(f func()) *time.Timer {
	t := time.AfterFunc(time.Hour, f)
	t.Stop()
	return t
}
