package history

import (
	"context"
	"sync/atomic"
)

// entryCost is what an entry takes of a budget besides the length of its data:
// the Entry itself, and what the memory allocator rounds up.
const entryCost = 64

// budget bounds the memory of the logs of a Set.
type budget struct {
	max  int64
	used atomic.Int64
	free func(context.Context) bool // closes a log that no one uses; false if there is none
}

// take takes n bytes for new entries. If they are not there, it closes logs
// that no one uses, and returns ErrFull if that is not enough.
func (b *budget) take(ctx context.Context, n int64) error {
	for !b.try(n) {
		if b.free(ctx) {
			continue
		}
		if b.try(n) { // others gave bytes back before free looked for a log
			return nil
		}
		return ErrFull
	}
	return nil
}

func (b *budget) try(n int64) bool {
	for {
		used := b.used.Load()
		if used+n > b.max {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// charge makes the cost of s what the log takes of its budget. The caller holds
// l.mu.
func (l *Log) charge(s *state) {
	if l.budget != nil {
		cost := s.bytes + int64(len(s.entries))*entryCost
		for _, p := range s.pins {
			cost += entryCost + int64(len(p.Data))
		}
		l.budget.used.Add(cost - l.charged)
		l.charged = cost
	}
}
