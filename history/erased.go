package history

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// The bounds of what a replica remembers of erasures. What they exceed is
// forgotten, the oldest first.
const (
	maxErased      = 4096
	maxErasedNotes = 16
)

var errErased = errors.New("history: what was erased has come back, and is erased again")

// erasures is what a replica has seen erased. An Origin that fails over to a
// copy, or is put back from one, may have it again.
type erasures struct {
	spans []span
	notes [][]byte
}

// span is the sequence numbers from first up to and including last.
type span struct{ first, last uint64 }

// remember compares two states of a log, the second of which is later. What
// retention has dropped in between counts as erased too, since it does not come
// back either, unless it has left a pin, one of pins.
func (e *erasures) remember(before, after *state, pins []Pin) {
	if before.noteEpoch < after.noteEpoch && before.note != nil {
		e.notes = append(e.notes, before.note)
		e.notes = e.notes[max(len(e.notes)-maxErasedNotes, 0):]
	}
	rest := after.entries
	for _, entry := range before.entries {
		i := sort.Search(len(rest), func(i int) bool { return rest[i].Seq >= entry.Seq })
		rest = rest[i:]
		if len(rest) > 0 && rest[0].Seq == entry.Seq || slices.ContainsFunc(pins, func(p Pin) bool { return p.Seq == entry.Seq }) {
			continue
		}
		if n := len(e.spans); n > 0 && e.spans[n-1].last+1 == entry.Seq {
			e.spans[n-1].last++
		} else {
			e.spans = append(e.spans, span{entry.Seq, entry.Seq})
		}
	}
	e.spans = e.spans[max(len(e.spans)-maxErased, 0):]
}

// rememberPins remembers the pins of before that after, a later state, lacks. A
// pin with a newer value is not erased, unless everything is.
func (e *erasures) rememberPins(before *state, after *Saved) {
	for _, p := range before.pins {
		newer := slices.ContainsFunc(after.Pins, func(q Pin) bool { return q.Key == p.Key })
		if p.Seq > 0 && (!newer || before.noteEpoch < after.NoteEpoch) && !e.has(p.Seq) {
			e.spans = append(e.spans, span{p.Seq, p.Seq})
		}
	}
}

func (e *erasures) has(seq uint64) bool {
	return slices.ContainsFunc(e.spans, func(s span) bool { return s.first <= seq && seq <= s.last })
}

// again returns the change that erases what is back in s, and whether anything
// is.
func (e *erasures) again(s *Saved) (Change, bool) {
	c := Change{If: Head{cmp.Or(s.Line, s.ID), s.Epoch, s.Last}}
	var rest [][]byte
	for _, entry := range s.Entries {
		if e.has(entry.Seq) {
			c.Delete = append(c.Delete, entry.Seq)
		} else {
			rest = append(rest, entry.Data)
		}
	}
	for _, p := range s.Pins {
		if e.has(p.Seq) && !slices.Contains(c.Delete, p.Seq) {
			c.Delete = append(c.Delete, p.Seq)
		}
	}
	note := s.Note != nil && slices.ContainsFunc(e.notes, func(n []byte) bool { return bytes.Equal(n, s.Note) })
	if note && !s.Finished {
		// Only a replacement erases a note.
		c.Replace, c.Append, c.Delete = true, rest, nil
	}
	return c, c.Replace || len(c.Delete) > 0
}

// eraseAgain erases in the Origin what has come back. Its error is not nil if
// the update must not be applied.
func (l *Log) eraseAgain(s *Saved) error {
	r, cur := l.replica, l.state.Load()
	if s.ID != cur.id {
		r.erased = erasures{} // another log
		return nil
	}
	renewed, err := s.state()
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if cur.epoch < renewed.epoch {
		r.erased.rememberPins(cur, s)
		r.erased.remember(cur, renewed, s.Pins)
	}
	if cur.noteEpoch < renewed.noteEpoch && renewed.note != nil {
		// The same text may be the note again, on purpose.
		r.erased.notes = slices.DeleteFunc(r.erased.notes, func(n []byte) bool { return bytes.Equal(n, renewed.note) })
	}
	c, back := r.erased.again(s)
	if !back {
		return nil
	}
	if _, err := r.origin.Commit(r.ctx, c); err != nil && !errors.Is(err, ErrNotErased) && !errors.Is(err, ErrMoved) {
		return fmt.Errorf("%w: %w", errErased, err)
	}
	return errErased
}
