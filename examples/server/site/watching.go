package site

import (
	"context"
	"time"
)

// watchingEvery is how often a server tells the others how many viewers it has.
const watchingEvery = 5 * time.Second

// countViewers tells the other servers how many watch here in each room, and
// learns how many watch there, until ctx ends.
func (s *Site) countViewers(ctx context.Context) {
	if s.engine == nil {
		return
	}
	all := s.Rooms.All()
	names := make([]string, len(all))
	for i, r := range all {
		names[i] = r.Name
	}
	here := make([]int, len(all))
	tick := time.NewTicker(watchingEvery)
	defer tick.Stop()
	for {
		for i, r := range all {
			here[i] = r.Relay().Watching()
		}
		some, cancel := context.WithTimeout(ctx, 2*time.Second)
		sums, err := s.engine.Watching(some, names, here)
		cancel()
		if err == nil { // else the engine is away, which is logged
			for i, r := range all {
				r.Elsewhere(max(int(sums[i])-here[i], 0))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			some, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, _ = s.engine.Watching(some, names, make([]int, len(all))) // else the numbers count for some seconds more
			return
		}
	}
}
