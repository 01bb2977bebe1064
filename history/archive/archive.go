// Package archive exports the entries of a [history.Log] to a file that people
// and other programs can read. It imports such a file completely or not at all.
//
//	package main
//
//	import (
//		"context"
//		"os"
//		"slices"
//
//		"github.com/relayguard/relayguard/history"
//		"github.com/relayguard/relayguard/history/archive"
//	)
//
//	func main() {
//		ctx := context.Background()
//		log, err := history.Open(ctx, history.Config{})
//		if err != nil {
//			panic(err)
//		}
//		log.Append(ctx, []byte("hello"))
//		entries := slices.Values(log.Since(history.Oldest()).Entries)
//		cfg := archive.ExportConfig{}
//		_, err = archive.Export(ctx, os.Stdout, entries, cfg)
//		if err != nil {
//			panic(err)
//		}
//	}
//
// # Format
//
// An archive is JSON Lines: a header, a line for each entry, and a trailer.
//
//	{"format":"relayguard-history","version":1,"exported":"2026-11-24T10:00:00Z"}
//	{"seq":1,"at":"2026-11-24T09:59:59.5Z","text":"hello"}
//	{"seq":2,"at":"2026-11-24T10:00:00Z","base64":"/w=="}
//	{"end":true,"entries":2,"sha256":"…"}
//
// The header of a finished log (see [history.Log.Finish]) has "version":2, and
// "finished":true at its end.
//
// An entry that is valid UTF-8 is in "text", any other in "base64". The SHA-256
// digest is of all lines before the trailer, with their line ends. It reveals
// accidental changes and edits. It does not reveal forgery, because anybody can
// compute a digest.
//
// # Encryption
//
// With recipients, the lines are inside an age file (age-encryption.org/v1),
// which the age program can open too. If an archive opens with a passphrase,
// its maker knew the passphrase. If it opens with a secret key, its maker can
// be anybody, because the public key is enough to encrypt.
//
// # All or nothing
//
// The digest is at the end of an archive, and age authenticates a file piece by
// piece. So entries can be read before it is known whether the archive is
// complete and unchanged. [ImportLog] and [ImportStore] therefore change
// nothing until they have checked the trailer. Until then they hold only the
// entries to keep, whatever the size of the archive, and write nothing to disk.
// A [Reader] returns entries before that check, so use it only if you can undo
// what you do with them.
package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unicode/utf8"

	"filippo.io/age"

	"github.com/relayguard/relayguard/history"
)

const (
	formatName      = "relayguard-history"
	formatVersion   = 1
	finishedVersion = 2 // of an archive of a finished log, since version 1 cannot say that
)

// The order of the fields is the order in the file.
type header struct {
	Format   string    `json:"format"`
	Version  int       `json:"version"`
	Exported time.Time `json:"exported"`
	Finished bool      `json:"finished,omitempty"`
}

type line struct {
	Seq    uint64    `json:"seq"`
	At     time.Time `json:"at"`
	Text   *string   `json:"text,omitempty"`
	Base64 *[]byte   `json:"base64,omitempty"`
}

type trailer struct {
	End     bool   `json:"end"`
	Entries uint64 `json:"entries"`
	SHA256  string `json:"sha256"`
}

// Progress is how much of an archive an export has written or an import read.
type Progress struct {
	Entries uint64 // the number of entries
	Bytes   int64  // the length of their lines, before encryption
	Done    bool   // the archive is complete, and an import has checked it

	Finished bool // the archive is of a finished log
}

// progressEvery is the number of entries between two calls of a Progress
// function. To draw on a terminal, a caller should skip most of the calls.
const progressEvery = 100

// ExportConfig configures an export. With the zero value, the archive is not
// encrypted.
type ExportConfig struct {
	// Recipients can open the archive. They are public keys (see
	// [age.ParseX25519Recipient]) or one passphrase (see
	// [PassphraseRecipient]). If there are none, the archive is not encrypted.
	Recipients []age.Recipient

	// Exported is the time in the header, to the second. Zero means now.
	Exported time.Time

	// Finished says that the entries are all of a finished log. Set it to the
	// result of [history.Log.Finished], taken before the entries.
	Finished bool

	// Progress, if not nil, is called after every hundred entries and at the
	// end.
	Progress func(Progress)
}

