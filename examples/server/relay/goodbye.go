package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// longestAway is the longest time that a client is asked to stay away. Its
	// owner looks at an empty page meanwhile.
	longestAway = 5 * time.Minute

	// A server that was told to end takes a moment to end and to begin again.
	// Publishers come first: without them, viewers have nothing to see.
	publisherAway = time.Second
	viewersAway   = 2 * time.Second
)

// goodbyes makes the reasons of the close frames for viewers that leave
// together, some of a number of all. Each names the seconds after which its
// client may come back. They are spread over the time that all need, so that
// perSecond of all come back in each second, and evenly over longestAway if
// there are too many. Clients add up to a second by chance, so that those with
// the same number do not come at once.
type goodbyes struct {
	step float64 // seconds between two viewers
	said int
}

func newGoodbyes(viewers, all int, perSecond float64) *goodbyes {
	most := (longestAway - viewersAway).Seconds()
	return &goodbyes{step: min(float64(max(1, all))/perSecond, most) / float64(max(1, viewers))}
}

// publisher returns the reason for a client that only publishes.
func (g *goodbyes) publisher() string { return reason(publisherAway.Seconds()) }

// viewer returns the reason for the next viewer.
func (g *goodbyes) viewer() string {
	at := viewersAway.Seconds() + g.step*(float64(g.said)+rand.Float64())
	g.said++
	return reason(min(at, longestAway.Seconds()))
}

func reason(seconds float64) string { return fmt.Sprintf("retry=%d", int(seconds)) }

// Shutdown refuses new connections, sends 1001 to the open ones and waits until
// all have ended. Each close frame says when its client may come back, see
// [Config].ReturnRate. If ctx ends first, Shutdown cuts the remaining
// connections and returns the error of ctx. http.Server.Shutdown does not close
// these connections, because it does not track hijacked ones.
func (r *Relay) Shutdown(ctx context.Context) error {
	defer r.fanout.close()
	r.stop()
	r.posters.close()
	r.mu.Lock()
	r.stopping = true
	viewers := 0
	for v := range r.viewers {
		if !v.blind {
			viewers++
		}
	}
	all := viewers
	if r.cfg.Leaving != nil {
		all = max(all, r.cfg.Leaving())
	}
	bye := newGoodbyes(viewers, all, float64(r.cfg.ReturnRate))
	for v := range r.viewers {
		why := bye.publisher
		if !v.blind {
			why = bye.viewer
		}
		// The connection's own grace period bounds each Close, and all of them
		// together take no longer than one, because they run concurrently.
		go v.close(codeGoingAway, why())
	}
	r.mu.Unlock()

	gone := make(chan struct{})
	go func() {
		r.done.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	for v := range r.viewers {
		v.abort()
	}
	r.mu.Unlock()
	<-gone
	return ctx.Err()
}
