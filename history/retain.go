package history

import (
	"sort"
	"time"
)

// TrimReason is the limit that caused a clean-up. The set is closed.
type TrimReason string

// The reasons of a [Trim].
const (
	TrimByCount TrimReason = "count"
	TrimByBytes TrimReason = "bytes"
	TrimByAge   TrimReason = "age"
)

// Trim is one clean-up: the entries that one limit dropped at one time.
type Trim struct {
	Reason  TrimReason
	Dropped int // the number of entries that were dropped
	Kept    int // the number of entries that are left
}

// Stats are the figures of a log: its content now, and counters since Open.
type Stats struct {
	Entries int       // the number of kept entries
	Bytes   int64     // the sum of their lengths
	Oldest  time.Time // the time of the oldest entry; zero without entries
	Latest  time.Time // the time of the latest entry; zero without entries
	Waiting int       // the number of readers waiting in Next

	Appended       uint64 // successful calls of Append
	Replaced       uint64 // successful calls of Replace and Clear
	Deleted        uint64 // entries erased by Delete
	TrimmedByCount uint64 // entries dropped by the limit of entries
	TrimmedByBytes uint64 // entries dropped by the limit of bytes
	TrimmedByAge   uint64 // entries dropped by the limit of age
	Wakings        uint64 // how often the waiting readers were woken
}

// Stats returns the figures of the log. It waits for a change that is under
// way, such as an Append that waits for its Store.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	s, st := l.counts, l.state.Load()
	l.mu.Unlock()
	s.Entries, s.Bytes = len(st.entries), st.bytes
	if n := len(st.entries); n > 0 {
		s.Oldest, s.Latest = st.entries[0].At, st.entries[n-1].At
	}
	s.Waiting, s.Wakings = l.wake.stats()
	return s
}

// Expire drops the entries whose age at the time now is Config.MaxAge or more,
// and returns how many it dropped. The log itself calls Expire by a timer.
func (l *Log) Expire(now time.Time) int {
	l.mu.Lock()
	cur := l.state.Load()
	if cur.closed {
		l.mu.Unlock()
		return 0
	}
	next := *cur
	trims := l.retain(&next, now)
	if len(trims) > 0 {
		l.state.Store(&next) // waiting readers have read the dropped entries
	}
	l.mu.Unlock()
	l.report(trims)
	return len(cur.entries) - len(next.entries)
}

// onAge is the function of the age timer.
func (l *Log) onAge() {
	l.mu.Lock()
	l.ageSet = false
	l.mu.Unlock()
	l.Expire(time.Now())
}

// retain applies the limits to next. The caller holds l.mu.
func (l *Log) retain(next *state, now time.Time) (trims []Trim) {
	trim := func(reason TrimReason, n int, total *uint64) {
		if n > 0 {
			l.drop(next, n)
			*total += uint64(n)
			trims = append(trims, Trim{reason, n, len(next.entries)})
		}
	}
	if l.cfg.MaxAge > 0 {
		trim(TrimByAge, next.olderThan(now.Add(-l.cfg.MaxAge)), &l.counts.TrimmedByAge)
	}
	if n := len(next.entries); n > l.cfg.TrimAt {
		trim(TrimByCount, n-l.cfg.Keep, &l.counts.TrimmedByCount)
	}
	if l.cfg.MaxBytes > 0 && next.bytes > l.cfg.MaxBytes {
		trim(TrimByBytes, next.beyond(l.cfg.MaxBytes-l.cfg.MaxBytes/6), &l.counts.TrimmedByBytes)
	}
	if l.cfg.MaxAge > 0 && len(next.entries) > 0 && !l.ageSet {
		l.ageSet = true
		// A clean-up copies the entries that stay, so the timer waits a little
		// for more of them to become old enough.
		due := next.entries[0].At.Add(l.cfg.MaxAge).Sub(now)
		l.ageTimer.Reset(max(due, 0) + max(l.cfg.MaxAge/64, time.Millisecond))
	}
	if len(trims) > 0 && l.cfg.Store != nil {
		l.cfg.Store.Trim(next.floor)
	}
	return trims
}

// publish shows next to readers. The caller holds l.mu.
func (l *Log) publish(next *state) {
	l.state.Store(next)
	l.wake.soon()
}

func (l *Log) report(trims []Trim) {
	if l.cfg.OnTrim != nil {
		for _, t := range trims {
			l.cfg.OnTrim(t)
		}
	}
}

// drop removes the n oldest entries of next. It copies the others to a new
// array, because the old array still refers to the dropped entries.
func (l *Log) drop(next *state, n int) {
	next.bytes -= size(next.entries[:n])
	next.floor = next.entries[n-1].Seq
	// The entries that followed the note are no longer complete. A reader that
	// did not get the note before gets a Reset without it.
	next.note = nil
	rest := next.entries[n:]
	next.entries = append(make([]Entry, 0, min(len(rest)+len(rest)/4+16, l.cfg.TrimAt+1)), rest...)
}

// olderThan returns the number of entries whose time is t or before.
func (s *state) olderThan(t time.Time) int {
	return sort.Search(len(s.entries), func(i int) bool { return s.entries[i].At.After(t) })
}

// beyond returns how many of the oldest entries must be dropped so that the
// others fit into limit bytes. It always leaves the last entry.
func (s *state) beyond(limit int64) int {
	n, left := 0, s.bytes
	for ; left > limit && n < len(s.entries)-1; n++ {
		left -= int64(len(s.entries[n].Data))
	}
	return n
}
