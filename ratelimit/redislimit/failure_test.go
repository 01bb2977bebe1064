package redislimit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
)

// counting counts the commands of decisions, which are about a client.
type counting struct {
	rueidis.Client
	asked atomic.Int64
}

func (c *counting) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	if parts := cmd.Commands(); len(parts) >= 4 && strings.HasPrefix(parts[3], "limit:{") && !strings.HasPrefix(parts[3], "limit:{limit}") {
		c.asked.Add(1)
	}
	return c.Client.Do(ctx, cmd)
}

// open are limits by which only open connections count.
var open = ratelimit.Config{Limit: 2, MaxOpen: 2, MaxAttempts: 1000, Window: time.Millisecond}

// A node that dies frees its connections within the lease.
func TestDeadNode(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		link := redistest.Forward(t, server.Addr)
		s := settings{limits: open, Config: redislimit.Config{Lease: 2 * time.Second}}
		a, b := start(t, link.Addr, s), start(t, server.Addr, s)
		a.must(alice, 2)
		a.settle()
		b.says(alice, ratelimit.ReasonOpen)
		link.Refuse()
		link.Cut()
		end := leaseEnd(server, a.shared.Number())
		b.says(alice, ratelimit.ReasonNone)
		if now := engineTime(server); now.Before(end) {
			t.Errorf("free %v before the end of the lease", end.Sub(now))
		}
		b.must(alice, 2)
	})
}

func leaseEnd(s *redistest.Server, number string) time.Time {
	var micro int64
	for _, digit := range strings.TrimSpace(s.Do("ZSCORE", "limit:{limit}:nodes", number)) {
		micro = 10*micro + int64(digit-'0')
	}
	return time.UnixMicro(micro)
}

// A node that was out of touch for longer than its lease adds its connections
// again, under another number.
func TestLostLease(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		link := redistest.Forward(t, server.Addr)
		s := settings{limits: open, Config: redislimit.Config{Lease: 2 * time.Second, Timeout: 250 * time.Millisecond}}
		a := start(t, link.Addr, s)
		s.Timeout = patient
		b := start(t, server.Addr, s)
		slots, _ := a.admit(alice, 2)
		if len(slots) != 2 {
			t.Fatal("not admitted")
		}
		b.says(alice, ratelimit.ReasonOpen)
		before := a.shared.Number()
		link.Hold()
		b.says(alice, ratelimit.ReasonNone)
		b.must(alice, 1)
		link.Release()
		b.says(alice, ratelimit.ReasonOpen)
		a.settle()
		if a.shared.Number() == before {
			t.Error("the number is the old one")
		}
		slots[0].Release()
		slots[1].Release()
		b.says(alice, ratelimit.ReasonNone)
		a.settle()
		if n := a.shared.Known(); n != 0 {
			t.Errorf("%d clients known after the end", n)
		}
	})
}

// A node that closes gives up everything at once.
func TestClose(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := settings{limits: ratelimit.Config{Limit: 2, MaxOpen: 2, Window: time.Hour}}
	a, b := start(t, server.Addr, s), start(t, server.Addr, s)
	slots := a.must(alice, 2)
	b.says(alice, ratelimit.ReasonOpen)
	slots[0].Release()
	if err := a.shared.Close(); err != nil {
		t.Fatal(err)
	}
	if got := server.Do("ZCARD", "limit:{limit}:nodes"); got != "1" {
		t.Errorf("%s leases", got)
	}
	if _, d := b.admit(bob, 1); !d.Allowed {
		t.Errorf("%+v", d)
	}
	b.says(alice, ratelimit.ReasonNone) // the one that was released does not count
	b.must(alice, 1)
	b.says(alice, ratelimit.ReasonLimit) // the other one counts until its window ends
	slots[1].Release()
	if _, d := a.admit(bob, 1); !d.Allowed || !d.Local {
		t.Errorf("after Close: %+v", d)
	}
	if err := a.lim.Block(ratelimit.Fold(bob), time.Time{}); !errors.Is(err, ratelimit.ErrLocal) {
		t.Errorf("a block after Close: %v", err)
	}
	if err := a.shared.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// While the engine is stopped, nodes decide alone, and one decision has waited.
func TestStoppedEngine(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		client := &counting{Client: redistest.Client(t, server.Addr)}
		limits := ratelimit.Config{Limit: 10, MaxOpen: 10, Window: time.Hour}
		a := prepare(t, client, settings{limits: limits, Config: redislimit.Config{Timeout: 250 * time.Millisecond}})
		a.meets()
		b := start(t, server.Addr, settings{limits: limits})
		b.must(alice, 4)
		server.Pause()
		client.asked.Store(0)
		slots, d := a.admit(alice, 10) // by the count of b there would be six
		if len(slots) != 10 || !d.Local {
			t.Errorf("admitted %d: %+v", len(slots), d)
		}
		for range 1000 {
			if _, d := a.admit(alice, 1); d.Allowed || d.Local || d.Reason != ratelimit.ReasonOpen {
				t.Fatalf("an eleventh: %+v", d)
			}
			a.admit(netip.AddrFrom4([4]byte{10, byte(rand.N(256)), byte(rand.N(256)), 1}), 1)
		}
		if n := client.asked.Load(); n > 1 {
			t.Errorf("%d decisions asked the engine", n)
		}
		if err := a.lim.Block(ratelimit.Fold(bob), time.Time{}); !errors.Is(err, ratelimit.ErrLocal) {
			t.Errorf("Block: %v", err)
		}
		if _, d := a.admit(bob, 1); d.Reason != ratelimit.ReasonBlocked {
			t.Errorf("blocked: %+v", d)
		}
		if s := a.shared.Stats(); !s.Down || s.Alone < 1000 {
			t.Errorf("%+v", s)
		}
		server.Continue()
		// The engine then knows of them all, and of the block.
		b.hears("block " + ratelimit.Fold(bob).String())
		a.settle()
		for _, slot := range slots[:9] {
			slot.Release()
		}
		a.settle()
		// 4 of b and one of a are open.
		for want := 4; want >= 0; want-- {
			if d := last(b.must(alice, 1), b); d != want {
				t.Fatalf("%d remain, want %d", d, want)
			}
		}
		if got := a.state(); len(got) < 2 || got[len(got)-1] != "<nil>" || !strings.Contains(got[0], "does not answer") {
			t.Errorf("states %q", got)
		}
	})
}

