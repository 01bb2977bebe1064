package ratelimit_test

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/ratelimit"
)

// start is far from now, so that a method fails the tests if it uses the real
// clock instead of the given time.
var start = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

var (
	alice = netip.MustParseAddr("192.0.2.1")
	bob   = netip.MustParseAddr("198.51.100.7")
)

func newLimiter(t testing.TB, c ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// admit calls AdmitAt n times, and returns the slots of the admitted
// connections and the last decision.
func admit(l *ratelimit.Limiter, addr netip.Addr, now time.Time, n int) (slots []*ratelimit.Slot, d ratelimit.Decision) {
	for range n {
		var slot ratelimit.Slot
		if slot, d = l.AdmitAt(addr, now); d.Reason == ratelimit.ReasonNone {
			slots = append(slots, &slot)
		}
	}
	return slots, d
}

func TestLimit(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	slots, _ := admit(l, alice, start, 10)
	if len(slots) != 10 {
		t.Fatalf("admitted %d of 10", len(slots))
	}
	later := start.Add(20 * time.Second)
	_, d := l.AdmitAt(alice, later)
	want := ratelimit.Decision{
		Reason: ratelimit.ReasonLimit, Client: netip.MustParsePrefix("192.0.2.1/32"),
		Limit: 10, Reset: 40 * time.Second, RetryAfter: 40 * time.Second,
	}
	if d != want {
		t.Errorf("11th: %+v\nwant %+v", d, want)
	}
	if _, d := l.AdmitAt(bob, later); !d.Allowed || d.Remaining != 9 {
		t.Errorf("another client: %+v", d)
	}

	slots[3].Release()
	if _, d := l.AdmitAt(alice, later); !d.Allowed || d.Remaining != 0 {
		t.Errorf("after one was given back: %+v", d)
	}
	if _, d := l.AdmitAt(alice, start.Add(time.Minute-1)); d.Allowed || d.RetryAfter != 1 {
		t.Errorf("a nanosecond before the window ends: %+v", d)
	}
	if _, d := l.AdmitAt(alice, start.Add(time.Minute)); !d.Allowed || d.Remaining != 9 {
		t.Errorf("at the window's end: %+v", d)
	}
}

// TestRefusalChangesNothing guards against two mistakes: refused attempts that
// extend the window, which would lock out a client that retries forever, and
// refused attempts that release a slot that they never had.
func TestRefusalChangesNothing(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 2})
	admit(l, alice, start, 2)
	for i := range 59 {
		slot, d := l.AdmitAt(alice, start.Add(time.Duration(i)*time.Second))
		if d.Allowed || d.Reset != time.Minute-time.Duration(i)*time.Second {
			t.Fatalf("second %d: %+v", i, d)
		}
		if slot.Release() {
			t.Fatal("a refused attempt released something")
		}
	}
	if got := l.StatsAt(start).Open; got != 2 {
		t.Errorf("%d open, want 2", got)
	}
	if slots, _ := admit(l, alice, start.Add(time.Minute), 3); len(slots) != 2 {
		t.Errorf("next window admitted %d, want 2", len(slots))
	}
}

// TestOldSlots releases connections of an earlier window. They must not make
// room in the current window, which never counted them.
func TestOldSlots(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 10})
	old, _ := admit(l, alice, start, 10)
	next := start.Add(time.Minute)
	if slots, _ := admit(l, alice, next, 11); len(slots) != 10 {
		t.Fatalf("second window admitted %d", len(slots))
	}
	for _, s := range old {
		s.Release()
	}
	if _, d := l.AdmitAt(alice, next); d.Reason != ratelimit.ReasonLimit {
		t.Errorf("after old slots were released: %+v", d)
	}
}

// TestAttempts connects and disconnects in a loop, which never exceeds Limit.
// MaxAttempts must stop it.
func TestAttempts(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 10})
	admitted := 0
	var last ratelimit.Decision
	for range 18_000 {
		slot, d := l.AdmitAt(alice, start)
		if last = d; d.Allowed {
			admitted++
		}
		slot.Release()
	}
	if admitted != 60 || last.Reason != ratelimit.ReasonAttempts || last.RetryAfter != time.Minute {
		t.Errorf("admitted %d, then %+v", admitted, last)
	}
}

