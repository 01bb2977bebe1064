package redislimit_test

import (
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
)

// Ten connections of a client are ten on all nodes together.
func TestLimitOfAllNodes(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		limits := ratelimit.Config{Limit: 10, Window: time.Hour}
		a, b := start(t, server.Addr, settings{limits: limits}), start(t, server.Addr, settings{limits: limits})
		before := engineTime(server)
		a.must(alice, 6)
		began := engineTime(server)
		b.must(alice, 3)
		last, d := b.admit(alice, 1)
		if want := (ratelimit.Decision{Allowed: true, Client: ratelimit.Fold(alice), Limit: 10, Reset: d.Reset}); d != want {
			t.Errorf("the tenth: %+v\nwant %+v", d, want)
		}
		for _, n := range []*node{a, b} {
			asked := engineTime(server)
			_, d := n.admit(alice, 1)
			done := engineTime(server)
			if d.Allowed || d.Local || d.Reason != ratelimit.ReasonLimit || d.Remaining != 0 || d.Reset != d.RetryAfter {
				t.Errorf("the eleventh: %+v", d)
			}
			if low, high := time.Hour-done.Sub(before), time.Hour-asked.Sub(began); d.RetryAfter < low || d.RetryAfter > high {
				t.Errorf("RetryAfter %v is not from %v to %v", d.RetryAfter, low, high)
			}
			if _, d := n.admit(bob, 1); !d.Allowed {
				t.Errorf("another client: %+v", d)
			}
		}
		last[0].Release()
		a.says(alice, ratelimit.ReasonNone)
		a.must(alice, 1)
		a.says(alice, ratelimit.ReasonLimit)
		if n := len(a.state()) + len(b.state()); n != 0 {
			t.Errorf("states %q, %q", a.state(), b.state())
		}
	})
}
