package relay

import (
	"bytes"
	"math"
	"sort"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
)

// everything is the bound of viewers that may see all entries.
const everything = math.MaxUint64

// The longest and the shortest time until a courier looks for entries that
// viewers may see by now.
const (
	longLook  = 250 * time.Millisecond
	shortLook = 5 * time.Millisecond
)

// bound is how far viewers see. Nothing waits for it in a queue: a viewer's
// cursor ends there.
type bound struct {
	seq  uint64    // the last entry that they see
	time time.Time // they see what was published until then
}

// bound returns how far viewers see now, and how long to wait until they may see
// more; 0 if they see everything.
//
// A message that another server erases or holds must not be shown here because
// this server does not know it yet. So with a delay, time goes on for viewers
// only as long as this server hears of both: it may be silent for half of the
// delay.
func (f *fanout) bound() (bound, time.Duration) {
	var since, known time.Time
	if f.held != nil {
		since, known = f.held()
	}
	if f.delay == 0 && since.IsZero() {
		return bound{seq: everything}, 0
	}
	until := f.log.Now()
	if f.delay > 0 {
		until = earlier(until, f.log.Current().Add(f.delay/2))
		if f.held != nil {
			until = earlier(until, known.Add(f.delay/2))
		}
	}
	if !since.IsZero() {
		until = earlier(until, since)
	}
	b := bound{time: until.Add(-f.delay)}
	all := f.log.Since(history.Oldest())
	n := sort.Search(len(all.Entries), func(i int) bool { return all.Entries[i].At.After(b.time) })
	if n == len(all.Entries) {
		b.seq = all.To.Seq()
		return b, 0
	}
	b.seq = all.Entries[n].Seq - 1
	wait := all.Entries[n].At.Add(f.delay).Sub(f.log.Now())
	if wait <= 0 { // viewers are held, or this server hears nothing
		wait = longLook
	}
	return b, min(max(wait, shortLook), longLook)
}

// last returns the position before the last n entries that viewers see now.
func (f *fanout) last(n int) history.Position {
	all := f.log.Since(history.Oldest())
	if b, _ := f.bound(); b.seq != everything {
		all = all.Until(b.seq)
	}
	if before := len(all.Entries) - n; before > 0 {
		return all.First(before).To
	}
	return history.Oldest()
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// of returns the part of b that viewers see. Without whole, a restart signal is
// shown when its time has come, and until then a viewer keeps its page, but what
// an operator does to the history is shown at once.
func (v bound) of(b history.Batch, whole bool) history.Batch {
	if v.seq == everything {
		return b
	}
	if b.Reset && b.Note != nil && !whole && !v.shows(b) {
		return history.Batch{From: b.From, To: b.From}
	}
	return b.Until(v.seq)
}

// shows reports whether viewers see the note of b.
func (v bound) shows(b history.Batch) bool {
	if len(b.Entries) > 0 && bytes.Equal(b.Entries[0].Data, b.Note) {
		return b.Entries[0].Seq <= v.seq
	}
	m, ok := wire.Stored(Shown(b.Note))
	return !ok || !time.UnixMilli(m.Timestamp).After(v.time)
}
