package site

import (
	"context"
	"time"

	"github.com/relayguard/relayguard/examples/server/rooms"
)

// watchingEvery is how often a server tells the others how many viewers it has.
const watchingEvery = 5 * time.Second

// countViewers tells the other servers how many watch here in each room, and
// learns how many watch there, until ctx ends.
func (s *Site) countViewers(ctx context.Context) {
	if s.engine == nil {
		return
	}
	tick := time.NewTicker(watchingEvery)
	defer tick.Stop()
	told := make(map[*rooms.Room]bool) // that have viewers here
	for {
		for _, r := range s.Rooms.All() {
			here := r.Relay.Watching()
			if here == 0 && !told[r] && s.Rooms.Named() {
				continue // only viewers see the number
			}
			told[r] = here > 0
			some, cancel := context.WithTimeout(ctx, 2*time.Second)
			if all, err := s.engine.Watching(some, r.Name, here); err == nil { // else the engine is away, which is logged
				r.Elsewhere(max(all-here, 0))
			}
			cancel()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			some, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			for r, any := range told {
				if any {
					_, _ = s.engine.Watching(some, r.Name, 0) // else the number counts for some seconds more
				}
			}
			return
		}
	}
}
