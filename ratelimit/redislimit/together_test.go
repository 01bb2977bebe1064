package redislimit_test

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
)

// gate is a client of the engine that holds the scripts of decisions, and notes
// how many keys each has.
type gate struct {
	rueidis.Client
	open chan struct{} // closed: it holds none
	lose bool          // the answers do not come through

	mu    sync.Mutex
	sizes []int
}

func (g *gate) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	words := cmd.Commands()
	if words[0] != "EVALSHA" || strings.HasPrefix(words[3], "limit:{limit}") {
		return g.Client.Do(ctx, cmd)
	}
	n, _ := strconv.Atoi(words[2])
	g.mu.Lock()
	g.sizes = append(g.sizes, n)
	g.mu.Unlock()
	select {
	case <-g.open:
	case <-ctx.Done():
	}
	r := g.Client.Do(ctx, cmd)
	if g.lose && r.Error() == nil {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		return g.Client.Do(ended, g.B().Ping().Build())
	}
	return r
}

func (g *gate) asked() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.sizes)
}

// gated returns a node behind a gate. The engine knows its scripts.
func gated(t *testing.T, server *redistest.Server, s settings) (*node, *gate) {
	t.Helper()
	g := &gate{Client: redistest.Client(t, server.Addr), open: make(chan struct{})}
	first := start(t, server.Addr, s)
	first.says(alice, ratelimit.ReasonNone)
	if err := first.shared.Close(); err != nil {
		t.Fatal(err)
	}
	n := prepare(t, g, s)
	n.meets()
	return n, g
}

// asks makes decisions about clients that wait at the gate, in this order.
type asks struct {
	*node
	work  sync.WaitGroup
	mu    sync.Mutex
	taken map[netip.Addr][]ratelimit.Taken
	gives []func(bool)
	errs  []error
}

func (a *asks) take(g *gate, addr netip.Addr, r ratelimit.Rules) {
	a.t.Helper()
	before := len(g.asked()) + a.shared.Waiting()
	a.work.Go(func() {
		got, give, err := a.shared.Take(ctx0, ratelimit.Client{Network: ratelimit.Fold(addr)}, r)
		a.mu.Lock()
		defer a.mu.Unlock()
		if err != nil {
			a.errs = append(a.errs, err)
		}
		if give != nil {
			a.gives = append(a.gives, give)
		}
		if a.taken == nil {
			a.taken = map[netip.Addr][]ratelimit.Taken{}
		}
		a.taken[addr] = append(a.taken[addr], got)
	})
	redistest.Wait(a.t, "a decision that waits", func() bool { return len(g.asked())+a.shared.Waiting() == before+1 })
}

func numbered(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }

// Decisions that wait for those under way are made in one script, each as if it
// was alone: also several of one client.
func TestTogether(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n, g := gated(t, server, settings{})
		a := &asks{node: n}
		rules := ratelimit.Rules{Limit: 3, MaxAttempts: 10, MaxOpen: 10, Window: time.Hour}
		const clients, each = 20, 5
		for i := range clients * each {
			a.take(g, numbered(i%clients), rules)
		}
		close(g.open)
		a.work.Wait()
		if got, want := sum(g.asked()), clients*each; got != want {
			t.Errorf("%d decisions in scripts, want %d: %d", got, want, g.asked())
		}
		sizes := g.asked()
		slices.Sort(sizes)
		want := []int{1, 1, clients*each - redislimit.MaxFlights - redislimit.MaxTogether, redislimit.MaxTogether}
		if !slices.Equal(sizes, want) {
			t.Errorf("scripts of %d decisions, want %d", sizes, want)
		}
		for addr, all := range a.taken {
			var remain, reasons []string
			for _, one := range all {
				if one.Reason == ratelimit.ReasonNone {
					remain = append(remain, strconv.Itoa(one.Remaining))
				} else {
					reasons = append(reasons, string(one.Reason))
				}
				if one.Reset <= 0 || one.Reset > time.Hour {
					t.Errorf("%v: %+v", addr, one)
				}
			}
			slices.Sort(remain)
			if !slices.Equal(remain, []string{"0", "1", "2"}) || !slices.Equal(reasons, []string{"limit", "limit"}) {
				t.Errorf("%v: remaining %q, refused %q", addr, remain, reasons)
			}
		}
		if len(a.errs) > 0 || len(a.gives) != 3*clients {
			t.Errorf("%v, %d to give back", a.errs, len(a.gives))
		}
		for _, give := range a.gives {
			give(true)
		}
		n.settle()
		if keys := clientKeys(server); len(keys) > 0 {
			t.Errorf("the engine still has %q", keys)
		}
	})
}

