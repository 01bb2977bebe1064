package history

import (
	"slices"
	"sort"
	"time"
)

// state is a log at one moment, as readers see it. It never changes: an append
// writes behind the end of entries, which readers of this state do not read.
type state struct {
	id, epoch   uint64
	floor, last uint64 // for all entries, floor < Seq <= last
	note        []byte
	noteEpoch   uint64
	entries     []Entry
	bytes       int64
	weight      int64 // by Config.Weigh; 0 without KeepWeight
	pins        []Pin // as of floor
	finished    bool
	closed      bool
	lines       *lines
}

// ended returns why nothing will be appended, or nil.
func (s *state) ended() error {
	switch {
	case s.finished:
		return ErrFinished
	case s.closed:
		return ErrClosed
	}
	return nil
}

// lines are the names in the positions of a state, and do not change.
type lines struct {
	current uint64
	earlier []Head // by Last
	skips   []Skip
}

// skipped returns how many of the numbers after from, up to and including to,
// were given to no entry.
func (l *lines) skipped(from, to uint64) (n uint64) {
	for _, k := range l.skips {
		if first, last := max(from, k.After), min(to, k.After+k.Count); first < last {
			n += last - first
		}
	}
	return n
}

func (s *state) position() Position { return s.at(s.last) }

// at returns the position after entry seq. It names the line that gave the
// number, so it is the same after a restart. A position that names a later line
// means the same.
func (s *state) at(seq uint64) Position {
	for _, h := range s.lines.earlier {
		if h.Last >= seq && h.Epoch == s.epoch {
			return Position{h.Line, s.epoch, seq}
		}
	}
	return Position{s.lines.current, s.epoch, seq}
}

// knows reports whether this log gave the position p, as far as it can have
// given one in the line that p names.
func (s *state) knows(p Position) bool {
	end := Head{s.lines.current, s.epoch, s.last}
	if p.log != s.lines.current {
		i := slices.IndexFunc(s.lines.earlier, func(h Head) bool { return h.Line == p.log })
		if i < 0 {
			return false
		}
		end = s.lines.earlier[i]
	}
	return p.epoch < end.Epoch || p.epoch == end.Epoch && p.seq <= end.Last
}

// isAt reports whether p is zero, or the place of this state.
func (s *state) isAt(p Position) bool {
	if p == (Position{}) {
		return true
	}
	p, known := s.resolve(p)
	return known && p == s.position()
}

// kept returns the entries with no capacity left, because a caller's append to
// the result must not write into the log's array.
func (s *state) kept() []Entry { return slices.Clip(s.entries) }

// since returns the batch for a reader at from.
func (s *state) since(from Position) Batch {
	known := true
	if from == (Position{}) { // the most common one: see BenchmarkSnapshot
		from = s.at(s.floor)
	} else {
		from, known = s.resolve(from)
	}
	b := Batch{From: from, To: s.position(), pins: s.pins}
	if !known || from.epoch != s.epoch {
		b.Reset = true
		b.Entries = s.kept()
		if !known || from.epoch < s.noteEpoch {
			b.Note = s.note
		}
		return b
	}
	if from.seq < s.floor {
		b.Missed = s.floor - from.seq - s.lines.skipped(from.seq, s.floor)
	}
	if from.seq < s.last {
		all := s.kept()
		i := sort.Search(len(all), func(i int) bool { return all[i].Seq > from.seq })
		b.before, b.Entries = all[:i], all[i:]
	} else {
		b.before = s.kept()
	}
	return b
}

// resolve returns p, or for a position without a log the one that it means now,
// and whether this log gave it. Positions with the same meaning become equal.
func (s *state) resolve(p Position) (_ Position, known bool) {
	if p == Latest() {
		return s.position(), true
	}
	if p.log == 0 {
		before := 0 // the number of entries before it
		switch n := len(s.entries); p.epoch {
		case byCount:
			before = n - int(min(p.seq, uint64(n)))
		case byTime:
			t := time.Unix(0, int64(p.seq))
			before = sort.Search(n, func(i int) bool { return !s.entries[i].At.Before(t) })
		}
		if before == 0 {
			return s.at(s.floor), true
		}
		return s.at(s.entries[before-1].Seq), true
	}
	if known = s.knows(p); known && p.epoch == s.epoch {
		p = s.at(p.seq)
	}
	return p, known
}
