package history

import (
	"context"
	"errors"
	"time"
)

// An Entry is one message. Entries and their Data are shared by every reader
// and must not be changed.
type Entry struct {
	// Seq counts from 1, rises, and is never used twice in a log's life.
	Seq uint64
	// At is when the entry was appended. It never runs backwards in a log.
	At time.Time
	// Data is the message, as given to Append.
	Data []byte
}

// Saved is the whole of a log, as a [Store] loads and replaces it.
type Saved struct {
	// ID names the log, and stays with it. 0 means: nothing saved yet.
	ID uint64
	// Epoch counts Replace, Clear and Delete.
	Epoch uint64
	// Last is the highest Seq ever given out, kept or not.
	Last uint64
	// NoteEpoch is the epoch that began with Note.
	NoteEpoch uint64
	Note      []byte
	// Entries are what is kept, with Seq rising and none above Last.
	Entries []Entry
}

// A Store is the durable side of a [Log]: the seam for a file or a database.
// A log calls it from one goroutine at a time.
//
// Append and Replace come before readers see the change. If one fails, the log
// has not changed and the caller gets the error, so a Store that would rather
// go on without its medium must say so elsewhere and return nil.
type Store interface {
	// Load returns what is kept, or a zero Saved where there is nothing yet.
	// Called once, first.
	Load(ctx context.Context) (Saved, error)

	// Append adds an entry. When it returns nil, the entry survives whatever
	// the Store promises to survive.
	Append(ctx context.Context, e Entry) error

	// Replace puts s in the place of everything, all or nothing. What was
	// there before must not be readable afterwards.
	Replace(ctx context.Context, s Saved) error

	// Trim says that entries up to and including seq are no longer wanted. It
	// should return at once; a failure belongs to the next Append.
	Trim(seq uint64)

	Close() error
}

var errSaved = errors.New("saved entries are out of order")

// state checks s and makes it the first state of a log.
func (s Saved) state() (*state, error) {
	st := &state{
		id: s.ID, epoch: s.Epoch, last: s.Last, floor: s.Last,
		note: s.Note, noteEpoch: s.NoteEpoch, entries: s.Entries,
	}
	if len(s.Entries) > 0 {
		if s.Entries[0].Seq == 0 {
			return nil, errSaved
		}
		st.floor = s.Entries[0].Seq - 1
	}
	seq := st.floor
	for _, e := range s.Entries {
		if e.Seq <= seq || e.Seq > s.Last {
			return nil, errSaved
		}
		seq = e.Seq
		st.bytes += int64(len(e.Data))
	}
	if s.NoteEpoch > s.Epoch {
		return nil, errSaved
	}
	return st, nil
}

func (s *state) saved() Saved {
	return Saved{
		ID: s.id, Epoch: s.epoch, Last: s.last,
		NoteEpoch: s.noteEpoch, Note: s.note, Entries: s.kept(),
	}
}