func sum(all []int) (s int) {
	for _, n := range all {
		s += n
	}
	return s
}

// Only decisions with the same rules travel together, and those with failures
// find their own.
func TestTogetherByRules(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n, g := gated(t, server, settings{})
		other := start(t, server.Addr, settings{})
		few := ratelimit.Rules{Limit: 1, MaxAttempts: 10, MaxOpen: 10, Window: time.Hour}
		asking, wary := few, few
		asking.Ask, wary.Penalty = true, true
		penalty := ratelimit.Penalty{Failures: 1, Within: time.Hour, Block: time.Hour, MaxBlock: time.Hour}
		for i := range 6 {
			if i%3 == 0 {
				if _, blocked, err := other.shared.Fail(ctx0, ratelimit.Client{Network: ratelimit.Fold(numbered(i))}, penalty); !blocked || err != nil {
					t.Fatal(blocked, err)
				}
			}
		}
		a := &asks{node: n}
		a.take(g, numbered(100), few)
		a.take(g, numbered(101), few)
		for i := range 6 {
			a.take(g, numbered(i), wary)
			a.take(g, numbered(i), asking)
		}
		close(g.open)
		a.work.Wait()
		sizes := g.asked()
		slices.Sort(sizes)
		if want := []int{1, 1, 6, 12}; !slices.Equal(sizes, want) || len(a.errs) > 0 {
			t.Errorf("scripts of %d keys, want %d: %v", sizes, want, a.errs)
		}
		for i := range 6 {
			penalties := 0
			for _, one := range a.taken[numbered(i)] {
				if one.Reason == ratelimit.ReasonPenalty {
					penalties++
					if one.RetryAfter <= 0 || one.RetryAfter > time.Hour || one.Reset != 0 {
						t.Errorf("%+v", one)
					}
				}
			}
			// The rules of those that only ask have no penalties.
			if want := map[bool]int{true: 1}[i%3 == 0]; penalties != want {
				t.Errorf("client %d: %d penalties, want %d", i, penalties, want)
			}
		}
	})
}

// If the answer to many is lost, each is decided alone, and the engine is told
// what is open.
func TestTogetherLost(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n, g := gated(t, server, settings{})
		other := start(t, server.Addr, settings{})
		a := &asks{node: n}
		rules := ratelimit.Rules{Limit: 10, MaxAttempts: 10, MaxOpen: 3, Window: time.Hour}
		for i := range 30 {
			a.take(g, numbered(i%10), rules)
		}
		g.lose = true
		close(g.open)
		a.work.Wait()
		if len(a.errs) != 30 || len(a.gives) != 30 || n.shared.Stats().Alone != 30 {
			t.Errorf("%d errors, %d to give back, %d alone", len(a.errs), len(a.gives), n.shared.Stats().Alone)
		}
		n.settle()
		asking := rules
		asking.Ask = true
		for i := range 10 {
			if got, _, err := other.shared.Take(ctx0, ratelimit.Client{Network: ratelimit.Fold(numbered(i))}, asking); got.Reason != ratelimit.ReasonOpen || err != nil {
				t.Errorf("client %d: %+v, %v", i, got, err)
			}
		}
		for _, give := range a.gives {
			give(false)
		}
		n.settle()
		for i := range 10 {
			if got, _, err := other.shared.Take(ctx0, ratelimit.Client{Network: ratelimit.Fold(numbered(i))}, asking); got.Reason != ratelimit.ReasonNone || err != nil {
				t.Errorf("client %d: %+v, %v", i, got, err)
			}
		}
	})
}

// What waits for an engine that does not answer is decided alone too.
func TestTogetherSilent(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		n, g := gated(t, e.Start(t), settings{Config: redislimit.Config{Timeout: 3 * time.Second}})
		a := &asks{node: n}
		for i := range 10 {
			a.take(g, numbered(i), ratelimit.Rules{Limit: 10, MaxAttempts: 10, MaxOpen: 3, Window: time.Hour})
		}
		a.work.Wait()
		if len(a.errs) != 10 || len(a.gives) != 10 {
			t.Errorf("%d errors, %d to give back", len(a.errs), len(a.gives))
		}
		close(g.open)
		n.settle()
		if _, _, err := n.shared.Take(ctx0, ratelimit.Client{Network: ratelimit.Fold(alice)}, ratelimit.Rules{Limit: 1, MaxAttempts: 1, MaxOpen: 1, Window: time.Hour}); err != nil {
			t.Error(err)
		}
	})
}
