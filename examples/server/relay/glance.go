package relay

import (
	"time"

	"github.com/relayguard/relayguard/history"
)

// Glance is what a conversation shows at a glance.
type Glance struct {
	Memory float64   // per cent that is used; below 0 if it is not known
	Life   int       // the number of the life, from 1; 0 if it is not known
	Latest time.Time // when viewers got the newest message that is kept; zero if there is none
}

// Glance returns what a viewer who comes now would see.
func (r *Relay) Glance() Glance {
	bound, _ := r.fanout.bound()
	b := r.cfg.Log.Since(r.cfg.Log.Position())
	if bound.seq != everything {
		b = bound.of(r.cfg.Log.Since(history.Oldest()), true)
	}
	g := Glance{Memory: -1}
	s := after(before(b), b.Entries)
	if s.Memory != nil {
		g.Memory = s.Memory.PercentUsed
	}
	if s.Status != nil && s.Status.NumRestarts != nil {
		g.Life = int(min(*s.Status.NumRestarts, 1<<53)) + 1
	}
	switch n := len(b.Entries); {
	case n > 0:
		g.Latest = b.Entries[n-1].At.Add(r.cfg.Delay)
	case bound.seq == everything:
		g.Latest = r.cfg.Log.Stats().Latest
	}
	return g
}
