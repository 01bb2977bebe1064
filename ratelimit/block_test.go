package ratelimit_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

func TestBlock(t *testing.T) {
	start := time.Now() // a monotonic reading makes the times exact
	hour := start.Add(time.Hour)
	for _, test := range []struct {
		network, addr string
		until, now    time.Time
		blocked       bool
		why           string
	}{
		{"192.0.2.1/32", "192.0.2.1", hour, start, true, "the address itself"},
		{"192.0.2.1/32", "::ffff:192.0.2.1", hour, start, true, "the same, IPv4-mapped"},
		{"::ffff:192.0.2.0/120", "192.0.2.1", hour, start, true, "a mapped network is an IPv4 network"},
		{"192.0.2.99/24", "192.0.2.1", hour, start, true, "host bits do not matter"},
		{"0.0.0.0/0", "192.0.2.1", hour, start, true, "all of IPv4"},
		{"0.0.0.0/0", "2001:db8::1", hour, start, false, "is not IPv6"},
		{"192.0.2.0/25", "192.0.2.200", hour, start, false, "outside"},
		{"2001:db8::/32", "2001:db8:9::1%eth0", hour, start, true, "a zone is no way out"},
		{"2001:db8::1/128", "2001:db8::2", hour, start, false, "blocks are exact, not folded"},
		{"192.0.2.1/32", "192.0.2.1", hour, hour, false, "over at its time"},
		{"192.0.2.1/32", "192.0.2.1", hour, hour.Add(-1), true, "and not before"},
		{"192.0.2.1/32", "192.0.2.1", time.Time{}, start.AddDate(200, 0, 0), true, "forever"},
	} {
		l := newLimiter(t, ratelimit.Config{})
		if err := l.BlockAt(netip.MustParsePrefix(test.network), test.until, start); err != nil {
			t.Fatal(err)
		}
		addr := netip.MustParseAddr(test.addr)
		_, d := l.AdmitAt(addr, test.now)
		if d.Allowed == test.blocked {
			t.Errorf("%s: admitted %v", test.why, d.Allowed)
		}
		until, blocked := l.BlockedAt(addr, test.now)
		if blocked != test.blocked || blocked && !until.Equal(test.until) {
			t.Errorf("%s: Blocked = %v, %v", test.why, until, blocked)
		}
		if test.blocked && (d.Reason != ratelimit.ReasonBlocked || d.Reason.Status() != 403) {
			t.Errorf("%s: %+v", test.why, d)
		}
		if test.blocked && !test.until.IsZero() && d.RetryAfter != test.until.Sub(test.now) {
			t.Errorf("%s: RetryAfter %v", test.why, d.RetryAfter)
		}
		if !l.Unblock(netip.MustParsePrefix(test.network)) || l.Unblock(netip.MustParsePrefix(test.network)) {
			t.Errorf("%s: not unblocked exactly once", test.why)
		}
		if _, d := l.AdmitAt(addr, test.now); !d.Allowed {
			t.Errorf("%s: refused after Unblock: %+v", test.why, d)
		}
	}
}

func TestBlockOverlapping(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	for network, until := range map[string]time.Time{
		"192.0.2.0/24": start.Add(time.Hour), "192.0.2.1/32": start.Add(time.Minute), "192.0.0.0/16": start.Add(2 * time.Hour),
	} {
		l.BlockAt(netip.MustParsePrefix(network), until, start)
	}
	if until, _ := l.BlockedAt(alice, start); !until.Equal(start.Add(2 * time.Hour)) {
		t.Errorf("blocked until %v, want the latest", until)
	}
	if got := len(l.BlocksAt(start.Add(90 * time.Minute))); got != 1 {
		t.Errorf("%d blocks listed after the others are over", got)
	}
	for _, bad := range []netip.Prefix{{}, netip.PrefixFrom(alice, 33)} {
		if err := l.Block(bad, start); err == nil || !strings.HasPrefix(err.Error(), "ratelimit: ") || l.StatsAt(start).Blocks != 3 {
			t.Errorf("an invalid prefix: %v, %d blocks", err, l.StatsAt(start).Blocks)
		}
	}
	if l.Unblock(netip.Prefix{}) {
		t.Error("an invalid prefix was unblocked")
	}
}

// TestBlocksAreCleared adds blocks to a list and never removes one. The list
// must not grow without limit.
func TestBlocksAreCleared(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	now := start
	for i := range 10_000 {
		now = now.Add(time.Second)
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		l.BlockAt(netip.PrefixFrom(addr, 32), now.Add(time.Minute), now)
	}
	if got := l.StatsAt(now).Blocks; got > 1000 {
		t.Errorf("%d blocks kept, of which 60 are in force", got)
	}
}