// TestOpen holds ten connections of each of many windows. MaxOpen must stop it.
func TestOpen(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 10})
	var held []*ratelimit.Slot
	now := start
	for range 10 {
		slots, _ := admit(l, alice, now, 10)
		held = append(held, slots...)
		now = now.Add(time.Minute)
	}
	_, d := l.AdmitAt(alice, now)
	if len(held) != 50 || d.Reason != ratelimit.ReasonOpen || d.RetryAfter != time.Minute {
		t.Errorf("held %d, then %+v", len(held), d)
	}
	// Held connections must not be forgotten after days without a new one.
	now = now.Add(48 * time.Hour)
	if st := l.StatsAt(now); st.Clients != 0 || st.Open != 50 {
		t.Errorf("after two days: %+v", st)
	}
	if _, d := l.AdmitAt(alice, now); d.Reason != ratelimit.ReasonOpen {
		t.Errorf("after two days: %+v", d)
	}
	held[0].Release()
	if _, d := l.AdmitAt(alice, now); !d.Allowed || d.Remaining != 0 {
		t.Errorf("after one was given back: %+v", d)
	}
}

func TestProcess(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 2, Process: rate.NewLimiter(1, 3)})
	admit(l, alice, start, 2)
	for range 100 {
		// Refused by its own limit, so it takes no token from Process.
		l.AdmitAt(alice, start)
	}
	if _, d := l.AdmitAt(bob, start); !d.Allowed {
		t.Errorf("third of three: %+v", d)
	}
	_, d := l.AdmitAt(bob, start.Add(250*time.Millisecond))
	if d.Reason != ratelimit.ReasonProcess || d.RetryAfter != 750*time.Millisecond {
		t.Errorf("fourth of three: %+v", d)
	}
	if _, d := l.AdmitAt(bob, start.Add(time.Second)); !d.Allowed || d.Remaining != 0 {
		t.Errorf("after the promised time: %+v", d)
	}
}

// TestCheck asks often, and counts nothing. The model tests compare Check with
// Admit.
func TestCheck(t *testing.T) {
	process := rate.NewLimiter(rate.Every(time.Hour), 2)
	l := newLimiter(t, ratelimit.Config{Limit: 1, MaxAttempts: 2, MaxTotal: 2, Process: process})
	check := func(addr netip.Addr, want ratelimit.Reason) {
		t.Helper()
		for range 50 {
			if d := l.Check(ratelimit.Key{Addr: addr}); d.Reason != want || d.Allowed != (want == ratelimit.ReasonNone) {
				t.Fatalf("%+v, want %q", d, want)
			}
		}
	}
	check(alice, ratelimit.ReasonNone)
	if stats := l.Stats(); stats.Open != 0 || stats.Clients != 0 {
		t.Errorf("a question counts: %+v", stats)
	}
	slot, d := l.Admit(ratelimit.Key{Addr: alice})
	if !d.Allowed {
		t.Fatalf("after questions only: %+v", d)
	}
	check(alice, ratelimit.ReasonLimit)
	check(bob, ratelimit.ReasonNone)
	other, _ := l.Admit(ratelimit.Key{Addr: bob})
	check(alice.Prev(), ratelimit.ReasonTotal)
	other.Release()
	check(alice.Prev(), ratelimit.ReasonProcess)
	process.SetLimit(rate.Inf)
	check(alice.Prev(), ratelimit.ReasonNone)
	slot.Release()
	if err := l.Block(ratelimit.Fold(alice), time.Time{}); err != nil {
		t.Fatal(err)
	}
	check(alice, ratelimit.ReasonBlocked)
}

// TestProcessClosed uses a Process that admits nothing. RetryAfter cannot name
// a time then.
func TestProcessClosed(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Process: rate.NewLimiter(0, 0)})
	if _, d := l.AdmitAt(alice, start); d.Reason != ratelimit.ReasonProcess || d.RetryAfter != 0 {
		t.Errorf("%+v", d)
	}
}

