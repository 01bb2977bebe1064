// Package journal stores a [history.Log] in an encrypted file, so that the log
// survives a restart. After a Clear, no one can read the cleared entries in a
// copy of that file, not even the holder of the master key.
//
//	package main
//
//	import (
//		"context"
//		"os"
//
//		"github.com/relayguard/relayguard/history"
//		"github.com/relayguard/relayguard/history/journal"
//	)
//
//	func main() {
//		ctx := context.Background()
//		key, err := os.ReadFile("master.key") // 32 random bytes
//		if err != nil {
//			panic(err)
//		}
//		cfg := journal.Config{Dir: "history", Keys: [][]byte{key}}
//		store, err := journal.Open(cfg)
//		if err != nil {
//			panic(err)
//		}
//		log, err := history.Open(ctx, history.Config{Store: store})
//		if err != nil {
//			panic(err)
//		}
//		defer log.Close()
//		log.Append(ctx, []byte("hello")) // is on disk afterwards
//	}
//
// # Files
//
// A [Journal] is a [history.Store] in a directory of its own. The directory
// holds a segment file, a small key file and a lock file. Each append adds a
// record to the segment. Replace, Clear and Delete write a new segment and a
// new key file, and destroy the old ones. After a crash at any moment, the
// directory holds the state from before or after such a change.
//
// # Encryption
//
// Each record of the segment is encrypted with AES-256-GCM, under a random data
// key that no other segment uses. The key file holds the data key, encrypted
// under a key that HKDF-SHA256 derives from the master key and a random salt.
// Each record is bound to its number in the segment: if a record was changed,
// moved, doubled or left out, Load returns an error.
//
// An attacker can do two things without detection: cut the segment at the end
// of a record that was appended after the segment was made, and restore an
// earlier state of the whole directory. Only data that is kept elsewhere could
// reveal them.
//
// # Erasure
//
// Clear, Replace and Delete write a new segment under a new data key, and then
// overwrite and remove the old key file. From then on no one can read a copy of
// the old segment, not even the holder of the master key. A person with a copy
// of the old key file and the master key can read it, however. So leave *.key
// out of backups and snapshots, and make backups with package archive.
//
// Overwriting may leave the old data readable on a file system that never
// writes in place (btrfs, ZFS) and on flash memory that remaps sectors. There,
// only the secrecy of the master key protects the erased entries.
//
// Entries that retention drops are on disk until the segment is written anew.
// The next append does that if at least half of the segment, and at least 16
// KiB of it, belong to such entries. A timer does it at most an hour after
// entries were dropped, while the journal is open.
//
// # Nonces
//
// Nonces are random (96 bits, from crypto/rand). A counter would be safe only
// if no number were used twice under one key. But after an incomplete write,
// the number of the lost record would be used again, while a copy of the disk
// may hold the lost record. With random nonces, the probability of a repetition
// is below 2^-40 for up to 16 million records in one segment. Segments are
// written anew long before that.
//
// # Durability
//
// With [SyncAlways], the default, and without [Config.KeepGoing], an entry
// survives a power failure once Append has returned nil. Otherwise the last
// entries may be lost, and their sequence numbers are then used again for other
// entries. So if the journal was not closed with Close, the log then begins a
// new epoch. Its readers get a Reset, and do not mistake a new entry for a lost
// one.
//
// Finish forces its record and all entries before it to the disk with every
// [Sync].
//
// # Many logs
//
// [ForSet] gives each log of a [history.Set] a journal in a directory of its
// own. An open journal holds seven file descriptors, so set
// [history.SetConfig.MaxLogs] to a seventh of what the process may open, or
// less.
//
// # Systems
//
// The package needs flock and atomic rename: the BSDs, Linux and macOS. On
// other systems, [Open] returns an [*Error] that wraps [errors.ErrUnsupported].
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/relayguard/relayguard/history"
)

// KeySize is the length of a master key, in bytes.
const KeySize = 32

const (
	defaultEvery = time.Second      // of Config.Every
	purgeAfter   = time.Hour        // how long dropped entries stay on disk
	purgeStep    = time.Minute      // how often the clock is looked at meanwhile
	retryAfter   = 10 * time.Second // between two attempts to repair, with KeepGoing
)

// Sync is when appended entries are forced to the disk with fsync. Everything
// else that a journal writes is forced to the disk at once.
type Sync int

// The values of [Config.Sync].
const (
	SyncAlways   Sync = iota // before Append returns
	SyncInterval             // at most Config.Every after Append returned
	SyncNever                // never: the operating system decides when to write
)