// last returns how many connections of alice the node would still admit.
func last(_ []*ratelimit.Slot, n *node) int {
	return n.lim.Check(ratelimit.Key{Addr: alice}).Remaining
}

// An engine that answers with an error is away too.
func TestRefusingEngine(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		why  string
		stop func(*redistest.Server)
		mend func(*redistest.Server)
		says string
	}{
		{"it is a replica now", func(s *redistest.Server) { s.Do("REPLICAOF", "127.0.0.1", "1") }, func(s *redistest.Server) { s.Promote() }, "READONLY"},
		{"it has no memory left", func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "1") },
			func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "0") }, "OOM"},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			n := start(t, server.Addr, settings{limits: open})
			n.must(alice, 1)
			row.stop(server)
			var d ratelimit.Decision
			redistest.Wait(t, "a decision alone", func() bool {
				var slot ratelimit.Slot
				slot, d = n.lim.Admit(ratelimit.Key{Addr: bob})
				slot.Release()
				return d.Local
			})
			if !d.Allowed || !strings.Contains(n.state()[0], row.says) {
				t.Errorf("%+v, %q", d, n.state())
			}
			row.mend(server)
			redistest.Wait(t, "a decision of all", func() bool { return !n.lim.Check(ratelimit.Key{Addr: bob}).Local })
		})
	}
}

// An engine that has lost everything gets blocks, penalties and connections
// again.
func TestLostData(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		s := settings{limits: ratelimit.Config{Limit: 2, MaxOpen: 2, Window: time.Hour, Penalty: ratelimit.Penalty{Failures: 2}}}
		a, b := start(t, server.Addr, s), start(t, server.Addr, s)
		network, carol := netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr("203.0.113.9")
		if err := a.lim.Block(network, time.Time{}); err != nil {
			t.Fatal(err)
		}
		a.must(alice, 2)
		for range 2 {
			b.lim.Fail(ratelimit.Key{Addr: carol})
		}
		b.hears("block " + network.String())
		a.hears("penalty " + ratelimit.Fold(carol).String())
		b.settle()
		server.Kill()
		server.Restart()
		redistest.Wait(t, "both nodes that know of the loss", func() bool {
			return slices.Contains(a.state(), redislimit.ErrLost.Error()) && slices.Contains(b.state(), redislimit.ErrLost.Error())
		})
		a.meets()
		b.meets()
		a.settle()
		b.settle()
		c := start(t, server.Addr, s) // only knows what the engine has
		c.says(alice, ratelimit.ReasonOpen)
		c.says(netip.MustParseAddr("198.51.100.200"), ratelimit.ReasonBlocked)
		c.says(carol, ratelimit.ReasonPenalty)
		if got := c.heard(); len(got) != 2 {
			t.Errorf("the new node got %q", got)
		}
	})
}

// The client has a slot of its own in a cluster.
func TestCluster(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		cluster := e.StartCluster(t, 2*time.Second)
		client := func() rueidis.Client {
			c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: cluster.Addrs(), DisableCache: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			return c
		}
		s := settings{limits: ratelimit.Config{Limit: 4, MaxOpen: 4, Window: time.Hour, Penalty: ratelimit.Penalty{Failures: 2}}}
		a, b := prepare(t, client(), s), prepare(t, client(), s)
		a.meets()
		b.meets()
		var slots []*ratelimit.Slot
		owners := map[*redistest.Server]bool{}
		for i := range byte(20) {
			addr := netip.AddrFrom4([4]byte{192, 0, 2, i})
			slots = append(slots, a.must(addr, 2)...)
			b.must(addr, 2)
			a.says(addr, ratelimit.ReasonOpen)
			owners[cluster.Owner(a.shared.KeyOf(ratelimit.Client{Network: ratelimit.Fold(addr)}))] = true
		}
		if len(owners) != 3 {
			t.Errorf("%d of three masters have clients", len(owners))
		}
		// Clients of different slots cannot travel together.
		var work sync.WaitGroup
		for i := range byte(50) {
			work.Go(func() {
				if _, d := a.admit(netip.AddrFrom4([4]byte{198, 51, 100, i}), 1); !d.Allowed || d.Local {
					t.Errorf("%+v", d)
				}
			})
		}
		work.Wait()
		for _, slot := range slots {
			slot.Release()
		}
		for i := range byte(20) {
			b.says(netip.AddrFrom4([4]byte{192, 0, 2, i}), ratelimit.ReasonNone)
		}
		a.lim.Fail(ratelimit.Key{Addr: bob})
		if _, blocked := b.lim.Fail(ratelimit.Key{Addr: bob}); !blocked {
			t.Error("no penalty")
		}
		a.hears("penalty " + ratelimit.Fold(bob).String())
		if err := a.lim.Block(ratelimit.Fold(alice), time.Time{}); err != nil {
			t.Error(err)
		}
		b.hears("block " + ratelimit.Fold(alice).String())
		for _, n := range []*node{a, b} {
			if got := n.state(); len(got) > 0 {
				t.Errorf("%q", got)
			}
			if err := n.shared.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