// TestConcurrent checks that a decision is atomic while several goroutines ask
// and windows end.
func TestConcurrent(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{
		Limit: 3, MaxAttempts: 1 << 24, MaxOpen: 5, MaxKeys: 4, Penalty: ratelimit.Penalty{Failures: 1 << 20},
	})
	var clock, most atomic.Int64
	var held [8]atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				client := (g + i) % len(held)
				addr := netip.AddrFrom4([4]byte{10, byte(client), 0, 1})
				now := start.Add(time.Duration(clock.Add(1)) * 3 * time.Millisecond)
				slot, d := l.AdmitAt(addr, now)
				if d.Allowed {
					n := held[client].Add(1)
					if n > 5 {
						t.Errorf("%d connections open", n)
					}
					most.Store(max(most.Load(), n))
				}
				switch i % 100 {
				case 0:
					l.FailAt(addr, now)
				case 1:
					l.BlockAt(netip.MustParsePrefix("192.0.2.0/24"), now.Add(time.Second), now)
				case 2:
					l.StatsAt(now)
				case 3:
					l.Unblock(netip.MustParsePrefix("10.0.0.0/8"))
				}
				if d.Allowed {
					held[client].Add(-1)
					again := make(chan bool)
					go func() { again <- slot.Release() }()
					if slot.Release() == <-again {
						t.Error("a slot was not released exactly once")
					}
				}
			}
		})
	}
	wg.Wait()
	if st := l.StatsAt(start); st.Open != 0 || most.Load() == 0 {
		t.Errorf("%+v, at most %d open", st, most.Load())
	}
}

func TestFold(t *testing.T) {
	for _, test := range []struct{ addr, want, why string }{
		{"192.0.2.1", "192.0.2.1/32", "an IPv4 address is a client"},
		{"::ffff:192.0.2.1", "192.0.2.1/32", "IPv4-mapped: not one bucket for all of IPv4"},
		{"2001:db8:1:2::1", "2001:db8:1:2::/64", "a subscriber has 2⁶⁴ addresses"},
		{"2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64", "the other end of the same /64"},
		{"2001:db8:1:3::1", "2001:db8:1:3::/64", "the next subscriber"},
		{"fe80::1%eth0", "fe80::/64", "a zone is no way out of the /64"},
		{"::1", "::/64", "loopback"},
	} {
		if got := ratelimit.Fold(netip.MustParseAddr(test.addr)).String(); got != test.want {
			t.Errorf("Fold(%s) = %s, want %s: %s", test.addr, got, test.want, test.why)
		}
	}
	if got := ratelimit.Fold(netip.Addr{}); got.IsValid() {
		t.Errorf("Fold of nothing = %v", got)
	}
}

func TestClientsAreFolded(t *testing.T) {
	for _, same := range [][2]string{
		{"192.0.2.1", "::ffff:192.0.2.1"}, {"2001:db8::1", "2001:db8::ffff:1"}, {"fe80::1%eth0", "fe80::2%eth1"},
	} {
		l := newLimiter(t, ratelimit.Config{Limit: 1})
		admit(l, netip.MustParseAddr(same[0]), start, 1)
		if _, d := l.AdmitAt(netip.MustParseAddr(same[1]), start); d.Allowed {
			t.Errorf("%v are two clients", same)
		}
	}
	l := newLimiter(t, ratelimit.Config{Limit: 1})
	for _, addr := range []string{"0.0.0.1", "::1", "::ffff:1.1.1.1", "::101:101:0:0:0:0", "2001:db8::1", "1.1.1.2"} {
		if _, d := l.AdmitAt(netip.MustParseAddr(addr), start); !d.Allowed {
			t.Errorf("%s shares another's bucket", addr)
		}
	}
	// All clients without an address count as one.
	if slots, _ := admit(l, netip.Addr{}, start, 2); len(slots) != 1 {
		t.Errorf("without an address: admitted %d", len(slots))
	}
}