// Export writes an archive of entries to w. To export a log without blocking
// it, take a snapshot:
//
//	entries := slices.Values(log.Since(history.Oldest()).Entries)
//	done, err := archive.Export(ctx, w, entries, cfg)
//
// Entries must be in the order of Seq. If the time of an entry is before that
// of an earlier one, the archive has the time of the earlier one, because a
// [Reader] refuses an archive whose times go back. A time before the year 1 or
// after 9999 becomes the nearest between them.
//
// Export needs memory for the longest entry only. If ctx ends, the error is
// that of ctx; any other error is an [*Error]. After an error, every import
// refuses what was written.
func Export(ctx context.Context, w io.Writer, entries iter.Seq[history.Entry], cfg ExportConfig) (done Progress, err error) {
	if cfg.Exported.IsZero() {
		cfg.Exported = time.Now()
	}
	var sealed io.WriteCloser
	if len(cfg.Recipients) > 0 {
		if sealed, err = age.Encrypt(w, cfg.Recipients...); err != nil {
			return done, &Error{Reason: ReasonFailed, Err: err}
		}
		w = sealed
	}
	out := &writer{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	head := header{formatName, formatVersion, cfg.Exported.UTC().Truncate(time.Second), cfg.Finished}
	if cfg.Finished {
		head.Version = finishedVersion
	}
	out.done.Finished = cfg.Finished
	out.put(head)
	for e := range entries {
		if err := ctx.Err(); err != nil {
			return out.done, err
		}
		out.put(lineOf(out.follow(e)))
		out.done.Entries++
		if cfg.Progress != nil && out.done.Entries%progressEvery == 0 {
			cfg.Progress(out.done)
		}
		if out.err != nil {
			break
		}
	}
	out.put(trailer{true, out.done.Entries, hex.EncodeToString(out.sum.Sum(nil))})
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err == nil && sealed != nil {
		out.err = sealed.Close()
	}
	if out.err != nil {
		return out.done, &Error{Reason: ReasonFailed, Err: out.err}
	}
	out.done.Done = true
	if cfg.Progress != nil {
		cfg.Progress(out.done)
	}
	return out.done, nil
}

// ExportFile writes an archive of entries to the file name, with mode 0600. It
// makes or replaces the file only after the whole archive is on disk. It
// replaces ordinary files only: if name is a link, a device, a pipe or a
// directory, it returns an error and reads no entry. To write to one of those,
// open it and call [Export]. Its errors are those of Export.
func ExportFile(ctx context.Context, name string, entries iter.Seq[history.Entry], cfg ExportConfig) (Progress, error) {
	if err := replaceable(name); err != nil {
		return Progress{}, &Error{Reason: ReasonFailed, Err: err}
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".archive-*")
	if err != nil {
		return Progress{}, &Error{Reason: ReasonFailed, Err: err}
	}
	done, err := Export(ctx, f, entries, cfg)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = replaceable(name) // it may have changed since
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return done, failed(err)
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return done, failed(fmt.Errorf("the archive is written, but may be gone after a power failure: %w", err))
	}
	return done, nil
}

// replaceable returns an error if name exists and is no ordinary file.
func replaceable(name string) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a link: name the file itself", name)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no ordinary file", name)
	}
	return nil
}

// syncDir syncs a directory, so that a rename in it survives a power failure.
// Some file systems (9p, vboxsf and some of FUSE) have no such operation.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// writer writes lines, and computes the digest of them.
type writer struct {
	w    *bufio.Writer
	sum  hash.Hash
	done Progress
	seq  uint64    // of the last entry
	at   time.Time // of the last entry
	err  error     // the first error
}

// latest is the last time of RFC 3339. The earliest in an archive is the zero
// time, with which a Reader begins.
var latest = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)

// errOrder is the error for entries that no Reader would accept.
var errOrder = errors.New("the entries are not in the order of Seq")

// follow returns e as it may follow the entry before.
func (w *writer) follow(e history.Entry) history.Entry {
	if e.Seq <= w.seq && w.err == nil {
		w.err = errOrder
	}
	e.At = e.At.UTC().Round(0) // without the monotonic clock
	if e.At.Before(w.at) {
		e.At = w.at
	}
	if e.At.After(latest) {
		e.At = latest
	}
	w.seq, w.at = e.Seq, e.At
	return e
}

// put writes v as a line, unless there was an error before.
func (w *writer) put(v any) {
	if w.err != nil {
		return
	}
	b, err := encode(v)
	if err == nil {
		w.sum.Write(b)
		_, err = w.w.Write(b)
	}
	w.done.Bytes += int64(len(b))
	w.err = err
}

// encode returns v as a line. It does not escape the special characters of
// HTML, so that people can read the line.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// lineOf returns the line of an entry.
func lineOf(e history.Entry) line {
	l := line{Seq: e.Seq, At: e.At.UTC().Round(0)}
	if utf8.Valid(e.Data) {
		text := string(e.Data)
		l.Text = &text
	} else {
		l.Base64 = &e.Data
	}
	return l
}

// PassphraseRecipient returns a recipient that encrypts an archive to a
// passphrase. It must be the only recipient. An empty passphrase is an error.
func PassphraseRecipient(passphrase string) (age.Recipient, error) {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return r, nil
}

// PassphraseIdentity returns an identity that opens archives with a passphrase.
// It refuses an archive that needs more than 1 GiB of memory to open, although
// age allows more. Archives of this package and of the age program need 256
// MiB. An empty passphrase is an error.
func PassphraseIdentity(passphrase string) (age.Identity, error) {
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	id.SetMaxWorkFactor(20)
	return id, nil
}
