// Package journal keeps a [history.Log] in an encrypted file.
//
// It is a [history.Store]: a directory with one segment, which appends extend,
// and one small key file. Every other change writes both anew and destroys the
// old ones, so that a crash at any moment leaves the state before or after.
//
// # What is protected, and what is not
//
// Each record of the segment is sealed with AES-256-GCM under a random key of
// that segment alone. This data key is in the key file, sealed under a key that
// HKDF-SHA256 derives from the master key and a random salt. Records are bound
// to their place: one that was changed, moved, doubled or left out is an error.
// Not detected is a segment cut at the end of a record, or the whole directory
// put back to an earlier state; only a witness elsewhere could tell.
//
// Clear, Replace and Delete write a new segment under a new data key, then
// overwrite and remove the old key file. From then on a copy of the old segment
// cannot be read by anybody, the holder of the master key included. That holds
// for copies of the segment only: who copied the key file as well, and has the
// master key, reads both. So leave *.key out of backups and snapshots, and back
// up with package archive instead. Overwriting is also no more than a request
// on a file system that never writes in place (btrfs, ZFS) and on flash that
// remaps sectors; there, the secrecy of the master key is what remains.
//
// What retention drops is gone from the disk with the next rewriting: when half
// of the segment is waste, and at most an hour later.
//
// # Nonces
//
// They are random (96 bits, from crypto/rand). Counting instead would be safe
// as long as no number comes twice under a key, and after a torn write the
// number of the lost record would: its ciphertext may be in a copy of the disk.
// With random ones the chance of a repetition stays below 2^-40 up to
// 16 million records of one segment, which is rewritten long before.
//
// # Durability
//
// With [SyncAlways], the default, and without [Config.KeepGoing], an entry that
// Append has acknowledged survives the loss of power. Otherwise the last ones
// may be lost; the log then begins a new epoch when it was not closed in an orderly way, since
// the numbers of lost entries come again, and readers must not mistake them.
//
// The package needs flock and atomic rename: the BSDs, Linux and macOS.
package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/relayguard/relayguard/history"
)

// KeySize is the length of a master key in bytes.
const KeySize = 32

const (
	defaultEvery = time.Second      // of Config.Every
	purgeAfter   = time.Hour        // dropped entries stay on disk no longer
	retryAfter   = 10 * time.Second // between two attempts to repair, with KeepGoing
)

// A Sync says when an append is forced to the disk. Rewriting always is.
type Sync int

// Policies of [Config.Sync].
const (
	SyncAlways   Sync = iota // before Append returns
	SyncInterval             // at most Config.Every later
	SyncNever                // when the operating system likes to
)

// Config describes a journal. Dir and Keys are required.
type Config struct {
	// Dir is the directory, of this journal alone. It is made if it does not
	// exist, and set to mode 0700; the files in it have 0600.
	Dir string

	// Keys are the master keys, of 32 random bytes each. The first seals, all
	// open. To rotate: put the new key first, restart, call [Journal.Rewrap],
	// drop the old one.
	Keys [][]byte

	// Sync is when appends reach the disk. The zero value is SyncAlways.
	Sync Sync

	// Every is the period of SyncInterval. 0 means a second.
	Every time.Duration

	// KeepGoing accepts entries while the medium fails. They are in memory only
	// until a later Append succeeds in writing everything anew, which one tries
	// every ten seconds; [Journal.Err] says that it is so. A Replace then
	// destroys what is on disk without writing the new state; only where even
	// that fails does it return an error, since erasure must not be pretended.
	//
	// Numbers given out in that time may be given out again after a crash. So
	// with KeepGoing every end but Close begins a new epoch.
	KeepGoing bool

	// OnState, where set, is told when the medium begins to fail (the [*Error])
	// and when everything is written again (nil). It must not call the journal.
	OnState func(error)

	// OnDropped, where set, is told by Load what an interrupted write, or
	// whatever else cut the segment's end, has cost. nil is silence.
	OnDropped func(Dropped)
}

// Dropped is the end of a segment that could not be read, because it is not
// all there.
type Dropped struct {
	Bytes int64 // of the incomplete record
	// Missing is the number of records that were on disk for certain and are
	// not any more: 0 after a crash, more if somebody cut the file.
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

// lax reports whether numbers can be given out and lost.
func (c Config) lax() bool { return c.Sync != SyncAlways || c.KeepGoing }

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

// A Journal is a [history.Store] in a directory. Make one with [Open], give it
// to [history.Open], which from then on calls and closes it; [Journal.Rewrap]
// and [Journal.Err] may be called beside it, from any goroutine.
type Journal struct {
	cfg  Config
	lock *os.File

	mu     sync.Mutex
	closed bool
	loaded bool
	broken error         // why the segment takes no more records
	retry  time.Time     // no attempt to repair it before
	saved  history.Saved // what is kept; data is shared with the log
	floor  uint64        // entries up to here are not wanted
	seg    *segment      // nil: nothing written yet
	gen    uint64        // the highest ever used, if only for an attempt
	old    []string      // files that are void and not yet destroyed
	waste  int64         // bytes of the segment that floor made useless
	purge  *time.Timer   // set while there is waste
	flush  *time.Timer   // set while something is written but not synced
}

// Open takes the directory for this process. The error is an [*Error] or, for
// mistakes in cfg, all of them as [*ConfigError], joined.
func Open(cfg Config) (*Journal, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Every == 0 {
		cfg.Every = defaultEvery
	}
	keys := make([][]byte, len(cfg.Keys))
	for i, k := range cfg.Keys {
		keys[i] = append([]byte(nil), k...)
	}
	cfg.Keys = keys
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, failure("open", err)
	}
	lock, err := lockFile(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, failure("lock", err)
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		lock.Close()
		return nil, failure("open", err)
	}
	return &Journal{cfg: cfg, lock: lock}, nil
}
