package archive

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"

	"filippo.io/age"

	"github.com/relayguard/relayguard/history"
)

// defaultMaxBytes bounds the entries that an import holds in memory.
const defaultMaxBytes = 256 << 20

// ImportConfig describes an import. The zero value reads plain text and keeps
// the last 1,000 entries.
type ImportConfig struct {
	// Identities open an encrypted archive: secret keys
	// ([age.ParseIdentities]), or [PassphraseIdentity]. With identities, an
	// archive that is not encrypted is refused.
	Identities []age.Identity

	// Keep is how many entries, the last ones, are imported. 0 means
	// [history.DefaultKeep]. More than the log keeps is of no use.
	Keep int

	// MaxBytes bounds the sum of their lengths; of more, the oldest are left
	// out. 0 means 256 MiB.
	MaxBytes int64

	// MaxLine bounds a line of the archive. 0 means 16 MiB.
	MaxLine int

	// Check, where set, is asked about every entry; one error of it refuses the
	// whole archive as ReasonUnfit. An archive may come from anywhere, and its digest
	// says nothing about what is in it.
	Check func(history.Entry) error

	// Progress, where set, is called every hundred entries and at the end.
	Progress func(Progress)
}

// Read checks the whole of an archive and returns the last entries of it, as
// many as cfg allows, in memory.
func Read(ctx context.Context, r io.Reader, cfg ImportConfig) ([]history.Entry, Progress, error) {
	keep, limit := cfg.Keep, cfg.MaxBytes
	if keep <= 0 {
		keep = history.DefaultKeep
	}
	if limit <= 0 {
		limit = defaultMaxBytes
	}
	a, err := NewReader(r, cfg.MaxLine, cfg.Identities...)
	if err != nil {
		return nil, Progress{}, err
	}
	var kept []history.Entry
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return nil, a.done, err
		}
		e, err := a.Next()
		if err != nil && err != io.EOF {
			return nil, a.done, err
		}
		if cfg.Progress != nil && (err == io.EOF || a.done.Entries%progressEvery == 0) {
			cfg.Progress(a.done)
		}
		if err == io.EOF {
			return kept, a.done, nil
		}
		if cfg.Check != nil {
			if err := cfg.Check(e); err != nil {
				return nil, a.done, &Error{Reason: ReasonUnfit, Line: a.line, Err: err}
			}
		}
		kept = append(kept, e)
		size += int64(len(e.Data))
		for len(kept) > keep || size > limit {
			size -= int64(len(kept[0].Data))
			kept[0] = history.Entry{} // append reallocates only in time
			kept = kept[1:]
		}
	}
}

// ImportLog replaces what l keeps by the last entries of an archive, in one
// step, with note for its readers. They are appended now: numbers and times are
// the log's. If the archive is refused, the log has not changed.
func ImportLog(ctx context.Context, l *history.Log, note []byte, r io.Reader, cfg ImportConfig) (Progress, error) {
	entries, done, err := Read(ctx, r, cfg)
	if err != nil {
		return done, err
	}
	data := make([][]byte, len(entries))
	for i, e := range entries {
		data[i] = e.Data
	}
	_, err = l.Replace(ctx, note, data...)
	return done, failed(err)
}

// ImportStore replaces what s keeps by the last entries of an archive, with
// their times, for a log that nobody has open. Numbers go on from the store's,
// in a new epoch. If the archive is refused, the store was not even loaded.
func ImportStore(ctx context.Context, s history.Store, r io.Reader, cfg ImportConfig) (Progress, error) {
	entries, done, err := Read(ctx, r, cfg)
	if err != nil {
		return done, err
	}
	saved, err := s.Load(ctx)
	if err != nil {
		return done, failed(err)
	}
	for saved.ID == 0 {
		var b [8]byte
		rand.Read(b[:])
		saved.ID = binary.LittleEndian.Uint64(b[:])
	}
	saved.Epoch++
	saved.NoteEpoch, saved.Note = saved.Epoch, nil
	for i := range entries {
		saved.Last++
		entries[i].Seq = saved.Last
	}
	saved.Entries = entries
	return done, failed(s.Replace(ctx, saved))
}
