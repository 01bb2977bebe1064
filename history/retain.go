package history

import (
	"math"
	"slices"
	"sort"
	"time"
)

// TrimReason is the limit that caused a clean-up. The set is closed.
type TrimReason string

// The reasons of a [Trim].
const (
	TrimByCount  TrimReason = "count"
	TrimByBytes  TrimReason = "bytes"
	TrimByAge    TrimReason = "age"
	TrimByWeight TrimReason = "weight"
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

	Appended        uint64 // successful calls of Append
	Replaced        uint64 // successful calls of Replace and Clear
	Deleted         uint64 // entries erased by Delete
	TrimmedByCount  uint64 // entries dropped by the limit of entries
	TrimmedByBytes  uint64 // entries dropped by the limit of bytes
	TrimmedByAge    uint64 // entries dropped by the limit of age
	TrimmedByWeight uint64 // entries dropped by the limit of weight
	Wakings         uint64 // how often the waiting readers were woken
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
// and returns how many it dropped. Entries with a time after now get the time
// now, within the limits that [Log.AppendAt] names. With an Origin, now is a
// time of its clock, and only the replica drops the entries at once. The log
// itself calls Expire by a timer.
func (l *Log) Expire(now time.Time) int {
	now = wall(now)
	l.mu.Lock()
	cur := l.state.Load()
	if cur.closed {
		l.mu.Unlock()
		return 0
	}
	next := *cur
	settled := l.replica == nil && next.settle(now, l.cfg.slack())
	trims := l.retain(&next, now)
	if settled || len(trims) > 0 {
		l.state.Store(&next) // waiting readers have read the dropped entries
		l.charge(&next)
	}
	l.mu.Unlock()
	l.report(trims)
	return len(cur.entries) - len(next.entries)
}

// onAge is the function of the age timer. The timer may run before an entry is
// old enough, and is then set again.
func (l *Log) onAge() {
	now := l.Now()
	l.mu.Lock()
	l.ageSet = false
	st := l.state.Load()
	due := st.due(now, l.cfg)
	if !due && !st.closed {
		l.setTimer(st, now)
	}
	l.mu.Unlock()
	if due {
		l.Expire(now)
	}
}

// due reports whether it is time for a clean-up by age, or whether the clock
// was set back.
func (s *state) due(now time.Time, cfg Config) bool {
	n := len(s.entries)
	if n == 0 {
		return false
	}
	age := now.Sub(s.entries[0].At)
	return age >= cfg.MaxAge && age-cfg.MaxAge >= cfg.lag() || s.entries[n-1].At.After(now.Add(cfg.slack()))
}

// lag is how long the timer waits for more entries to become old enough. A
// clean-up copies the entries that stay.
func (c Config) lag() time.Duration { return max(c.MaxAge/64, time.Millisecond) }

// step is the longest time between two looks at the clock. A timer stands still
// while the machine sleeps, and does not follow a clock that is set.
const step = time.Minute

// slack is how far after now the time of an entry may be. Clocks are set back a
// little all the time.
func (c Config) slack() time.Duration {
	if c.Origin != nil {
		return math.MaxInt64 // its clock decides, and this process knows it only roughly
	}
	if c.MaxAge == 0 {
		return step
	}
	return min(c.lag(), step)
}

// wall returns t without its reading of the monotonic clock. The order of
// entries must be that of the times that a Store saves.
func wall(t time.Time) time.Time { return t.Round(0) }

// settle gives the entries with a time after now the time now, if the last one
// is later than slack allows. Otherwise they would be kept until that time.
func (s *state) settle(now time.Time, slack time.Duration) bool {
	n := len(s.entries)
	if n == 0 || !s.entries[n-1].At.After(now.Add(slack)) {
		return false
	}
	s.entries = dated(s.entries, now)
	return true
}

// dated returns entries in the order of their times and with no time after now.
// It copies them if it must change one. A time that is after that of a later
// entry was taken from a clock that was ahead.
func dated(entries []Entry, now time.Time) []Entry {
	latest := wall(now)
	changed := false
	for i := len(entries) - 1; i >= 0; i-- {
		if at := wall(entries[i].At); !at.After(latest) {
			latest = at
		}
		if entries[i].At != latest {
			if !changed {
				entries, changed = slices.Clone(entries), true
			}
			entries[i].At = latest
		}
	}
	return entries
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
	if keep := l.cfg.KeepWeight; keep > 0 && next.weight > keep+keep/5 {
		trim(TrimByWeight, l.heavier(next, keep), &l.counts.TrimmedByWeight)
	}
	if n := len(next.entries); n > l.cfg.TrimAt {
		trim(TrimByCount, n-l.cfg.Keep, &l.counts.TrimmedByCount)
	}
	if l.cfg.MaxBytes > 0 && next.bytes > l.cfg.MaxBytes {
		trim(TrimByBytes, next.beyond(l.cfg.MaxBytes-l.cfg.MaxBytes/6), &l.counts.TrimmedByBytes)
	}
	if !l.ageSet {
		l.setTimer(next, now)
	}
	switch {
	case len(trims) == 0:
	case l.cfg.Store != nil:
		l.cfg.Store.Trim(next.floor, next.pins)
	case l.replica != nil && (trims[0].Reason == TrimByAge || trims[0].Reason == TrimByWeight): // the Origin applies the other limits itself
		l.cfg.Origin.Trim(next.floor)
	}
	return trims
}

// setTimer sets the age timer for st, if it needs one. The caller holds l.mu.
func (l *Log) setTimer(st *state, now time.Time) {
	if l.cfg.MaxAge == 0 || len(st.entries) == 0 {
		return
	}
	l.ageSet = true
	wait := st.entries[0].At.Add(l.cfg.MaxAge).Sub(now)
	if wait < step { // else the sum could be too large
		wait = max(wait+l.cfg.lag(), 0)
	}
	l.ageTimer.Reset(min(wait, step))
}

// publish shows next to readers. The caller holds l.mu.
func (l *Log) publish(next *state) {
	l.state.Store(next)
	l.charge(next)
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
	next.weight -= l.weigh(next.entries[:n]...)
	next.pins = l.cfg.pinAll(next.pins, next.entries[:n])
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

// weigh returns the weight of entries.
func (l *Log) weigh(entries ...Entry) (sum int64) {
	if l.cfg.KeepWeight == 0 {
		return 0
	}
	for _, e := range entries {
		if l.cfg.Weigh == nil {
			sum += int64(len(e.Data))
		} else {
			sum += max(l.cfg.Weigh(e.Data), 0)
		}
	}
	return sum
}

// heavier returns how many of the oldest entries can be dropped so that the
// others weigh at least keep.
func (l *Log) heavier(s *state, keep int64) int {
	for n, left := 0, s.weight; n < len(s.entries); n++ {
		if left -= l.weigh(s.entries[n]); left < keep {
			return n
		}
	}
	return len(s.entries)
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
