package history

import (
	"context"
	"errors"
	"slices"
	"time"
)

// free is freeOne for the budget.
func (s *Set) free(ctx context.Context) bool {
	s.mu.Lock()
	return s.freeOne(ctx)
}

// freeOne closes the log that has not been used for the longest time, or waits
// for one that is being closed. It returns false if there is none. The caller
// holds s.mu, and freeOne unlocks it.
func (s *Set) freeOne(ctx context.Context) bool {
	if m := s.unused(time.Now(), s.cfg.Store != nil); m != nil {
		s.evict(m)
		return true
	}
	var closing chan struct{}
	if len(s.closing) > 0 {
		closing = s.closing[0]
	}
	s.mu.Unlock()
	if closing == nil {
		return false
	}
	select {
	case <-closing:
		return true
	case <-ctx.Done():
		return false
	}
}

// unused returns the log to evict next, or nil. Unless early is set, that is
// one that no one has used since Idle before now. The caller holds s.mu.
func (s *Set) unused(now time.Time, early bool) *member {
	first := s.idle.Front()
	if first == nil {
		return nil
	}
	if m := first.Value.(*member); early || now.Sub(m.since) >= s.cfg.Idle {
		return m
	}
	return nil
}

// evict closes a log that no one uses. The caller holds s.mu, and evict unlocks
// it.
func (s *Set) evict(m *member) {
	s.begin(m)
	s.stats.Evicted++
	s.mu.Unlock()
	err := s.shut(context.Background(), m, nil)
	if s.cfg.OnEvict != nil {
		s.cfg.OnEvict(m.name, err)
	}
}

// begin makes m busy until end, which removes it. The caller holds s.mu.
func (s *Set) begin(m *member) {
	s.leave(m)
	m.busy = make(chan struct{})
	s.closing = append(s.closing, m.busy)
}

// shut closes the log of m, if it is open, and calls erase if it is not nil.
// Then, also if one of them panics, it ends m.
func (s *Set) shut(ctx context.Context, m *member, erase func(context.Context) error) (err error) {
	defer s.end(m)
	if m.log != nil {
		err = m.log.Close()
	}
	if erase != nil {
		s.beginErasing(m)
		err = errors.Join(err, erase(ctx))
	}
	return err
}

// beginErasing says that the log of m is closed. It takes no space any more, so
// no one waits for m to get space: erase itself may need some in the Set.
func (s *Set) beginErasing(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = slices.DeleteFunc(s.closing, func(c chan struct{}) bool { return c == m.busy })
	s.erasing++
	m.erasing = true
}

func (s *Set) end(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.logs, m.name)
	s.closing = slices.DeleteFunc(s.closing, func(c chan struct{}) bool { return c == m.busy })
	if m.erasing {
		s.erasing--
	}
	close(m.busy)
}

// Evict closes the logs that no one has used since SetConfig.Idle before now,
// and returns how many it closed. The Set itself calls Evict by a timer.
func (s *Set) Evict(now time.Time) int {
	for n := 0; ; n++ {
		s.mu.Lock()
		m := s.unused(now, false)
		if m == nil {
			s.mu.Unlock()
			return n
		}
		s.evict(m)
	}
}

// onIdle is the function of the timer.
func (s *Set) onIdle() {
	s.Evict(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timerSet = false
	if first := s.idle.Front(); first != nil && !s.closed {
		s.setTimer(first.Value.(*member).since)
	}
}

// setTimer sets the timer for a log that was last used at since. The caller
// holds s.mu.
func (s *Set) setTimer(since time.Time) {
	s.timerSet = true
	s.timer.Reset(max(time.Until(since)+s.cfg.Idle, 0))
}
