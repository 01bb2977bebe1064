package site

import (
	"context"
	"time"
)

// watchingEvery is how often a server tells the others how many viewers it has.
const watchingEvery = 5 * time.Second

// watching returns how many watch on all servers: here now, and elsewhere as of
// the last answer of the engine.
func (s *Site) watching() int { return s.Relay.Watching() + int(s.others.Load()) }

// countViewers tells the other servers how many watch here, and learns how many
// watch there, until ctx ends.
func (s *Site) countViewers(ctx context.Context) {
	if s.engine == nil {
		return
	}
	tick := time.NewTicker(watchingEvery)
	defer tick.Stop()
	for {
		here := s.Relay.Watching()
		some, cancel := context.WithTimeout(ctx, 2*time.Second)
		if all, err := s.engine.Watching(some, here); err == nil { // else the engine is away, which is logged
			s.others.Store(int64(max(all-here, 0)))
		}
		cancel()
		select {
		case <-tick.C:
		case <-ctx.Done():
			some, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, _ = s.engine.Watching(some, 0) // else the number counts for some seconds more
			return
		}
	}
}
