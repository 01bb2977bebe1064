package redislimit_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
)

var (
	office = netip.MustParsePrefix("198.51.100.0/24")
	clerk  = netip.MustParseAddr("198.51.100.7")
)

// A block on one node is in force on all, and OnShared tells the others of it,
// so that they can end open connections.
func TestBlocks(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		a, b := start(t, server.Addr, settings{}), start(t, server.Addr, settings{})
		until := time.Now().Add(time.Hour).Truncate(time.Second)
		if err := a.lim.Block(office, until); err != nil {
			t.Fatal(err)
		}
		b.hears("block 198.51.100.0/24")
		if _, d := b.admit(clerk, 1); d.Reason != ratelimit.ReasonBlocked {
			t.Errorf("%+v", d)
		}
		if got := b.lim.Blocks()[office]; !got.Equal(until) {
			t.Errorf("until %v, want %v", got, until)
		}
		if err := b.lim.Block(office, time.Time{}); err != nil {
			t.Fatal(err)
		}
		redistest.Wait(t, "a block forever", func() bool { return a.lim.Blocks()[office].IsZero() })
		if !b.lim.Unblock(office) {
			t.Error("there was no block to remove")
		}
		a.hears("unblock 198.51.100.0/24")
		a.must(clerk, 1)
		if got := b.heard(); !slices.Equal(got, []string{"block 198.51.100.0/24"}) {
			t.Errorf("a node was told of what it has done itself: %q", got)
		}
		if c := start(t, server.Addr, settings{}); len(c.heard()) != 0 || len(c.lim.Blocks()) != 0 {
			t.Errorf("a new node was told of %q", c.heard())
		}
	})
}

// Of two changes that were made apart, the newer one counts on all nodes.
func TestMergedBlocks(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	link := redistest.Forward(t, server.Addr)
	s := settings{Config: redislimit.Config{Timeout: 250 * time.Millisecond}}
	a, b := start(t, server.Addr, settings{}), start(t, link.Addr, s)
	first, second, third := netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("192.0.2.128/25"), netip.MustParsePrefix("203.0.113.0/24")
	for _, network := range []netip.Prefix{first, second} {
		if err := a.lim.Block(network, time.Time{}); err != nil {
			t.Fatal(err)
		}
		b.hears("block " + network.String())
	}
	link.Refuse()
	link.Cut()
	redistest.Wait(t, "a node that is cut off", func() bool { return b.shared.Stats().Down })
	b.lim.Unblock(first)
	b.lim.Unblock(second)
	if err := b.lim.Block(third, time.Time{}); err == nil {
		t.Error("the block is said to be in force everywhere")
	}
	// A node that is cut off knows the engine's clock as well as the way there
	// was short.
	later := engineTime(server).Add(200 * time.Millisecond)
	redistest.Wait(t, "a later time", func() bool { return engineTime(server).After(later) })
	if err := a.lim.Block(second, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	link.Accept()
	a.hears("unblock " + first.String())
	a.hears("block " + third.String())
	want := []netip.Prefix{second, third}
	for _, n := range []*node{a, b} {
		redistest.Wait(t, "the merged blocks", func() bool {
			blocks := n.lim.Blocks()
			return len(blocks) == len(want) && !blocks[second].IsZero() && blocks[third].IsZero()
		})
	}
}

// Failures on several nodes are one penalty, on all of them.
func TestPenalty(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		s := settings{limits: ratelimit.Config{Limit: 100, Penalty: ratelimit.Penalty{Failures: 5, Block: time.Hour, MaxBlock: 3 * time.Hour}}}
		a, b := start(t, server.Addr, s), start(t, server.Addr, s)
		fails := func(n *node, key ratelimit.Key, times int) (until time.Time, blocked bool) {
			for range times {
				until, blocked = n.lim.Fail(key)
			}
			return until, blocked
		}
		guest := ratelimit.Key{Addr: clerk}
		if _, blocked := fails(a, guest, 3); blocked {
			t.Error("blocked too early")
		}
		before := time.Now()
		until, blocked := fails(b, guest, 2)
		if !blocked || until.Before(before.Add(time.Hour)) || until.After(time.Now().Add(time.Hour)) {
			t.Errorf("%v until %v", blocked, until)
		}
		for _, n := range []*node{a, b} {
			if _, d := n.admit(clerk, 1); d.Reason != ratelimit.ReasonPenalty || d.RetryAfter > time.Hour || d.Reset != 0 {
				t.Errorf("%+v", d)
			}
		}
		a.hears("penalty 198.51.100.7/32")
		if _, blocked := a.lim.BlockedUntil(guest); !blocked {
			t.Error("the node does not know the penalty")
		}
		if again, blocked := a.lim.Fail(guest); !blocked || again.Sub(until).Abs() > time.Minute {
			t.Errorf("a failure of a blocked client: %v until %v", blocked, again)
		}

		// An accepted token ends it everywhere.
		a.lim.Forgive(guest)
		b.hears("forgiven 198.51.100.7/32")
		a.settle()
		b.must(clerk, 1)
		if _, blocked := fails(b, guest, 4); blocked {
			t.Error("failures from before were not forgiven")
		}

		// So does the end of a block of its network, also of failures that are
		// no penalty yet.
		a.lim.Unblock(office)
		b.hears("unblock 198.51.100.0/24")
		if _, blocked := fails(b, guest, 4); blocked {
			t.Error("failures from before were not forgiven with the network")
		}
		if _, blocked := fails(a, guest, 1); !blocked {
			t.Error("failures after that do not count")
		}

		// An ID has a penalty on all nodes as soon as it connects.
		account := ratelimit.Key{ID: "account-of-carol"}
		fails(a, account, 2)
		fails(b, account, 3)
		if _, d := a.lim.Admit(account); d.Reason != ratelimit.ReasonPenalty {
			t.Errorf("%+v", d)
		}
		if _, d := a.lim.Admit(ratelimit.Key{ID: "another"}); !d.Allowed {
			t.Errorf("%+v", d)
		}
	})
}

