package ratelimit_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/ratelimit"
)

// others is a Shared whose answers the test sets.
type others struct {
	taken ratelimit.Taken
	err   error
	until time.Time // of Fail; zero: not blocked

	asked  []ratelimit.Client
	rules  ratelimit.Rules
	ctx    context.Context
	given  []bool // with undo
	fails  int
	calls  []string
	change func(ratelimit.SharedChange)
}

func (o *others) Take(ctx context.Context, c ratelimit.Client, r ratelimit.Rules) (ratelimit.Taken, func(bool), error) {
	o.asked, o.rules, o.ctx = append(o.asked, c), r, ctx
	if o.err == nil && o.taken.Reason != ratelimit.ReasonNone {
		return o.taken, nil, nil
	}
	return o.taken, func(undo bool) { o.given = append(o.given, undo) }, o.err
}

func (o *others) Fail(context.Context, ratelimit.Client, ratelimit.Penalty) (time.Time, bool, error) {
	o.fails++
	return o.until, !o.until.IsZero(), o.err
}

func (o *others) Forgive(c ratelimit.Client) {
	o.calls = append(o.calls, "forgive "+c.Network.String())
}

func (o *others) Block(_ context.Context, network netip.Prefix, _ time.Time) error {
	o.calls = append(o.calls, "block "+network.String())
	return o.err
}

func (o *others) Unblock(_ context.Context, network netip.Prefix) error {
	o.calls = append(o.calls, "unblock "+network.String())
	return o.err
}

func (o *others) Follow(apply func(ratelimit.SharedChange)) { o.change = apply }

// A refusal by the others leaves nothing behind in this process, and is
// repeated without asking until RetryAfter, or for a second.
func TestSharedRefusal(t *testing.T) {
	for _, row := range []struct {
		why      string
		taken    ratelimit.Taken
		repeated time.Duration
		want     ratelimit.Decision
	}{
		{"the window ends later", ratelimit.Taken{Reason: ratelimit.ReasonLimit, RetryAfter: 40 * time.Second, Reset: 40 * time.Second}, time.Second,
			ratelimit.Decision{RetryAfter: 40 * time.Second, Reset: 40 * time.Second}},
		{"the window ends soon", ratelimit.Taken{Reason: ratelimit.ReasonAttempts, RetryAfter: 300 * time.Millisecond, Reset: 300 * time.Millisecond}, 300 * time.Millisecond,
			ratelimit.Decision{RetryAfter: 300 * time.Millisecond, Reset: 300 * time.Millisecond}},
		{"a connection may end at any time", ratelimit.Taken{Reason: ratelimit.ReasonOpen, Reset: 40 * time.Second}, time.Second,
			ratelimit.Decision{RetryAfter: time.Minute, Reset: 40 * time.Second}},
		{"a penalty has no window", ratelimit.Taken{Reason: ratelimit.ReasonPenalty, RetryAfter: time.Hour}, time.Second,
			ratelimit.Decision{RetryAfter: time.Hour}},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := &others{taken: row.taken}
			l := newLimiter(t, ratelimit.Config{Shared: o, MaxTotal: 5, Process: rate.NewLimiter(0, 1)})
			row.want.Reason, row.want.Client, row.want.Limit = row.taken.Reason, ratelimit.Fold(alice), 10
			for range 20 {
				slot, d := l.Admit(ratelimit.Key{Addr: alice})
				if d != row.want || slot.Release() {
					t.Fatalf("%s: %+v\nwant %+v", row.why, d, row.want)
				}
			}
			if len(o.asked) != 1 || l.Stats().Open != 0 {
				t.Errorf("%s: asked %d times, %d open", row.why, len(o.asked), l.Stats().Open)
			}
			time.Sleep(row.repeated - 1)
			if _, d := l.Admit(ratelimit.Key{Addr: alice}); len(o.asked) != 1 || d.Reason != row.taken.Reason || d.RetryAfter != min(time.Minute, row.want.RetryAfter-row.repeated+1) &&
				row.taken.Reason != ratelimit.ReasonOpen && row.taken.Reason != ratelimit.ReasonPenalty {
				t.Errorf("%s: after %v asked %d times: %+v", row.why, row.repeated-1, len(o.asked), d)
			}
			time.Sleep(time.Nanosecond)
			o.taken = ratelimit.Taken{Remaining: 3, Reset: time.Second}
			// The token is still there: the refusals have taken none.
			if _, d := l.Admit(ratelimit.Key{Addr: alice}); !d.Allowed || d.Remaining != 3 || d.Reset != time.Second || len(o.asked) != 2 {
				t.Errorf("%s: after the refusal, asked %d times: %+v", row.why, len(o.asked), d)
			}
		})
	}
}

