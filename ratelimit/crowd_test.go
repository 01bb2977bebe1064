package ratelimit_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// TestCrowdedPenalty fills the limiter, and then looks for a way out of a
// penalty or a block: as an unknown client, the penalized one would get the
// place of its network.
func TestCrowdedPenalty(t *testing.T) {
	for _, row := range []struct {
		why  string
		fill func(l *ratelimit.Limiter)
		want ratelimit.Reason
	}{
		{"penalized, then crowded out", func(l *ratelimit.Limiter) { l.FailAt(alice, start); admit(l, bob, start, 1) }, ratelimit.ReasonPenalty},
		{"crowded out, then penalized", func(l *ratelimit.Limiter) { admit(l, bob, start, 1); l.FailAt(alice, start) }, ratelimit.ReasonPenalty},
		{"while its network has a bucket", func(l *ratelimit.Limiter) {
			admit(l, bob, start, 1)
			admit(l, alice.Next(), start, 1)
			l.FailAt(alice, start)
		}, ratelimit.ReasonPenalty},
		{"blocked and crowded out", func(l *ratelimit.Limiter) {
			admit(l, bob, start, 1)
			l.BlockAt(netip.PrefixFrom(alice, 32), time.Time{}, start)
		}, ratelimit.ReasonBlocked},
	} {
		l := newLimiter(t, ratelimit.Config{MaxKeys: 1, Penalty: ratelimit.Penalty{Failures: 1}})
		row.fill(l)
		_, d := l.AdmitAt(alice, start)
		if d.Allowed || d.Reason != row.want || d.Coarse || d.Client != ratelimit.Fold(alice) || d.Remaining != 0 {
			t.Errorf("%s: %+v", row.why, d)
		}
		if _, d := l.AdmitAt(alice.Next().Next(), start); !d.Allowed || !d.Coarse {
			t.Errorf("%s: its neighbour: %+v", row.why, d)
		}
	}
}

// crowd models a limiter that knows few clients, with penalties, blocks and a
// bound for all connections: what happens if several of them apply to one
// client. Its clients have one network, and so share one bucket.
type crowd struct {
	model
	maxKeys, total  int
	began           time.Time
	failures        int
	within, penalty time.Duration
	longest         time.Duration
	renewed         map[netip.Prefix]int64 // period in which a client was stored
	strikes         map[netip.Prefix]*modelStrike
	blocked         map[netip.Prefix]time.Time
}

type modelStrike struct {
	renewed      int64
	since, until time.Time
	failures     int
	blocks       int
}

func period(d, length time.Duration) int64 {
	p := int64(d / length)
	if d%length < 0 {
		p--
	}
	return p
}

// turn forgets what was not stored in this period or the one before.
func (m *crowd) turn(now time.Time) {
	for key, p := range m.renewed {
		if p+1 < period(now.Sub(m.began), m.window) {
			delete(m.renewed, key)
		}
	}
	for key, s := range m.strikes {
		if s.renewed+1 < m.memory(now) {
			delete(m.strikes, key)
		}
	}
}

func (m *crowd) memory(now time.Time) int64 {
	return period(now.Sub(m.began), max(m.within, 2*m.longest))
}

func (m *crowd) fail(addr netip.Addr, now time.Time) (until time.Time, blocked bool) {
	key := ratelimit.Fold(addr)
	s := m.strikes[key]
	if s == nil {
		if len(m.strikes) >= (m.maxKeys+3)/4 {
			return time.Time{}, false
		}
		s = &modelStrike{}
		m.strikes[key] = s
	}
	if s.blocks > 0 && now.Before(s.until) {
		return s.until, true
	}
	if s.blocks > 0 && now.Sub(s.until) >= m.longest {
		*s = modelStrike{}
	}
	if s.failures == 0 || now.Sub(s.since) >= m.within {
		s.since, s.failures = now, 0
	}
	s.renewed = m.memory(now)
	if s.failures++; s.failures < m.failures {
		return time.Time{}, false
	}
	s.until = now.Add(min(m.penalty<<s.blocks, m.longest))
	s.failures = 0
	s.blocks++
	return s.until, true
}

// decide returns the decision, and the client that it counts for.
func (m *crowd) decide(addr netip.Addr, now time.Time, open int) (d ratelimit.Decision, c *modelClient) {
	d.Client, d.Limit = ratelimit.Fold(addr), m.limit
	if until, listed := m.blocked[d.Client]; listed && now.Before(until) {
		d.Reason, d.RetryAfter = ratelimit.ReasonBlocked, until.Sub(now)
		return d, nil
	}
	if s := m.strikes[d.Client]; s != nil && s.blocks > 0 && now.Before(s.until) {
		d.Reason, d.RetryAfter = ratelimit.ReasonPenalty, s.until.Sub(now)
		return d, nil
	}
	c = m.client(addr)
	_, c.known = m.renewed[d.Client]
	if !c.known && len(c.held) == 0 && len(m.renewed) >= m.maxKeys {
		d.Client, d.Coarse = netip.PrefixFrom(addr, 24).Masked(), true
		if m.clients[d.Client] == nil {
			m.clients[d.Client] = &modelClient{}
		}
		c = m.clients[d.Client]
		_, c.known = m.renewed[d.Client]
	}
	before := *c
	own := m.admit(c, now)
	own.Client, own.Coarse = d.Client, d.Coarse
	if own.Allowed && open >= m.total {
		*c = before
		own.Allowed, own.Reason, own.RetryAfter = false, ratelimit.ReasonTotal, m.window
		return own, c
	}
	return own, c
}