// Each further penalty lasts twice as long, as in a process alone.
func TestPenaltiesInARow(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := ratelimit.Penalty{Failures: 2, Within: time.Hour, Block: 100 * time.Millisecond, MaxBlock: time.Hour}
	n := start(t, server.Addr, settings{})
	c := ratelimit.Client{Network: ratelimit.Fold(alice)}
	for _, want := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
		if _, blocked, err := n.shared.Fail(ctx0, c, p); blocked || err != nil {
			t.Fatalf("before %v: blocked %v, %v", want, blocked, err)
		}
		before := time.Now()
		until, blocked, err := n.shared.Fail(ctx0, c, p)
		if !blocked || err != nil || until.Before(before.Add(want)) || until.After(time.Now().Add(want)) {
			t.Fatalf("blocked %v for %v, want %v, %v", blocked, until.Sub(before), want, err)
		}
		redistest.Wait(t, "the end of the penalty", func() bool {
			got, _, err := n.shared.Take(ctx0, c, ratelimit.Rules{Limit: 1, MaxAttempts: 1, MaxOpen: 1, Window: time.Hour, Penalty: true, Ask: true})
			return err == nil && got.Reason == ratelimit.ReasonNone
		})
	}
}

// A node whose clock is wrong by an hour counts and blocks as the others do.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	limits := ratelimit.Config{Limit: 3, Window: time.Hour}
	for _, wrong := range []time.Duration{-time.Hour, time.Hour} {
		s := settings{limits: limits, Config: redislimit.Config{Prefix: "limit" + strings.Trim(wrong.String(), "-")[:1] + map[bool]string{true: "early", false: "late"}[wrong < 0]}}
		a := start(t, server.Addr, s)
		s.wrong = wrong
		b := start(t, server.Addr, s)
		a.must(alice, 2)
		b.must(alice, 1)
		_, d := b.admit(alice, 1)
		if d.Reason != ratelimit.ReasonLimit || d.RetryAfter > time.Hour || d.RetryAfter < time.Hour-patient {
			t.Errorf("%+v", d)
		}
		// The operator of b means two hours from now.
		if err := b.lim.Block(office, time.Now().Add(wrong).Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		a.hears("block 198.51.100.0/24")
		if left := time.Until(a.lim.Blocks()[office]); left > 2*time.Hour+time.Second || left < 2*time.Hour-patient {
			t.Errorf("the block ends in %v on the other node", left)
		}
		if err := a.lim.Block(ratelimit.Fold(bob), time.Now().Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		b.hears("block " + ratelimit.Fold(bob).String())
		b.mu.Lock()
		for _, c := range b.changes {
			if left := time.Until(c.Until) - wrong; left > 2*time.Hour+time.Second || left < 2*time.Hour-patient {
				t.Errorf("the block ends in %v on the wrong node", left)
			}
		}
		b.mu.Unlock()
	}
}
