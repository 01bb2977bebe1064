package ratelimit_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// model does what the package's documentation says, in the simplest way: it
// keeps one record per client forever, with every connection that the client
// holds.
type model struct {
	limit, attempts, open int
	window                time.Duration
	clients               map[netip.Prefix]*modelClient
}

type modelClient struct {
	start time.Time // of the latest window
	known bool
	tries int
	held  []*modelSlot
}

type modelSlot struct {
	real  *ratelimit.Slot
	start time.Time // of the window that counted it
}

func (c *modelClient) counted() (n int) {
	for _, s := range c.held {
		if s.start.Equal(c.start) {
			n++
		}
	}
	return n
}

func (m *model) client(addr netip.Addr) *modelClient {
	key := ratelimit.Fold(addr)
	if m.clients[key] == nil {
		m.clients[key] = &modelClient{}
	}
	return m.clients[key]
}

// admit returns the decision that the limiter must make. The caller adds the
// slot.
func (m *model) admit(c *modelClient, now time.Time) (d ratelimit.Decision) {
	start, tries, counted := c.start, c.tries, c.counted()
	if !c.known || now.Sub(c.start) >= m.window {
		start, tries, counted = now, 0, 0
	}
	reset := start.Add(m.window).Sub(now)
	switch {
	case len(c.held) >= m.open:
		d.Reason, d.RetryAfter = ratelimit.ReasonOpen, min(m.window, time.Minute)
	case tries >= m.attempts:
		d.Reason, d.RetryAfter = ratelimit.ReasonAttempts, reset
	case counted >= m.limit:
		d.Reason, d.RetryAfter = ratelimit.ReasonLimit, reset
	default:
		d.Allowed = true
		c.known, c.start, c.tries = true, start, tries+1
	}
	d.Limit, d.Reset = m.limit, reset
	return d
}

// TestModel drives the limiter and the model with the same random
// steps: admissions, first and second releases, small steps of the clock, steps
// to within a nanosecond of a window's end, and long pauses. Few clients come
// often, and many let the tables grow, forget and shrink.
func TestModel(t *testing.T) {
	few := make([]netip.Addr, 0, 40)
	for i := range byte(10) {
		few = append(few,
			netip.AddrFrom4([4]byte{192, 0, 2, i}),
			netip.MustParseAddr(fmt.Sprintf("::ffff:192.0.2.%d", i)),
			netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%d::1", i)),
			netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%d::%d%%eth0", i, i+2)))
	}
	many := make([]netip.Addr, 20_000)
	for i := range many {
		many[i] = address(uint64(i))
	}
	t.Run("few", func(t *testing.T) {
		testModel(t, few, 1_000_000, ratelimit.ReasonLimit, ratelimit.ReasonAttempts, ratelimit.ReasonOpen)
	})
	t.Run("many", func(t *testing.T) { testModel(t, many, 300_000) })
}

func testModel(t *testing.T, addrs []netip.Addr, steps int, wanted ...ratelimit.Reason) {
	if testing.Short() {
		steps = 100_000
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	m := &model{limit: 4, attempts: 12, open: 9, window: time.Minute, clients: make(map[netip.Prefix]*modelClient)}
	l := newLimiter(t, ratelimit.Config{Limit: m.limit, MaxAttempts: m.attempts, MaxOpen: m.open, Window: m.window, MaxKeys: 100_000})

	now, open := start, 0
	seen := make(map[ratelimit.Reason]int)
	for step := range steps {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d, step %d: %s", seed, step, fmt.Sprintf(format, args...))
		}
		addr := addrs[rnd.IntN(len(addrs))]
		c := m.client(addr)
		switch p := rnd.IntN(100); {
		case p < 60:
			want := m.admit(c, now)
			asked := l.CheckAt(addr, now)
			slot, got := l.AdmitAt(addr, now)
			if asked.Allowed && got.Allowed {
				asked.Remaining-- // this connection
			}
			if asked != got {
				fail("%v: asked %+v\nadmitted %+v", addr, asked, got)
			}
			seen[got.Reason]++
			if got.Allowed {
				c.held = append(c.held, &modelSlot{real: &slot, start: c.start})
				open++
			}
			want.Client = ratelimit.Fold(addr)
			if want.Allowed {
				want.Remaining = min(m.limit-c.counted(), m.attempts-c.tries, m.open-len(c.held))
			} else {
				want.Remaining = got.Remaining // checked below
			}
			if got != want {
				fail("%v: %+v\nwant %+v", addr, got, want)
			}
			if !got.Allowed && got.Reason != ratelimit.ReasonOpen && got.Remaining != 0 {
				fail("%v: refused with %d remaining", addr, got.Remaining)
			}
		case p < 90 && len(c.held) > 0:
			i := rnd.IntN(len(c.held))
			s := c.held[i]
			c.held = append(c.held[:i], c.held[i+1:]...)
			open--
			if !s.real.Release() || s.real.Release() {
				fail("a slot was not released exactly once")
			}
		case p < 98:
			now = now.Add(time.Duration(rnd.Int64N(int64(2 * time.Second))))
		case p == 98 && c.known && c.start.Add(m.window).After(now):
			now = c.start.Add(m.window).Add(time.Duration(rnd.IntN(3) - 1))
		case rnd.IntN(50) == 0:
			now = now.Add(time.Duration(rnd.IntN(5)) * m.window)
		}

		if n := c.counted(); n > m.limit {
			fail("%d counted in one window", n)
		}
		if c.tries > m.attempts {
			fail("%d admitted in one window", c.tries)
		}
		if len(c.held) > m.open {
			fail("%d open", len(c.held))
		}
		if step%64 != 0 {
			continue
		}
		if got := l.StatsAt(now).Open; got != open {
			fail("%d open in all, want %d", got, open)
		}
	}
	for _, reason := range append(wanted, ratelimit.ReasonNone) {
		if seen[reason] == 0 {
			t.Errorf("seed %d: %q never happened: %v", seed, reason, seen)
		}
	}
}