func TestPenalty(t *testing.T) {
	start := time.Now() // a monotonic reading makes the times exact
	l := newLimiter(t, ratelimit.Config{Penalty: ratelimit.Penalty{
		Failures: 3, Within: time.Minute, Block: 10 * time.Minute, MaxBlock: time.Hour,
	}})
	now := start
	if _, blocked := l.FailAt(alice, now); blocked {
		t.Error("blocked by the first failure")
	}
	l.FailAt(alice, now.Add(59*time.Second))
	now = now.Add(time.Minute)
	if _, blocked := l.FailAt(alice, now); blocked {
		t.Error("blocked by failures further apart than Within")
	}
	for _, want := range []time.Duration{10, 20, 40, 60, 60} {
		var until time.Time
		var blocked bool
		for range 3 {
			if _, d := l.AdmitAt(bob, now); d.Reason == ratelimit.ReasonPenalty {
				t.Fatal("another client is blocked")
			}
			until, blocked = l.FailAt(alice, now)
		}
		if again, still := l.FailAt(alice, now.Add(time.Second)); !blocked || !still || !again.Equal(until) {
			t.Errorf("failing while blocked: until %v, then %v", until, again)
		}
		// The failure before the loop counts for the first block.
		if got := until.Sub(now); got != want*time.Minute {
			t.Fatalf("blocked for %v, want %v", got, want*time.Minute)
		}
		_, d := l.AdmitAt(alice, until.Add(-time.Second))
		if d.Reason != ratelimit.ReasonPenalty || d.Reason.Status() != 403 || d.RetryAfter != time.Second {
			t.Errorf("a second before its end: %+v", d)
		}
		if got, blocked := l.BlockedAt(alice, until.Add(-time.Second)); !blocked || !got.Equal(until) {
			t.Errorf("Blocked = %v, %v, want %v", got, blocked, until)
		}
		if now = until; !admitted(l, alice, now) {
			t.Error("blocked after its end")
		}
	}

	now = now.Add(time.Hour) // MaxBlock after the last one: begins anew
	for range 3 {
		if until, blocked := l.FailAt(alice, now); blocked && until.Sub(now) != 10*time.Minute {
			t.Errorf("after a quiet hour: blocked for %v", until.Sub(now))
		}
	}
	if got := l.StatsAt(now).Failing; got != 1 {
		t.Errorf("%d failing clients", got)
	}
	if got := l.StatsAt(now.Add(4 * time.Hour)).Failing; got != 0 {
		t.Errorf("%d failing clients remembered after twice the time", got)
	}
}

func admitted(l *ratelimit.Limiter, addr netip.Addr, now time.Time) bool {
	slot, d := l.AdmitAt(addr, now)
	slot.Release()
	return d.Allowed
}

func TestPenaltyIsLifted(t *testing.T) {
	config := ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 1}}
	six := netip.MustParseAddr("2001:db8:1:2::3")
	for _, test := range []struct {
		lift func(*ratelimit.Limiter) bool
		why  string
	}{
		{func(l *ratelimit.Limiter) bool {
			l.Forgive(ratelimit.Key{Addr: alice})
			l.Forgive(ratelimit.Key{Addr: six})
			return true
		}, "Forgive"},
		{func(l *ratelimit.Limiter) bool {
			return l.Unblock(netip.MustParsePrefix("192.0.2.1/32")) && l.Unblock(netip.MustParsePrefix("2001:db8:1:2::9/128"))
		}, "Unblock of the client"},
		{func(l *ratelimit.Limiter) bool {
			return l.Unblock(netip.MustParsePrefix("192.0.0.0/16")) && l.Unblock(netip.MustParsePrefix("2001:db8::/32"))
		}, "Unblock of a network around it"},
	} {
		l := newLimiter(t, config)
		for _, addr := range []netip.Addr{alice, bob, six, {}} {
			l.FailAt(addr, start)
		}
		if !test.lift(l) {
			t.Errorf("%s: nothing was lifted", test.why)
		}
		if !admitted(l, alice, start) || !admitted(l, six, start) {
			t.Errorf("%s: still blocked", test.why)
		}
		if admitted(l, bob, start) || l.StatsAt(start).Failing != 2 {
			t.Errorf("%s: lifted too much: %+v", test.why, l.StatsAt(start))
		}
	}
}

func TestPenaltyOff(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	for range 100 {
		if _, blocked := l.Fail(ratelimit.Key{Addr: alice}); blocked {
			t.Fatal("blocked without a Penalty")
		}
	}
	if l.Stats().Failing != 0 {
		t.Error("failures remembered without a Penalty")
	}
}

// TestPenaltyIsBounded fails from more addresses than the limiter may remember.
func TestPenaltyIsBounded(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{MaxKeys: 400, Penalty: ratelimit.Penalty{Failures: 2}})
	for i := range 10_000 {
		l.FailAt(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::1", i)), start)
	}
	if got := l.StatsAt(start).Failing; got != 100 {
		t.Errorf("%d failing clients remembered, want MaxKeys/4", got)
	}
	if _, blocked := l.FailAt(netip.MustParseAddr("2001:db8::1"), start); !blocked {
		t.Error("a client that was known before the flood escaped")
	}
}

// TestClockIsSet sets the clock after New, as on a machine without a battery
// that has found its time server. A block that ends at a time of day, without a
// monotonic reading, must still end then, and Blocks must agree.
func TestClockIsSet(t *testing.T) {
	for _, step := range []time.Duration{48 * time.Hour, -48 * time.Hour} {
		l := newLimiter(t, ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 1}})
		l.SetClock(step)
		for addr, until := range map[netip.Addr]time.Time{
			alice: time.Now().Round(0).Add(time.Hour),
			bob:   time.Now().Round(0).Add(-time.Hour),
		} {
			network, want := netip.PrefixFrom(addr, 32), until.After(time.Now())
			if err := l.Block(network, until); err != nil {
				t.Fatal(err)
			}
			_, listed := l.Blocks()[network]
			end, blocked := l.BlockedUntil(ratelimit.Key{Addr: addr})
			_, d := l.Admit(ratelimit.Key{Addr: addr})
			if listed != want || blocked != want || (d.Reason == ratelimit.ReasonBlocked) != want {
				t.Errorf("clock set by %v: listed %v, blocked %v until %v, %+v, want blocked %v", step, listed, blocked, end, d, want)
			}
			if want && (d.RetryAfter <= 0 || d.RetryAfter > time.Hour) {
				t.Errorf("clock set by %v: RetryAfter %v", step, d.RetryAfter)
			}
		}
		until, _ := l.Fail(ratelimit.Key{Addr: bob})
		if left := until.Round(0).Sub(time.Now().Round(0)); left < 0 || left > time.Hour {
			t.Errorf("clock set by %v: a penalty ends in %v", step, left)
		}
	}
}