func TestMaxKeys(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 2, MaxKeys: 2})
	held, _ := admit(l, alice, start, 1)
	admit(l, bob, start, 1)

	next := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, i}) }
	for i := range byte(2) {
		_, d := l.AdmitAt(next(i), start)
		if !d.Allowed || !d.Coarse || d.Client.String() != "203.0.113.0/24" {
			t.Errorf("newcomer %d: %+v", i, d)
		}
	}
	if _, d := l.AdmitAt(next(9), start); d.Allowed || !d.Coarse {
		t.Errorf("third newcomer of one network: %+v", d)
	}
	// Another network counts apart, unless it shares the bucket by chance: one
	// of a thousand does, but not three.
	for _, others := range [][][2]string{
		{{"2001:db8:1:2::3", "2001:db8:1::/48"}, {"2001:db8:4:2::3", "2001:db8:4::/48"}, {"2001:db8:5:2::3", "2001:db8:5::/48"}},
		{{"100.64.1.2", "100.64.1.0/24"}, {"100.64.4.2", "100.64.4.0/24"}, {"100.64.5.2", "100.64.5.0/24"}},
	} {
		admitted := false
		for _, other := range others {
			_, d := l.AdmitAt(netip.MustParseAddr(other[0]), start)
			admitted = admitted || d.Allowed
			if !d.Coarse || d.Client.String() != other[1] {
				t.Errorf("newcomer %s: %+v", other[0], d)
			}
		}
		if !admitted {
			t.Errorf("newcomers of other networks, %s among them, are refused", others[0][0])
		}
	}
	if _, d := l.AdmitAt(alice, start); !d.Allowed || d.Coarse {
		t.Errorf("a known client: %+v", d)
	}

	// Two windows later there is room again. A client that held a connection
	// through both windows never became unknown.
	later := start.Add(2 * time.Minute)
	if _, d := l.AdmitAt(next(9), later); !d.Allowed || d.Coarse {
		t.Errorf("two windows later: %+v", d)
	}
	admit(l, next(8), later, 1)
	if _, d := l.AdmitAt(next(7), later); !d.Coarse {
		t.Errorf("full again: %+v", d)
	}
	if _, d := l.AdmitAt(alice, later); d.Coarse || len(held) != 1 {
		t.Errorf("a client with an open connection was forgotten: %+v", d)
	}
}

// TestForgetting checks that the first call after two windows forgets idle
// clients.
func TestForgetting(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	for i := range 1000 {
		slot, _ := l.AdmitAt(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), start.Add(time.Duration(i)*time.Millisecond))
		slot.Release()
	}
	if got := l.StatsAt(start.Add(time.Minute)).Clients; got != 1000 {
		t.Errorf("%d clients known within the window, want 1000", got)
	}
	if _, d := l.AdmitAt(bob, start.Add(2*time.Minute+time.Second)); !d.Allowed {
		t.Fatal(d)
	}
	if got := l.StatsAt(start.Add(2*time.Minute + time.Second)).Clients; got != 1 {
		t.Errorf("%d clients known, want only the newest", got)
	}
}

// TestClocks uses times that differ between callers, and times before New.
func TestClocks(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1})
	admit(l, alice, start, 1)
	if _, d := l.AdmitAt(alice, start.Add(-time.Second)); d.Allowed || d.RetryAfter != 61*time.Second {
		t.Errorf("a second back: %+v", d)
	}
	for _, now := range []time.Time{{}, start.AddDate(-900, 0, 0), start.AddDate(900, 0, 0)} {
		if _, d := l.AdmitAt(bob, now); d.Reason != ratelimit.ReasonNone && d.Reason != ratelimit.ReasonLimit {
			t.Errorf("at %v: %+v", now, d)
		}
	}
}

func TestDryRun(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1, DryRun: true})
	admit(l, alice, start, 1)
	slot, d := l.AdmitAt(alice, start)
	if !d.Allowed || d.Reason != ratelimit.ReasonLimit || slot.Release() {
		t.Errorf("over the limit: %+v", d)
	}
	if err := l.Block(netip.PrefixFrom(bob, 32), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, d := l.AdmitAt(bob, start); !d.Allowed || d.Reason != ratelimit.ReasonBlocked {
		t.Errorf("blocked: %+v", d)
	}
	if got := l.StatsAt(start).Open; got != 1 {
		t.Errorf("%d counted, want 1: what would be refused is not counted", got)
	}
}

func TestZeroDecisionRefuses(t *testing.T) {
	if (ratelimit.Decision{}).Allowed {
		t.Error("the zero Decision allows")
	}
	var s ratelimit.Slot
	if s.Release() {
		t.Error("the zero Slot held something")
	}
}

