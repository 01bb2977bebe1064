package history

import (
	"sort"
	"time"
)

// A TrimReason is the limit that a clean-up enforced.
type TrimReason string

// The reasons of a [Trim].
const (
	TrimByCount TrimReason = "count"
	TrimByBytes TrimReason = "bytes"
	TrimByAge   TrimReason = "age"
)

// A Trim is one clean-up.
type Trim struct {
	Reason  TrimReason
	Dropped int // entries dropped
	Kept    int // entries left
}

// Stats are what a log has and has done since Open.
type Stats struct {
	Entries int       // kept
	Bytes   int64     // sum of their lengths
	Oldest  time.Time // when the oldest was appended; zero without entries
	Latest  time.Time // when the latest was appended; zero without entries
	Waiting int       // readers waiting in Next

	Appended       uint64 // calls of Append that succeeded
	Replaced       uint64 // of Replace and Clear
	Deleted        uint64 // entries, by Delete
	TrimmedByCount uint64 // entries, by retention
	TrimmedByBytes uint64
	TrimmedByAge   uint64
	Wakings        uint64 // times that waiting readers were woken
}

// Stats returns the log's figures.
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

// Expire drops what is older than Config.MaxAge at the time now, and returns
// how many entries that were. The log calls it by itself.
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
		l.state.Store(&next) // readers that wait have read it all
	}
	l.mu.Unlock()
	l.report(trims)
	return len(cur.entries) - len(next.entries)
}

// onAge is what the age timer runs.
func (l *Log) onAge() {
	l.mu.Lock()
	l.ageSet = false
	l.mu.Unlock()
	l.Expire(time.Now())
}

// retain applies the limits to next. l.mu is held.
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
		// Not for each entry by itself: a clean-up copies those that stay.
		due := next.entries[0].At.Add(l.cfg.MaxAge).Sub(now)
		l.ageTimer.Reset(max(due, 0) + max(l.cfg.MaxAge/64, time.Millisecond))
	}
	if len(trims) > 0 && l.cfg.Store != nil {
		l.cfg.Store.Trim(next.floor)
	}
	return trims
}

// publish shows next to readers. l.mu is held.
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

// drop removes the n oldest entries of next. The others move to an array of
// their own, so that nothing holds on to the dropped ones.
func (l *Log) drop(next *state, n int) {
	next.bytes -= size(next.entries[:n])
	next.floor = next.entries[n-1].Seq
	// What follows the note is no longer whole, so a reader that has not had it is
	// given what is kept as a plain Reset.
	next.note = nil
	rest := next.entries[n:]
	next.entries = append(make([]Entry, 0, min(len(rest)+len(rest)/4+16, l.cfg.TrimAt+1)), rest...)
}

// olderThan counts the entries appended at t or before.
func (s *state) olderThan(t time.Time) int {
	return sort.Search(len(s.entries), func(i int) bool { return s.entries[i].At.After(t) })
}

// beyond counts the oldest entries that must go for the others, or the last
// one alone, to fit into limit bytes.
func (s *state) beyond(limit int64) int {
	n, left := 0, s.bytes
	for ; left > limit && n < len(s.entries)-1; n++ {
		left -= int64(len(s.entries[n].Data))
	}
	return n
}