// What this process refuses by itself, or lets share a bucket, never reaches
// the others.
func TestNotAsked(t *testing.T) {
	o := &others{}
	office := netip.MustParsePrefix("203.0.113.0/24")
	l := newLimiter(t, ratelimit.Config{Shared: o, Limit: 2, MaxKeys: 2, Networks: map[netip.Prefix]int{office: -1},
		Penalty: ratelimit.Penalty{Failures: 1}})
	key := ratelimit.Key{Addr: alice}
	for range 100 {
		l.Admit(key)
	}
	if len(o.asked) != 2 {
		t.Errorf("asked %d times, want once for each that this process admits", len(o.asked))
	}
	if err := l.Block(netip.MustParsePrefix("198.51.100.0/24"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	l.Admit(ratelimit.Key{Addr: bob})
	l.Admit(ratelimit.Key{Addr: office.Addr()})
	l.Admit(ratelimit.Key{Addr: netip.MustParseAddr("192.0.2.77")})
	if _, d := l.Admit(ratelimit.Key{Addr: netip.MustParseAddr("192.0.2.78")}); !d.Coarse || d.Local {
		t.Errorf("%+v", d)
	}
	o.until = time.Now().Add(time.Hour)
	if _, blocked := l.Fail(key); !blocked {
		t.Error("not blocked")
	}
	l.Fail(key)
	if _, d := l.Admit(key); d.Reason != ratelimit.ReasonPenalty {
		t.Errorf("%+v", d)
	}
	if len(o.asked) != 2 || o.fails != 1 {
		t.Errorf("asked %d times, and %d times about a failure", len(o.asked), o.fails)
	}
}

// The others get what names the client everywhere, and its limits.
func TestSharedClient(t *testing.T) {
	office := netip.MustParsePrefix("203.0.113.0/24")
	for _, row := range []struct {
		why  string
		key  ratelimit.Key
		want ratelimit.Client
		open int
	}{
		{"an address", ratelimit.Key{Addr: alice}, ratelimit.Client{Network: ratelimit.Fold(alice)}, 50},
		{"an IPv6 network", ratelimit.Key{Addr: netip.MustParseAddr("2001:db8::7")}, ratelimit.Client{Network: netip.MustParsePrefix("2001:db8::/64")}, 50},
		{"an ID", ratelimit.Key{ID: "carol"}, ratelimit.Client{ID: "carol"}, 50},
		{"an ID at an address", ratelimit.Key{Addr: alice, ID: "carol"}, ratelimit.Client{Network: ratelimit.Fold(alice), ID: "carol"}, 50},
		{"a network with a limit of its own", ratelimit.Key{Addr: office.Addr().Next()}, ratelimit.Client{Network: office, Group: true}, 100},
		{"an ID in it", ratelimit.Key{Addr: office.Addr(), ID: "carol"}, ratelimit.Client{Network: ratelimit.Fold(office.Addr()), ID: "carol"}, 50},
		{"no address", ratelimit.Key{}, ratelimit.Client{}, 50},
	} {
		o := &others{}
		l := newLimiter(t, ratelimit.Config{Shared: o, Count: ratelimit.CountRequests, Networks: map[netip.Prefix]int{office: 20}, Penalty: ratelimit.Penalty{Failures: 3}})
		l.Check(row.key)
		want := ratelimit.Rules{Limit: row.open / 5, MaxAttempts: row.open * 6 / 5, MaxOpen: row.open, Window: time.Minute, Requests: true, Penalty: !row.want.Group, Ask: true}
		if len(o.asked) != 1 || o.asked[0] != row.want || o.rules != want {
			t.Errorf("%s: asked about %+v, %+v", row.why, o.asked, o.rules)
		}
		slot, d := l.Admit(row.key)
		if want.Ask = false; !d.Allowed || o.rules != want {
			t.Errorf("%s: %+v, asked %+v", row.why, d, o.rules)
		}
		if len(o.given) != 0 || !slot.Release() || slot.Release() || !slices.Equal(o.given, []bool{false}) {
			t.Errorf("%s: given back %v", row.why, o.given)
		}
	}
}

// While the others do not answer, the count of this process decides, and each
// decision says so.
func TestLocal(t *testing.T) {
	o := &others{err: errors.New("away")}
	l := newLimiter(t, ratelimit.Config{Shared: o, Limit: 2, Penalty: ratelimit.Penalty{Failures: 2}})
	key := ratelimit.Key{Addr: alice}
	for i := range 3 {
		if _, d := l.Admit(key); d.Allowed != (i < 2) || d.Local != (i < 2) {
			t.Errorf("%d: %+v", i, d)
		}
	}
	if _, blocked := l.Fail(key); blocked {
		t.Error("blocked after one failure")
	}
	if _, blocked := l.Fail(key); !blocked {
		t.Error("not blocked")
	}
	err := l.Block(netip.MustParsePrefix("64:ff9b::c633:6400/120"), time.Time{})
	if !errors.Is(err, ratelimit.ErrLocal) || !errors.Is(err, o.err) {
		t.Errorf("Block: %v", err)
	}
	if d := l.Check(ratelimit.Key{Addr: bob}); d.Reason != ratelimit.ReasonBlocked {
		t.Errorf("%+v", d)
	}
	l.Forgive(key)
	if !l.Unblock(netip.MustParsePrefix("198.51.100.0/24")) {
		t.Error("nothing unblocked")
	}
	if want := []string{"block 198.51.100.0/24", "forgive 192.0.2.1/32", "unblock 198.51.100.0/24"}; !slices.Equal(o.calls, want) {
		t.Errorf("calls %q, want %q", o.calls, want)
	}
	if err := l.Block(netip.Prefix{}, time.Time{}); err == nil || errors.Is(err, ratelimit.ErrLocal) || l.Unblock(netip.Prefix{}) {
		t.Errorf("an invalid network: %v", err)
	}
}

// A token of the process is taken last, and what lacks one is undone.
func TestSharedProcess(t *testing.T) {
	o := &others{}
	l := newLimiter(t, ratelimit.Config{Shared: o, Process: rate.NewLimiter(0, 1)})
	if _, d := l.Admit(ratelimit.Key{Addr: alice}); !d.Allowed {
		t.Errorf("%+v", d)
	}
	if _, d := l.Admit(ratelimit.Key{Addr: alice}); d.Reason != ratelimit.ReasonProcess || len(o.asked) != 1 {
		t.Errorf("asked %d times: %+v", len(o.asked), d)
	}
	// Another goroutine takes the last token while the others decide.
	process := rate.NewLimiter(0, 1)
	o = &others{}
	greedy := &greedy{others: o, process: process}
	l = newLimiter(t, ratelimit.Config{Shared: greedy, Process: process})
	if slot, d := l.Admit(ratelimit.Key{Addr: alice}); d.Reason != ratelimit.ReasonProcess || d.Allowed || slot.Release() || !slices.Equal(o.given, []bool{true}) || l.Stats().Open != 0 {
		t.Errorf("%+v, given back %v", d, o.given)
	}
}

type greedy struct {
	*others
	process *rate.Limiter
}

func (g *greedy) Take(ctx context.Context, c ratelimit.Client, r ratelimit.Rules) (ratelimit.Taken, func(bool), error) {
	g.process.Allow()
	return g.others.Take(ctx, c, r)
}

// A dry run refuses nothing that the others refuse.
func TestSharedDryRun(t *testing.T) {
	o := &others{taken: ratelimit.Taken{Reason: ratelimit.ReasonLimit, RetryAfter: time.Second}}
	l := newLimiter(t, ratelimit.Config{Shared: o, DryRun: true})
	for range 2 {
		if _, d := l.Admit(ratelimit.Key{Addr: alice}); !d.Allowed || d.Reason != ratelimit.ReasonLimit {
			t.Errorf("%+v", d)
		}
	}
}

// Handler passes the context of the request, and a request that another
// limiter refuses is undone.
func TestSharedHandler(t *testing.T) {
	o := &others{}
	first := newLimiter(t, ratelimit.Config{Shared: o})
	second := newLimiter(t, ratelimit.Config{})
	if err := second.Block(netip.MustParsePrefix("192.0.2.0/24"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	type name struct{}
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(context.WithValue(r.Context(), name{}, "the request's"))
	ratelimit.All(first, second)(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
	if o.ctx.Value(name{}) != "the request's" || !slices.Equal(o.given, []bool{true}) {
		t.Errorf("context %v, given back %v", o.ctx, o.given)
	}
	first.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
	if !slices.Equal(o.given, []bool{true, false}) {
		t.Errorf("given back %v", o.given)
	}
}

// What other nodes do is in force here before OnShared is called.
func TestSharedChange(t *testing.T) {
	o := &others{}
	var l *ratelimit.Limiter
	var got []ratelimit.Reason
	l = newLimiter(t, ratelimit.Config{Shared: o, Penalty: ratelimit.Penalty{Failures: 1}, OnShared: func(c ratelimit.SharedChange) {
		got = append(got, l.Check(ratelimit.Key{Addr: c.Network.Addr()}).Reason)
	}})
	network, client := netip.MustParsePrefix("192.0.2.0/24"), ratelimit.Fold(bob)
	o.change(ratelimit.SharedChange{Kind: ratelimit.SharedBlock, Network: network, Until: time.Now().Add(time.Hour)})
	o.change(ratelimit.SharedChange{Kind: ratelimit.SharedUnblock, Network: network})
	o.change(ratelimit.SharedChange{Kind: ratelimit.SharedPenalty, Network: client, Until: time.Now().Add(time.Hour)})
	if until, blocked := l.BlockedUntil(ratelimit.Key{Addr: bob}); !blocked || time.Until(until) > time.Hour {
		t.Errorf("%v until %v", blocked, until)
	}
	o.change(ratelimit.SharedChange{Kind: ratelimit.SharedForgiven, Network: client})
	o.change(ratelimit.SharedChange{Kind: ratelimit.SharedPenalty, Network: client, Until: time.Now().Add(time.Hour)})
	o.change(ratelimit.SharedChange{Kind: ratelimit.SharedUnblock, Network: netip.MustParsePrefix("198.51.100.0/24")})
	want := []ratelimit.Reason{ratelimit.ReasonBlocked, "", ratelimit.ReasonPenalty, "", ratelimit.ReasonPenalty, ""}
	if !slices.Equal(got, want) {
		t.Errorf("decisions %q, want %q", got, want)
	}
	if d := l.Check(ratelimit.Key{Addr: bob}); !d.Allowed {
		t.Errorf("%+v", d)
	}
	if len(o.calls) != 0 {
		t.Errorf("told the others of their own changes: %q", o.calls)
	}
}
