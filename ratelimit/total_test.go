package ratelimit_test

import (
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/ratelimit"
)

// TestTotal checks the bound for all clients together, however they come and
// go, and that a refusal by it costs nothing.
func TestTotal(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 2, MaxTotal: 3, Process: rate.NewLimiter(rate.Every(time.Hour), 4)})
	held, _ := admit(l, alice, start, 2)
	admit(l, bob, start, 1)
	for range 50 {
		if slot, d := l.AdmitAt(bob, start); d.Reason != ratelimit.ReasonTotal || d.Reason.Status() != 503 || d.RetryAfter != time.Minute || slot.Release() {
			t.Fatalf("fourth of three: %+v", d)
		}
	}
	if _, d := l.AdmitAt(alice, start); d.Reason != ratelimit.ReasonLimit {
		t.Errorf("its own limit goes first: %+v", d)
	}
	held[0].Release()
	if _, d := l.AdmitAt(bob, start); !d.Allowed {
		t.Errorf("after one has ended: %+v", d)
	}
	held[1].Release()
	// Process has no token left. What it refuses is not open.
	for range 50 {
		if _, d := l.AdmitAt(alice, start); d.Reason != ratelimit.ReasonProcess {
			t.Fatalf("%+v", d)
		}
	}
	if got := l.StatsAt(start).Open; got != 2 {
		t.Errorf("%d open, want 2", got)
	}
}

// TestTotalConcurrent has many goroutines ask for the last places.
func TestTotalConcurrent(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{MaxTotal: 5})
	var open, most atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				slot, d := l.AdmitAt(netip.AddrFrom4([4]byte{10, byte(g), byte(i >> 8), byte(i)}), start)
				if !d.Allowed {
					continue
				}
				if n := open.Add(1); n > most.Load() {
					most.Store(n)
				}
				open.Add(-1)
				slot.Release()
			}
		})
	}
	wg.Wait()
	if most.Load() > 5 || most.Load() == 0 || l.StatsAt(start).Open != 0 {
		t.Errorf("at most %d open, and %d in the end", most.Load(), l.StatsAt(start).Open)
	}
}

// TestCopiedSlot releases a slot and its copy, which go vet would find in this
// form if it were not for the type parameter. The client must neither get a
// number of connections below zero, which would refuse it forever, nor must the
// second release panic if the client is forgotten.
func TestCopiedSlot(t *testing.T) {
	for _, wait := range []time.Duration{0, 3 * time.Minute} {
		l := newLimiter(t, ratelimit.Config{})
		slot, _ := l.AdmitAt(alice, start)
		again := copyOf(&slot)
		slot.Release()
		later := start.Add(wait)
		if l.StatsAt(later); again.Release() {
			t.Error("a copy was released")
		}
		if _, d := l.AdmitAt(alice, later); !d.Allowed || l.StatsAt(later).Open != 1 {
			t.Errorf("after %v: %+v, %+v", wait, d, l.StatsAt(later))
		}
	}
}

func copyOf[T any](v *T) T { return *v }

// TestUnlimitedNetwork lets a network without a limit send as many requests in
// one window as a counter of 31 bits can hold: 828 a second for a month.
func TestUnlimitedNetwork(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{
		Count: ratelimit.CountRequests, Window: 30 * 24 * time.Hour, Networks: map[netip.Prefix]int{netip.PrefixFrom(alice, 32): -1},
	})
	admit(l, alice, start, 1)
	l.Spend(math.MaxInt32 - 2)
	for n := range 5 {
		if _, d := l.AdmitAt(alice, start); !d.Allowed || d.Remaining < 0 {
			t.Fatalf("request %d: %+v", n, d)
		}
	}
}
