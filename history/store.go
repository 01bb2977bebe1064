package history

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// Entry is one message of a log. All readers share it, so neither an Entry nor
// its Data may be changed.
type Entry struct {
	// Seq is the sequence number. The first entry of a log has 1. Numbers rise,
	// and no number is used twice in a log.
	Seq uint64
	// At is the time of the append, by the wall clock alone. It is never before
	// that of an earlier entry, also if the clock was set back in between.
	At time.Time
	// Data is the message, as it was given to Append.
	Data []byte
}

// Head is the end of a line: its name, its last Epoch, and the highest Seq that
// an entry had then. A line is a time of a log in which no state was put back
// from a copy.
type Head struct{ Line, Epoch, Last uint64 }

// Skip says that the sequence numbers from After+1 to After+Count were given to
// no entry. They do not count as [Batch.Missed].
type Skip struct{ After, Count uint64 }

// Saved is the complete content of a log, as a [Store] loads and saves it.
type Saved struct {
	// ID is the name of the log and never changes. 0 means that nothing is
	// saved yet.
	ID uint64
	// Line is the random name that the positions of new entries contain. 0
	// means ID.
	//
	// A Store whose medium can be put back from a copy should begin a new line
	// with each Load: it returns a new Line, adds the end of the line before to
	// Earlier, and saves both with the next change. The positions of the time
	// that the copy does not contain are then recognised: they name a line that
	// the copy does not know, or a number after its end there. Their readers
	// get a Reset.
	Line uint64
	// Earlier are the ends of the lines before, in the order of Last. Up to its
	// end, a position in one of them means the same in this line. A Store may
	// drop the first ones. A reader with a position in a dropped line gets a
	// Reset.
	Earlier []Head
	// Skips are the sequence numbers that were left out, in order. An [Origin]
	// leaves numbers out when it begins a new line, so that a number that it
	// gave in the line before, and has lost, is not given to another entry.
	Skips []Skip
	// Epoch is the number of the epoch. It rises by at least 1 with each
	// Replace, Clear and Delete.
	Epoch uint64
	// Last is the highest Seq that any entry has had, kept or not.
	Last uint64
	// NoteEpoch is the epoch that Note began.
	NoteEpoch uint64
	// Note is the note of the last Replace, or nil.
	Note []byte
	// Finished reports that no entry will be appended.
	Finished bool
	// Pins are the values of entries that are no longer kept, and of the note. An
	// Origin can also return those of kept entries.
	Pins []Pin
	// Entries are the kept entries, in the order of Seq. No Seq is above Last.
	Entries []Entry
}

// Store makes a [Log] durable. It is the interface to implement for a file or a
// database; package journal implements it for an encrypted file. A log calls
// its Store from one goroutine at a time.
//
// The log calls Append, Finish and Replace before readers see the change. If
// one of them fails, the log does not change and the caller gets the error, but
// after [ErrNotErased] the log changes all the same. So a Store that accepts
// entries while its medium fails returns nil, and must report the failure in
// another way.
type Store interface {
	// Load returns the saved content, or a zero Saved if there is none yet. The
	// log calls it once, before all other methods.
	Load(ctx context.Context) (Saved, error)

	// Append saves one more entry. After it has returned nil, the entry is as
	// durable as the Store promises.
	Append(ctx context.Context, e Entry) error

	// Finish saves that the log is finished. After it has returned nil, Load
	// returns Finished, also after a power failure.
	Finish(ctx context.Context) error

	// Replace saves s instead of everything saved before, completely or not at
	// all. Afterwards no one may be able to read the content from before. If s
	// is saved, but the content from before may still be readable, the error
	// wraps ErrNotErased.
	Replace(ctx context.Context, s Saved) error

	// Trim says that the log no longer needs the entries up to and including
	// seq, and that Saved.Pins are pins from now on. It should return at once,
	// and leave a failure to the next Append. If it has forgotten pins, it must
	// not have forgotten the entries that gave them.
	Trim(seq uint64, pins []Pin)

	// Close ends the use of the Store. It is the log's last call.
	Close() error
}

var errSaved = errors.New("saved entries or epochs are out of order")

// state returns the first state of a log that was saved as s. If s contradicts
// itself, the error is errSaved.
func (s Saved) state() (*state, error) {
	st := &state{
		id: s.ID, epoch: s.Epoch, last: s.Last, floor: s.Last,
		note: s.Note, noteEpoch: s.NoteEpoch, entries: slices.Clip(s.Entries), finished: s.Finished,
		lines: &lines{cmp.Or(s.Line, s.ID), s.Earlier, s.Skips},
	}
	var end Head
	for _, h := range s.Earlier {
		if h.Line == 0 || h.Last < end.Last || h.Epoch < end.Epoch || h.Last > s.Last || h.Epoch > s.Epoch {
			return nil, errSaved
		}
		end = h
	}
	var skipped uint64
	for _, k := range s.Skips {
		if k.After < skipped || k.After > s.Last || k.Count > s.Last-k.After {
			return nil, errSaved
		}
		skipped = k.After + k.Count
	}
	if len(s.Entries) > 0 {
		if s.Entries[0].Seq == 0 {
			return nil, errSaved
		}
		st.floor = s.Entries[0].Seq - 1
	}
	for _, p := range s.Pins {
		if p.Seq > s.Last || p.Data == nil {
			return nil, errSaved
		}
		if p.Seq <= st.floor { // else the entry gives it
			st.pins = append(st.pins, p)
		}
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

// saved returns s as a Store saves it.
func (s *state) saved() Saved {
	return Saved{
		ID: s.id, Line: s.lines.current, Earlier: s.lines.earlier, Skips: s.lines.skips, Epoch: s.epoch, Last: s.last,
		NoteEpoch: s.noteEpoch, Note: s.note, Finished: s.finished, Pins: s.pins, Entries: s.kept(),
	}
}
