// Package archive writes the entries of a [history.Log] to a file that people
// and programs can read, and reads it back, whole or not at all.
//
// # Format
//
// JSON Lines: a header, a line for each entry, a trailer.
//
//	{"format":"relayguard-history","version":1,"exported":"2026-11-24T10:00:00Z"}
//	{"seq":1,"at":"2026-11-24T09:59:59.5Z","text":"hello"}
//	{"seq":2,"at":"2026-11-24T10:00:00Z","base64":"/w=="}
//	{"end":true,"entries":2,"sha256":"…"}
//
// An entry that is UTF-8 is "text", any other "base64". The digest is of all
// lines before the trailer, line ends included. It finds accidents, and edits
// by people; whoever can compute it can also forge it.
//
// With recipients, all of this is inside an age file (age-encryption.org/v1),
// which the age program opens as well. Encryption to a passphrase also proves
// that whoever made the archive knew it; encryption to a public key proves
// nothing about its maker.
//
// # All or nothing
//
// age authenticates a file in pieces, and the digest comes last: entries are
// readable before it is known that the file is complete and unchanged. So
// [ImportLog] and [ImportStore] change nothing before the trailer is checked.
// They hold no more than the entries that will be kept, whatever the archive's
// size, and put nothing on disk meanwhile. A [Reader] hands out entries as they
// come; it is for callers who can take them back.
package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"filippo.io/age"

	"github.com/relayguard/relayguard/history"
)

const (
	formatName    = "relayguard-history"
	formatVersion = 1
)

// Field order is the order in the file.
type header struct {
	Format   string    `json:"format"`
	Version  int       `json:"version"`
	Exported time.Time `json:"exported"`
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

// Progress is how far an export or import has come.
type Progress struct {
	Entries uint64
	Bytes   int64 // of JSON Lines, before encryption
	Done    bool  // and checked
}

// progressEvery is the number of entries between two calls of a Progress
// func. Who draws on a terminal wants to draw less often still.
const progressEvery = 100

// ExportConfig describes an export. The zero value writes plain text.
type ExportConfig struct {
	// Recipients can open the archive: public keys ([age.ParseX25519Recipient]),
	// or one passphrase ([PassphraseRecipient]). None: it is not encrypted.
	Recipients []age.Recipient

	// Exported is the time in the header. Zero means now.
	Exported time.Time

	// Progress, where set, is called every hundred entries and at the end.
	Progress func(Progress)
}

// Export writes entries to w. For those of a log, which it does not hold up:
//
//	archive.Export(ctx, w, slices.Values(log.Since(history.Oldest()).Entries), cfg)
//
// Memory is bounded by the longest entry. After an error, what was written is
// an archive that every import refuses.
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
	out.put(header{formatName, formatVersion, cfg.Exported.UTC().Truncate(time.Second)})
	for e := range entries {
		if err := ctx.Err(); err != nil {
			return out.done, err
		}
		out.put(lineOf(e))
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

// ExportFile is Export into the file name, with mode 0600. The name appears,
// or changes its content, when all is written and on disk.
func ExportFile(ctx context.Context, name string, entries iter.Seq[history.Entry], cfg ExportConfig) (Progress, error) {
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
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return done, failed(err)
	}
	return done, failed(syncDir(filepath.Dir(name)))
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

type writer struct {
	w    *bufio.Writer
	sum  hash.Hash
	done Progress
	err  error // the first
}

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

// encode returns v as a line. Characters that matter to HTML stay as they are:
// a person may read this.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

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

// PassphraseRecipient encrypts to a passphrase. It must be the only recipient.
func PassphraseRecipient(passphrase string) (age.Recipient, error) {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return r, nil
}

// PassphraseIdentity opens what a passphrase has encrypted. It refuses files
// that ask for more than 1 GiB of memory, which age allows: those that the age
// program and this package write ask for 256 MiB.
func PassphraseIdentity(passphrase string) (age.Identity, error) {
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	id.SetMaxWorkFactor(20)
	return id, nil
}
