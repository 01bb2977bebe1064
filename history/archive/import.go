package archive

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"time"

	"filippo.io/age"

	"github.com/relayguard/relayguard/history"
)

// Defaults of ImportConfig.
const (
	defaultKeep     = 1000 // as of history.Config.Keep
	defaultMaxBytes = 256 << 20
)

// ImportConfig configures an import. With the zero value, the archive must not
// be encrypted, and its last 1,000 entries are imported.
type ImportConfig struct {
	// Identities open an encrypted archive. They are secret keys (see
	// [age.ParseIdentities]) or passphrases (see [PassphraseIdentity]). With
	// identities, an archive that is not encrypted is refused.
	Identities []age.Identity

	// Keep is the number of entries to import, the last ones of the archive. 0
	// or less means 1,000. A number above the Config.Keep of the log has no
	// use.
	Keep int

	// MaxBytes limits the sum of the lengths of these entries. If they are
	// longer, the oldest are left out. 0 or less means 256 MiB.
	MaxBytes int64

	// MaxLine limits the length of a line of the archive, in bytes. 0 or less
	// means 16 MiB.
	MaxLine int

	// Check, if not nil, is called for every entry of the archive. If it
	// returns an error, the whole archive is refused with ReasonUnfit. Anybody
	// can make an archive, and its digest says nothing about its content.
	Check func(history.Entry) error

	// Progress, if not nil, is called after every hundred entries and at the
	// end.
	Progress func(Progress)
}

// Read checks a whole archive and returns its last entries, as many as cfg
// allows. It holds no more than these in memory. If ctx ends, the error is that
// of ctx; any other error is an [*Error].
func Read(ctx context.Context, r io.Reader, cfg ImportConfig) ([]history.Entry, Progress, error) {
	keep, limit := cfg.Keep, cfg.MaxBytes
	if keep <= 0 {
		keep = defaultKeep
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
			kept[0] = history.Entry{} // free the data before append reallocates
			kept = kept[1:]
		}
	}
}

// ImportLog replaces the entries of l with the last entries of an archive, in
// one step (see [history.Log.Replace], which also explains note). The imported
// entries get the current time and new sequence numbers. If the archive is of a
// finished log, ImportLog then finishes l.
//
// Its errors are those of [Read]. If l is finished already, the error wraps
// [history.ErrFinished]. After an error, the log has not changed, unless it was
// an error of the last step: if l cannot be finished, it has the entries, and
// the caller may import the archive again.
func ImportLog(ctx context.Context, l *history.Log, note []byte, r io.Reader, cfg ImportConfig) (Progress, error) {
	entries, done, err := Read(ctx, r, cfg)
	if err != nil {
		return done, err
	}
	if l.Finished() { // a Replace without entries would clear it
		return done, failed(history.ErrFinished)
	}
	data := make([][]byte, len(entries))
	for i, e := range entries {
		data[i] = e.Data
	}
	if _, err = l.Replace(ctx, note, data...); err == nil && done.Finished {
		err = l.Finish(ctx)
	}
	return done, failed(err)
}

// ImportStore replaces the entries in s with the last entries of an archive, in
// a new epoch. No log may have the Store open. The imported entries keep their
// times, except that a time after now becomes the current time. They get the
// sequence numbers that follow those in s. The log in s is then finished if the
// archive is of a finished log, else it is not. Its errors are those of [Read].
// If the archive is refused, s is not even loaded.
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
	saved.NoteEpoch, saved.Note, saved.Earlier, saved.Finished = saved.Epoch, nil, nil, done.Finished
	now := time.Now()
	for i := range entries {
		saved.Last++
		entries[i].Seq = saved.Last
		if entries[i].At.After(now) {
			entries[i].At = now.Round(0)
		}
	}
	saved.Entries = entries
	return done, failed(s.Replace(ctx, saved))
}
