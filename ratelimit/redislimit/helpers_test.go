package redislimit_test

import (
	"bytes"
	"context"
	"fmt"
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

var (
	ctx0  = context.Background()
	key   = bytes.Repeat([]byte{5}, redislimit.KeySize)
	alice = netip.MustParseAddr("192.0.2.1")
	bob   = netip.MustParseAddr("2001:db8:1:2:3:4:5:6")
)

func TestMain(m *testing.M) { redistest.Main(m) }

// patient is a Timeout that no busy machine reaches.
const patient = 20 * time.Second

// settings are the parts of a node's configuration that tests change.
type settings struct {
	redislimit.Config
	limits ratelimit.Config
	wrong  time.Duration // the clock of the node
}

// node is one process.
type node struct {
	t      testing.TB
	shared *redislimit.Limits
	lim    *ratelimit.Limiter

	mu      sync.Mutex
	states  []string // what OnState got, the oldest first
	changes []ratelimit.SharedChange
}

// start returns a node at the engine, or the proxy, at addr, after it has met
// the engine.
func start(t testing.TB, addr string, s settings) *node {
	t.Helper()
	n := prepare(t, redistest.Client(t, addr), s)
	n.meets()
	return n
}

// prepare returns a node that may not have met the engine.
func prepare(t testing.TB, client rueidis.Client, s settings) *node {
	t.Helper()
	n := &node{t: t}
	s.Client = client
	if s.Key == nil {
		s.Key = key
	}
	if s.Timeout == 0 {
		s.Timeout = patient
	}
	s.OnState = func(err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.states = append(n.states, fmt.Sprint(err))
	}
	s.limits.OnShared = func(c ratelimit.SharedChange) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changes = append(n.changes, c)
	}
	var err error
	if n.shared, err = redislimit.New(s.Config); err != nil {
		t.Fatal(err)
	}
	if s.wrong != 0 {
		n.shared.SetClock(s.wrong)
	}
	s.limits.Shared = n.shared
	if n.lim, err = ratelimit.New(s.limits); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.shared.Close() }) // the engine may be gone
	return n
}

// meets waits until the node has met the engine.
func (n *node) meets() {
	n.t.Helper()
	redistest.Wait(n.t, "a node that has met the engine", func() bool { return n.shared.Stats().Nodes > 0 && !n.shared.Stats().Down })
}

// settle waits until the engine knows what the node knows.
func (n *node) settle() {
	n.t.Helper()
	redistest.Wait(n.t, "a node with nothing to tell", n.shared.Idle)
}

// admit admits addr n times, and returns the slots and the last decision.
func (n *node) admit(addr netip.Addr, times int) (slots []*ratelimit.Slot, d ratelimit.Decision) {
	n.t.Helper()
	for range times {
		var slot ratelimit.Slot
		slot, d = n.lim.Admit(ratelimit.Key{Addr: addr})
		if !d.Allowed {
			return slots, d
		}
		slots = append(slots, &slot)
	}
	return slots, d
}

// must is admit, of connections that must all be admitted.
func (n *node) must(addr netip.Addr, times int) []*ratelimit.Slot {
	n.t.Helper()
	slots, d := n.admit(addr, times)
	if len(slots) != times || d.Local {
		n.t.Fatalf("admitted %d of %d: %+v", len(slots), times, d)
	}
	return slots
}

// says waits until the node has a decision about addr with a reason. It counts
// nothing.
func (n *node) says(addr netip.Addr, reason ratelimit.Reason) {
	n.t.Helper()
	var d ratelimit.Decision
	redistest.Wait(n.t, fmt.Sprintf("a decision %q", reason), func() bool {
		d = n.lim.Check(ratelimit.Key{Addr: addr})
		return d.Reason == reason && !d.Local
	})
}

// heard returns what OnShared got, as "KIND NETWORK".
func (n *node) heard() (all []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.changes {
		all = append(all, string(c.Kind)+" "+c.Network.String())
	}
	return all
}

func (n *node) hears(want string) {
	n.t.Helper()
	redistest.Wait(n.t, "news "+want, func() bool { return slices.Contains(n.heard(), want) })
}

// state returns what OnState got.
func (n *node) state() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.states)
}

// engineTime returns the time of the engine.
func engineTime(s *redistest.Server) time.Time {
	parts := strings.Fields(s.Do("TIME"))
	sec, _ := strconv.ParseInt(parts[0], 10, 64)
	micro, _ := strconv.ParseInt(parts[1], 10, 64)
	return time.Unix(sec, micro*1000)
}

// clientKeys returns the keys of clients that the engine has.
func clientKeys(s *redistest.Server) []string {
	return slices.DeleteFunc(strings.Fields(s.Do("KEYS", "limit:{*}")), func(k string) bool { return strings.Contains(k, "{limit}") })
}