func TestConfig(t *testing.T) {
	const (
		missing, unknown = ratelimit.ConfigMissing, ratelimit.ConfigUnknown
		small, large     = ratelimit.ConfigTooSmall, ratelimit.ConfigTooLarge
		malformed        = ratelimit.ConfigMalformed
	)
	type problems map[string]ratelimit.ConfigReason
	for _, test := range []struct {
		config ratelimit.Config
		want   problems
		text   string // part of the error's text
		why    string
	}{
		{ratelimit.Config{}, nil, "", "the zero value is usable"},
		{ratelimit.Config{Limit: 1, MaxAttempts: 1, MaxOpen: 1, MaxKeys: 1}, nil, "", "the smallest"},
		{ratelimit.Config{Limit: -1, Window: -1, MaxAttempts: -1, MaxOpen: -1, MaxKeys: -1, MaxTotal: -1, Fields: 99}, problems{
			"Config.Limit": small, "Config.Window": small, "Config.MaxAttempts": small, "Config.MaxOpen": small,
			"Config.MaxKeys": small, "Config.MaxTotal": small, "Config.Fields": unknown}, "ratelimit: Config.Limit is too small: at least 1", "all problems at once"},
		{ratelimit.Config{PrefixV4: 33, PrefixV6: 65, Count: 2, Name: `a"b`}, problems{"Config.PrefixV4": large, "Config.PrefixV6": large, "Config.Count": unknown, "Config.Name": malformed}, "", "an IPv6 client chooses among 2⁶⁴ addresses"},
		{ratelimit.Config{PrefixV4: 7, PrefixV6: 15, Name: "é"}, problems{"Config.PrefixV4": small, "Config.PrefixV6": small, "Config.Name": malformed}, "at least 8", "would count whole providers as one client"},
		{ratelimit.Config{PrefixV4: 8, PrefixV6: 16, Name: "per-key_2.x", Count: ratelimit.CountRequests, Fields: 11}, nil, "", "the least"},
		{ratelimit.Config{Networks: map[netip.Prefix]int{{}: 1}}, problems{"Config.Networks": malformed}, "valid prefix", "no network"},
		{ratelimit.Config{Networks: map[netip.Prefix]int{netip.MustParsePrefix("10.0.0.0/8"): 0}}, problems{"Config.Networks": missing}, "negative number for none", "zero might be meant as none, or as nothing"},
		{ratelimit.Config{Networks: map[netip.Prefix]int{netip.MustParsePrefix("10.0.0.0/8"): 1 << 25}}, problems{"Config.Networks": large}, "at most 16777216", "no overflow"},
		{ratelimit.Config{Networks: map[netip.Prefix]int{netip.MustParsePrefix("10.1.0.0/8"): 1, netip.MustParsePrefix("10.2.0.0/8"): 2}}, problems{"Config.Networks": malformed}, "the same network", "which of them would count?"},
		{ratelimit.Config{Limit: 10, MaxAttempts: 9}, problems{"Config.MaxAttempts": small}, "at least Config.Limit", "would make Limit unreachable"},
		{ratelimit.Config{Limit: 10, MaxOpen: 9}, problems{"Config.MaxOpen": small}, "at least Config.Limit", "would make Limit unreachable"},
		{ratelimit.Config{Window: 60}, problems{"Config.Window": small}, "at least 1ms", "60 nanoseconds were meant as seconds"},
		{ratelimit.Config{Window: 367 * 24 * time.Hour}, problems{"Config.Window": large}, "at most 8784h0m0s", "more than a year"},
		{ratelimit.Config{Limit: 1 << 60}, problems{"Config.Limit": large}, "at most 16777216", "no overflow of the defaults that follow from it"},
		{ratelimit.Config{Penalty: ratelimit.Penalty{Block: time.Hour}}, problems{"Penalty.Failures": missing}, "is required", "would never come into force"},
		{ratelimit.Config{Penalty: ratelimit.Penalty{Failures: -1, Within: -1, Block: -1, MaxBlock: -1}}, problems{
			"Penalty.Failures": small, "Penalty.Within": small, "Penalty.Block": small, "Penalty.MaxBlock": small}, "", "all problems at once"},
		{ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 1, Block: time.Hour, MaxBlock: time.Minute}},
			problems{"Penalty.MaxBlock": small}, "at least Penalty.Block", "shorter than the first block"},
		{ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 1, Block: 48 * time.Hour}}, nil, "", "MaxBlock follows Block"},
	} {
		l, err := ratelimit.New(test.config)
		if (l == nil) != (err != nil) {
			t.Errorf("%s: New returned %v, %v", test.why, l, err)
		}
		got := make(problems)
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				var c *ratelimit.ConfigError
				var reason ratelimit.ConfigReason
				if !errors.As(e, &c) || !errors.As(e, &reason) || !strings.HasPrefix(e.Error(), "ratelimit: "+c.Field+" "+string(reason)) {
					t.Errorf("%s: %#v is no ConfigError with a reason", test.why, e)
					continue
				}
				got[c.Field] = reason
			}
		}
		if !maps.Equal(got, test.want) {
			t.Errorf("%s: problems with %v, want %v", test.why, got, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v, want %q in it", test.why, err, test.text)
		}
	}
}