// Config configures a journal. Dir and Keys are required.
type Config struct {
	// Dir is the directory of the journal. Only this journal may use it. Open
	// makes the directory if it does not exist, and sets its mode to 0700. The
	// files in it have mode 0600.
	//
	// Open refuses a directory with [ReasonUnsafe] if Dir is a link, if any
	// user may write to it, or if another user than root and that of this
	// process owns it.
	Dir string

	// Keys are the master keys, of 32 random bytes each. They are copied. The
	// journal encrypts with the first one and decrypts with any. To rotate the
	// key, put the new key first, restart, call [Journal.Rewrap], and remove
	// the old key.
	Keys [][]byte

	// Sync is when appended entries are forced to the disk. The zero value is
	// SyncAlways.
	Sync Sync

	// Every is the longest time between an append and its fsync, if Sync is
	// SyncInterval. 0 means a second.
	Every time.Duration

	// KeepGoing makes Append accept entries while the medium fails. These
	// entries are in memory only, and [Journal.Err] returns the failure, until
	// a later Append succeeds in writing everything anew. Append tries that at
	// most every ten seconds.
	//
	// If Replace cannot write the new state, it destroys the old state on disk
	// and returns nil. It returns an error only if that fails too. So if
	// Replace returns nil, the old entries are erased.
	//
	// After a crash, sequence numbers from that time may be used again. So with
	// KeepGoing, the log begins a new epoch unless the journal was closed with
	// Close.
	KeepGoing bool

	// OnState, if not nil, is called with the [*Error] when the medium begins
	// to fail, and with nil when everything is written again. It must not call
	// methods of the journal.
	OnState func(error)

	// OnWarning, if not nil, is called with an [*Error] by Open if the mode of
	// Dir cannot be changed, as in a volume that belongs to root or on NFS, and
	// by Load if the newest state was destroyed by a failed change, so that the
	// state before that change is loaded. If nil, these are not reported.
	OnWarning func(error)

	// OnDropped, if not nil, is called by Load if the end of the segment is
	// missing, because a write was interrupted or the file was cut. If nil, the
	// loss is not reported.
	OnDropped func(Dropped)
}

// Dropped describes the missing end of a segment.
type Dropped struct {
	// Bytes is the length of the incomplete last record.
	Bytes int64
	// Missing is the number of missing records that certainly were on disk. It
	// is 0 after a crash. If it is more, the file was cut.
	Missing uint64
}

// ConfigError is one problem of a [Config]. It never holds a value.
type ConfigError struct {
	Field  string // with its struct, such as "Config.Keys[1]"
	Reason error  // a [ConfigReason]
}

func (e *ConfigError) Error() string { return "journal: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns Reason, so that [errors.Is] finds it.
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a [Config] is refused. The set is closed. It
// is an error, so that [errors.Is] finds it.
type ConfigReason string

// The reasons of a [ConfigError].
const (
	ConfigMissing  ConfigReason = "is required"
	ConfigKeySize  ConfigReason = "must be 32 bytes long"
	ConfigUnknown  ConfigReason = "is not one of the choices"
	ConfigNegative ConfigReason = "must not be negative"
)

func (r ConfigReason) Error() string { return string(r) }

// lax reports whether an acknowledged entry can be lost, so that its sequence
// number would be used again.
func (c Config) lax() bool { return c.Sync != SyncAlways || c.KeepGoing }

// check returns a [*ConfigError] for each problem, joined.
func (c Config) check() error {
	var errs []error
	refuse := func(bad bool, field string, reason ConfigReason) {
		if bad {
			errs = append(errs, &ConfigError{"Config." + field, reason})
		}
	}
	refuse(c.Dir == "", "Dir", ConfigMissing)
	refuse(len(c.Keys) == 0, "Keys", ConfigMissing)
	for i, k := range c.Keys {
		refuse(len(k) != KeySize, fmt.Sprintf("Keys[%d]", i), ConfigKeySize)
	}
	refuse(c.Sync < SyncAlways || c.Sync > SyncNever, "Sync", ConfigUnknown)
	refuse(c.Every < 0, "Every", ConfigNegative)
	return errors.Join(errs...)
}

// Journal is a [history.Store] in a directory. [Open] returns one, for
// [history.Open]. If history.Open succeeds, the log calls the methods of the
// Store and closes the journal; if it fails, the caller closes the journal.
// [Journal.Rewrap] and [Journal.Err] are for the caller. All methods may be
// called from any goroutine.
type Journal struct {
	cfg Config
	dir directory

	mu     sync.Mutex
	closed bool
	loaded bool
	broken error         // why the segment takes no more records
	retry  time.Time     // when to try a repair again, with KeepGoing
	saved  history.Saved // the state; its data is shared with the log
	floor  uint64        // entries up to this number are dropped
	fresh  bool          // the line of saved is not on disk yet
	pinned []history.Pin // the pins on disk
	seg    *segment      // nil if nothing is written yet
	gen    uint64        // the highest generation of any file, even a void one
	old    []void        // void files that are not destroyed yet
	waste  int64         // bytes of dropped entries in the segment
	purge  *time.Timer   // set while there is waste
	due    time.Time     // when to purge
	flush  *time.Timer   // set while a written record is not synced

	unsynced    bool // the rename of the current key file is not synced
	nextSegment file // the files for the next rewriting, or nil
	nextKey     file
}

// Open makes and locks the directory, so that no other process can use it. If
// cfg is wrong, the error joins a [*ConfigError] for each problem. Any other
// error is an [*Error].
func Open(cfg Config) (*Journal, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Every == 0 {
		cfg.Every = defaultEvery
	}
	cfg.Keys = copies(cfg.Keys)
	warn := func(err error) {
		if cfg.OnWarning != nil {
			cfg.OnWarning(err)
		}
	}
	dir, err := openDisk(cfg.Dir, warn)
	if err != nil {
		return nil, err
	}
	return &Journal{cfg: cfg, dir: dir}, nil
}

// copies returns copies of keys, so that the caller may overwrite its own.
func copies(keys [][]byte) [][]byte {
	all := make([][]byte, len(keys))
	for i, k := range keys {
		all[i] = bytes.Clone(k)
	}
	return all
}