// TestModelCrowded compares the limiter with crowd in random steps, in the fake
// time of a bubble, since a generation begins where New was called.
func TestModelCrowded(t *testing.T) {
	steps := 150_000
	if testing.Short() {
		steps = 50_000
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 2))
	seen := make(map[string]int)
	synctest.Test(t, func(t *testing.T) {
		m := &crowd{
			model:   model{limit: 3, attempts: 6, open: 4, window: time.Minute, clients: make(map[netip.Prefix]*modelClient)},
			maxKeys: 10, total: 20, began: time.Now(), failures: 2, within: 2 * time.Minute, penalty: time.Minute, longest: 4 * time.Minute,
			renewed: make(map[netip.Prefix]int64), strikes: make(map[netip.Prefix]*modelStrike), blocked: make(map[netip.Prefix]time.Time),
		}
		l := newLimiter(t, ratelimit.Config{
			Limit: m.limit, MaxAttempts: m.attempts, MaxOpen: m.open, Window: m.window, MaxKeys: m.maxKeys, MaxTotal: m.total,
			Penalty: ratelimit.Penalty{Failures: m.failures, Within: m.within, Block: m.penalty, MaxBlock: m.longest},
		})
		var addrs []netip.Addr
		for i := range byte(24) {
			addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, i}))
		}
		now, open := time.Now(), 0
		for step := range steps {
			fail := func(format string, args ...any) {
				t.Helper()
				t.Fatalf("seed %d, step %d: %s", seed, step, fmt.Sprintf(format, args...))
			}
			m.turn(now)
			addr := addrs[rnd.IntN(len(addrs))]
			key := ratelimit.Fold(addr)
			switch p := rnd.IntN(100); {
			case p < 50:
				want, c := m.decide(addr, now, open)
				asked := l.CheckAt(addr, now)
				slot, got := l.AdmitAt(addr, now)
				if asked.Allowed && got.Allowed {
					asked.Remaining-- // this connection
				}
				if asked != got {
					fail("%v: asked %+v\nadmitted %+v", addr, asked, got)
				}
				if got.Allowed && c != nil {
					c.held = append(c.held, &modelSlot{real: &slot, start: c.start})
					if _, known := m.renewed[got.Client]; !known || c.tries == 1 {
						m.renewed[got.Client] = period(now.Sub(m.began), m.window)
					}
					open++
				}
				if want.Allowed {
					want.Remaining = min(m.limit-c.counted(), m.attempts-c.tries, m.open-len(c.held))
				}
				if got != want {
					fail("%v: %+v\nwant %+v", addr, got, want)
				}
				seen[fmt.Sprint(got.Reason, " ", got.Coarse)]++
				if len(m.renewed) >= m.maxKeys {
					seen["crowded: "+string(got.Reason)]++
				}
			case p < 76:
				c := m.client(addr)
				if coarse := m.clients[netip.MustParsePrefix("192.0.2.0/24")]; coarse != nil && rnd.IntN(6) == 0 {
					c = coarse
				}
				if len(c.held) > 0 {
					open--
					if !c.held[0].real.Release() {
						fail("a slot was not released")
					}
					c.held = c.held[1:]
				}
			case p < 86:
				until, blocked := m.fail(addr, now)
				if got, is := l.FailAt(addr, now); is != blocked || !got.Equal(until) {
					fail("%v fails: %v %v, want %v %v", addr, got, is, until, blocked)
				}
			case p < 87:
				m.blocked[key] = now.Add(time.Duration(rnd.Int64N(int64(time.Minute))) + 1)
				l.BlockAt(key, m.blocked[key], now)
			case p < 88:
				l.Forgive(ratelimit.Key{Addr: addr})
				delete(m.strikes, key)
			case p < 98:
				now = now.Add(time.Duration(rnd.Int64N(int64(4 * time.Second))))
			case rnd.IntN(20) == 0:
				now = now.Add(time.Duration(rnd.IntN(5)) * m.window)
			}
			m.turn(now)
			if st := l.StatsAt(now); st.Open != open || st.Clients != len(m.renewed) || st.Failing != len(m.strikes) {
				fail("%+v, want %d open, %d known, %d failing", st, open, len(m.renewed), len(m.strikes))
			}
		}
	})
	for _, want := range []string{
		" false", " true", "limit false", "limit true", "attempts false", "attempts true", "open false", "total false", "total true",
		"crowded: penalty", "crowded: blocked",
	} {
		if seen[want] == 0 {
			t.Errorf("seed %d: %q never happened: %v", seed, want, seen)
		}
	}
}
