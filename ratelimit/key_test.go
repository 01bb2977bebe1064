package ratelimit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/ratelimit"
)

// get sends one request to h, and returns the response.
func get(h http.Handler, remote string, header ...string) *http.Response {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = remote
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func id(s string) ratelimit.Key { return ratelimit.Key{ID: s} }

func TestKeys(t *testing.T) {
	six := netip.MustParseAddr("2001:db8:1:2::3")
	for _, test := range []struct {
		a, b ratelimit.Key
		same bool
		why  string
	}{
		{id("tenant-1"), id("tenant-1"), true, "one account"},
		{id("tenant-1"), id("tenant-2"), false, "two accounts"},
		{id("tenant-1"), id("Tenant-1"), false, "the caller says what is equal"},
		{id("192.0.2.1"), ratelimit.Key{Addr: alice}, false, "an ID that looks like an address"},
		{id(strings.Repeat("x", 1<<20)), id(strings.Repeat("x", 1<<20) + "y"), false, "every byte counts"},
		{ratelimit.Key{}, ratelimit.Key{}, true, "without an address"},
		{ratelimit.Key{}, id(" "), false, "an ID is not empty"},
		{ratelimit.Key{Addr: alice, ID: "a"}, ratelimit.Key{Addr: alice, ID: "a"}, true, "an account at an address"},
		{ratelimit.Key{Addr: alice, ID: "a"}, ratelimit.Key{Addr: bob, ID: "a"}, false, "at another address"},
		{ratelimit.Key{Addr: alice, ID: "a"}, ratelimit.Key{Addr: alice, ID: "b"}, false, "another at this address"},
		{ratelimit.Key{Addr: alice, ID: "a"}, id("a"), false, "at any address"},
		{ratelimit.Key{Addr: six, ID: "a"}, ratelimit.Key{Addr: six.Next(), ID: "a"}, true, "addresses are folded here too"},
	} {
		l := newLimiter(t, ratelimit.Config{Limit: 1, Penalty: ratelimit.Penalty{Failures: 1}})
		l.Admit(test.a)
		if _, d := l.Admit(test.b); d.Allowed == test.same {
			t.Errorf("%s: %+v", test.why, d)
		}
		l.Fail(test.a)
		if _, blocked := l.BlockedUntil(test.b); blocked != test.same {
			t.Errorf("%s: penalized %v", test.why, blocked)
		}
		if l.Forgive(test.b); test.same != (l.Stats().Failing == 0) {
			t.Errorf("%s: forgiven %v", test.why, !test.same)
		}
	}
}

// TestUnblockSparesIDs lifts the penalties of all addresses. Those of accounts
// have no address and stay, whatever their hash looks like.
func TestUnblockSparesIDs(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 1}})
	for i := range 1000 {
		l.Fail(id(fmt.Sprint(i)))
	}
	l.Fail(ratelimit.Key{Addr: alice})
	l.Unblock(netip.MustParsePrefix("::/0"))
	l.Unblock(netip.MustParsePrefix("0.0.0.0/0"))
	if got := l.Stats().Failing; got != 1000 {
		t.Errorf("%d of 1000 accounts are penalized still", got)
	}
}

func TestCrowdedIDs(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1 << 20, MaxKeys: 1})
	l.Admit(id("known"))
	if _, d := l.Admit(id("unknown")); !d.Coarse || d.Client.IsValid() {
		t.Errorf("%+v", d)
	}
	if _, d := l.Admit(ratelimit.Key{Addr: alice, ID: "unknown"}); !d.Coarse || d.Client.String() != "192.0.2.0/24" {
		t.Errorf("with an address: %+v", d)
	}
	if _, d := l.Admit(id("known")); d.Coarse {
		t.Errorf("%+v", d)
	}
	for i := range 100_000 {
		l.Admit(id(fmt.Sprint(i)))
	}
	if got := l.Stats().Clients; got > 1026 {
		t.Errorf("%d buckets", got)
	}
}

// TestIDsAreNotKept counts long IDs, of which nothing but a hash may stay.
func TestIDsAreNotKept(t *testing.T) {
	const keys = 50_000
	before := heap()
	l := newLimiter(t, ratelimit.Config{})
	for i := range keys {
		l.Admit(id(fmt.Sprintf("%0512d", i)))
	}
	if perKey := float64(heap()-before) / keys; perKey > 64 {
		t.Errorf("%.1f bytes an ID, want at most 64", perKey)
	}
	if got := l.Stats().Clients; got != keys {
		t.Errorf("%d keys known, want %d", got, keys)
	}
	runtime.KeepAlive(l)
}

// TestHandlerKey counts requests by a checked API key, and others by address.
func TestHandlerKey(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 2, Count: ratelimit.CountRequests, Key: func(r *http.Request) (ratelimit.Key, bool) {
		key := r.Header.Get("X-API-Key")
		return id(key), strings.HasPrefix(key, "good")
	}})
	h := l.Handler(http.NotFoundHandler())
	for _, test := range []struct {
		remote, key string
		want        int
		why         string
	}{
		{"192.0.2.1:1", "good-1", 404, "first of two"},
		{"198.51.100.7:1", "good-1", 404, "from another address"},
		{"203.0.113.1:1", "good-1", 429, "from a third"},
		{"203.0.113.1:1", "good-2", 404, "another key"},
		{"203.0.113.1:1", "bad-1", 404, "a wrong key counts for the address"},
		{"203.0.113.1:1", "bad-2", 404, "and so does another"},
		{"203.0.113.1:1", "bad-3", 429, "so inventing keys is no way out"},
		{"203.0.113.1:1", "", 429, "nor is none"},
		{"203.0.113.1:1", "good-2", 404, "while the good key has room"},
	} {
		if got := get(h, test.remote, "X-API-Key", test.key).StatusCode; got != test.want {
			t.Errorf("%s: %d, want %d", test.why, got, test.want)
		}
	}
	if err := l.Block(netip.MustParsePrefix("203.0.113.0/24"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := get(h, "203.0.113.1:1", "X-API-Key", "good-3").StatusCode; got != 403 {
		t.Errorf("a blocked address with a good key: %d", got)
	}
	if got := get(h, "192.0.2.1:1", "X-API-Key", "good-3").StatusCode; got != 404 {
		t.Errorf("the same key from elsewhere: %d", got)
	}
}

// TestOnRejectOfIDs refuses two accounts that have no address. Each must be
// told of, with its own count.
func TestOnRejectOfIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var counts []uint64
		l := newLimiter(t, ratelimit.Config{Limit: 1, Count: ratelimit.CountRequests,
			Key: func(r *http.Request) (ratelimit.Key, bool) { return id(r.Header.Get("X-API-Key")), true },
			OnReject: func(_ *http.Request, _ ratelimit.Decision, suppressed uint64) {
				mu.Lock()
				defer mu.Unlock()
				counts = append(counts, suppressed)
			}})
		h := l.Handler(http.NotFoundHandler())
		for range 1 + 10 + 3 { // one is admitted, and ten are told at once
			get(h, "192.0.2.1:1", "X-API-Key", "a")
		}
		for range 1 + 5 {
			get(h, "192.0.2.1:1", "X-API-Key", "b")
		}
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(counts) != 12 || counts[10]+counts[11] != 2+4 {
			t.Errorf("told of %v", counts)
		}
	})
}

// TestCountRequests finishes each request before the next. It still counts.
func TestCountRequests(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 3, Count: ratelimit.CountRequests})
	for i := range 5 {
		slot, d := l.AdmitAt(alice, start)
		if d.Allowed != (i < 3) || !d.Allowed && (d.Reason != ratelimit.ReasonLimit || d.RetryAfter != time.Minute) {
			t.Errorf("request %d: %+v", i, d)
		}
		slot.Release()
	}
	if st := l.StatsAt(start); st.Open != 0 {
		t.Errorf("%d requests are served still", st.Open)
	}
	if _, d := l.AdmitAt(alice, start.Add(time.Minute)); !d.Allowed || d.Remaining != 2 {
		t.Errorf("in the next window: %+v", d)
	}
	// Requests that last for many windows are bound by MaxOpen.
	l = newLimiter(t, ratelimit.Config{Limit: 3, MaxOpen: 4, Count: ratelimit.CountRequests})
	slots, _ := admit(l, alice, start, 3)
	more, d := admit(l, alice, start.Add(time.Minute), 3)
	if len(slots)+len(more) != 4 || d.Reason != ratelimit.ReasonOpen {
		t.Errorf("%d served at once, then %+v", len(slots)+len(more), d)
	}
}

// TestRequestsAreNotWrapped checks what a handler of ordinary requests gets,
// and that the limiter does not allocate for it.
func TestRequestsAreNotWrapped(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1 << 20, Count: ratelimit.CountRequests})
	var w http.ResponseWriter = liar{httptest.NewRecorder()}
	r := httptest.NewRequest("GET", "/", nil)
	h := l.Handler(http.HandlerFunc(func(got http.ResponseWriter, _ *http.Request) {
		if got != w {
			t.Error("the ResponseWriter is wrapped")
		}
	}))
	if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	panicking := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	func() {
		defer func() { _ = recover() }()
		panicking.ServeHTTP(w, r)
	}()
	if got := l.Stats().Open; got != 0 {
		t.Errorf("%d requests are served still", got)
	}
}

func TestNetworks(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{
		Limit: 10, MaxTotal: 600, Penalty: ratelimit.Penalty{Failures: 1},
		Networks: map[netip.Prefix]int{
			netip.MustParsePrefix("203.0.113.0/24"):        500, // a venue
			netip.MustParsePrefix("203.0.113.7/32"):        3,
			netip.MustParsePrefix("2001:db8:5::/48"):       20,
			netip.MustParsePrefix("::ffff:198.18.0.0/112"): -1,
		},
	})
	at := func(addr string, n int) (admitted int, d ratelimit.Decision) {
		slots, d := admit(l, netip.MustParseAddr(addr), start, n)
		return len(slots), d
	}
	for _, test := range []struct {
		addr          string
		ask, admitted int
		client        string
		limit         int
		reason        ratelimit.Reason
		why           string
	}{
		{"203.0.113.1", 300, 300, "203.0.113.0/24", 500, "", "the eleventh phone of the venue"},
		{"::ffff:203.0.113.9", 300, 200, "203.0.113.0/24", 500, ratelimit.ReasonLimit, "the whole network is one client"},
		{"203.0.113.7", 10, 3, "203.0.113.7/32", 3, ratelimit.ReasonLimit, "the longest prefix counts"},
		{"203.0.112.1", 11, 10, "203.0.112.1/32", 10, ratelimit.ReasonLimit, "a neighbour has the limit of others"},
		{"2001:db8:5:1::1", 15, 15, "2001:db8:5::/48", 20, "", "an office with many /64s"},
		{"2001:db8:5:2::1", 15, 5, "2001:db8:5::/48", 20, ratelimit.ReasonLimit, "is one client"},
		{"198.18.0.5", 100, 600 - 533, "198.18.0.0/16", 0, ratelimit.ReasonTotal, "no limit but MaxTotal"},
	} {
		got, d := at(test.addr, test.ask)
		if got != test.admitted || d.Client.String() != test.client || d.Limit != test.limit || d.Reason != test.reason {
			t.Errorf("%s: admitted %d, then %+v", test.why, got, d)
		}
	}
	// A guess by one visitor bars that visitor alone.
	l.FailAt(netip.MustParseAddr("2001:db8:5:1::1"), start)
	later := start.Add(time.Minute)
	if _, d := l.AdmitAt(netip.MustParseAddr("2001:db8:5:1::2"), later); d.Reason != ratelimit.ReasonPenalty {
		t.Errorf("the visitor that failed: %+v", d)
	}
	if _, d := l.AdmitAt(netip.MustParseAddr("2001:db8:5:2::1"), later); d.Reason == ratelimit.ReasonPenalty {
		t.Errorf("another visitor: %+v", d)
	}
}

// TestNetworkBeyondMaxKeys asks for a network that the limiter does not know
// when it knows MaxKeys others. It must count as one client all the same, and
// not as one for each /24 in it.
func TestNetworkBeyondMaxKeys(t *testing.T) {
	network := netip.MustParsePrefix("203.0.0.0/16")
	l := newLimiter(t, ratelimit.Config{Limit: 2, MaxKeys: 1, Networks: map[netip.Prefix]int{network: 5}})
	admit(l, alice, start, 1)
	first, _ := admit(l, netip.MustParseAddr("203.0.1.1"), start, 3)
	second, d := admit(l, netip.MustParseAddr("203.0.2.1"), start, 3)
	if len(first) != 3 || len(second) != 2 || d.Client != network || d.Coarse {
		t.Errorf("%d and %d admitted, then %+v", len(first), len(second), d)
	}
}

// TestNetworkProportions expects MaxAttempts and MaxOpen to grow with a limit.
func TestNetworkProportions(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 10, MaxAttempts: 20, MaxOpen: 30, Networks: map[netip.Prefix]int{netip.PrefixFrom(alice, 32): 100}})
	attempts := 0
	for {
		slot, d := l.AdmitAt(alice, start)
		if slot.Release(); d.Reason == ratelimit.ReasonAttempts {
			break
		}
		attempts++
	}
	open := 0
	for w := 1; ; w++ {
		slots, d := admit(l, alice, start.Add(time.Duration(w)*time.Minute), 101)
		if open += len(slots); d.Reason == ratelimit.ReasonOpen {
			break
		}
	}
	if attempts != 200 || open != 300 {
		t.Errorf("%d attempts and %d open, want 200 and 300", attempts, open)
	}
}

func TestPrefixLengths(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1, MaxKeys: 3, PrefixV4: 20, PrefixV6: 44, Penalty: ratelimit.Penalty{Failures: 1}})
	for _, test := range []struct {
		addr, client string
		allowed      bool
	}{
		{"192.0.2.1", "192.0.0.0/20", true},
		{"192.0.15.255", "192.0.0.0/20", false},
		{"::ffff:192.0.3.1", "192.0.0.0/20", false},
		{"2001:db8:10::1", "2001:db8:10::/44", true},
		{"2001:db8:1f:ffff::1", "2001:db8:10::/44", false},
		{"2001:db8:20::1", "2001:db8:20::/44", true},
		{"198.51.100.7", "198.51.96.0/20", true}, // crowded, and never finer than the client
	} {
		if _, d := l.AdmitAt(netip.MustParseAddr(test.addr), start); d.Allowed != test.allowed || d.Client.String() != test.client {
			t.Errorf("%s: %+v", test.addr, d)
		}
	}
	l.FailAt(alice, start)
	if !l.Unblock(netip.MustParsePrefix("192.0.9.1/32")) {
		t.Error("a penalty of the client is not found by another of its addresses")
	}
}

func TestSkip(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1, Count: ratelimit.CountRequests,
		Skip:    func(r *http.Request) bool { return r.Method == http.MethodOptions },
		Observe: func(r *http.Request, _ ratelimit.Decision) { t.Helper(); mustGet(t, r) }})
	h := l.Handler(http.NotFoundHandler())
	for range 5 {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(http.MethodOptions, "/", nil)); w.Code != 404 {
			t.Errorf("skipped: %d", w.Code)
		}
	}
	if a, b := get(h, "192.0.2.1:1").StatusCode, get(h, "192.0.2.1:1").StatusCode; a != 404 || b != 429 {
		t.Errorf("not skipped: %d, %d", a, b)
	}
}

func mustGet(t *testing.T, r *http.Request) {
	if r.Method != http.MethodGet {
		t.Errorf("observed %s", r.Method)
	}
}

// TestAll decides by address and by account at once. What one of them refuses
// must not count for the other.
func TestAll(t *testing.T) {
	reasons := make(map[string]int)
	observe := func(who string) func(*http.Request, ratelimit.Decision) {
		return func(_ *http.Request, d ratelimit.Decision) { reasons[who+string(d.Reason)]++ }
	}
	address := newLimiter(t, ratelimit.Config{Name: "address", Limit: 10, MaxAttempts: 10, Count: ratelimit.CountRequests, Fields: 11, Observe: observe("address ")})
	account := newLimiter(t, ratelimit.Config{Name: "account", Limit: 4, Count: ratelimit.CountRequests, Fields: 11, Observe: observe("account "),
		Key: func(r *http.Request) (ratelimit.Key, bool) { return id(r.Header.Get("Account")), true }})
	h := ratelimit.All(address, account)(http.NotFoundHandler())

	for range 4 {
		resp := get(h, "192.0.2.1:1", "Account", "a")
		if got := resp.Header.Get("RateLimit-Policy"); resp.StatusCode != 404 || got != `"address";q=10;w=60, "account";q=4;w=60` {
			t.Errorf("admitted: %d, %q", resp.StatusCode, got)
		}
	}
	for range 50 {
		resp := get(h, "192.0.2.1:1", "Account", "a")
		if got := resp.Header.Get("RateLimit-Policy"); resp.StatusCode != 429 || got != `"account";q=4;w=60` {
			t.Fatalf("fifth of four: %d, %q", resp.StatusCode, got)
		}
	}
	// Six of ten are left at the address: fifty refusals took none, neither of
	// Limit nor of MaxAttempts.
	for i := range 8 {
		want := 404
		if i >= 6 {
			want = 429
		}
		if got := get(h, "192.0.2.1:1", "Account", fmt.Sprint(i)).StatusCode; got != want {
			t.Errorf("account %d: %d, want %d", i, got, want)
		}
	}
	// The account that the address refused has all of its four.
	for i := range 5 {
		if got := get(h, fmt.Sprintf("198.51.100.%d:1", i), "Account", "7").StatusCode; (got == 404) != (i < 4) {
			t.Errorf("request %d of account 7: %d", i, got)
		}
	}
	if address.Stats().Open != 0 || account.Stats().Open != 0 {
		t.Error("requests are served still")
	}
	if reasons["account limit"] != 51 || reasons["address attempts"] != 2 || reasons["address "] != 4+50+6+5 {
		t.Errorf("observed %v", reasons)
	}
}

// TestAllTotal refuses by the second limiter. The place in the bound for all
// clients of the first must be free again.
func TestAllTotal(t *testing.T) {
	first := newLimiter(t, ratelimit.Config{MaxTotal: 1})
	second := newLimiter(t, ratelimit.Config{Process: rate.NewLimiter(0, 0)})
	h := ratelimit.All(first, second)(http.NotFoundHandler())
	for range 20 {
		if got := get(h, "192.0.2.1:1").StatusCode; got != 429 {
			t.Fatalf("%d, want the refusal of the second", got)
		}
	}
	if st := first.Stats(); st.Open != 0 {
		t.Errorf("%+v", st)
	}
}

// TestPanicReleases has a func of the caller panic at every place. No slot may
// stay held.
func TestPanicReleases(t *testing.T) {
	bad := func(*http.Request) bool { panic("skip") }
	for why, second := range map[string]ratelimit.Config{
		"Skip":     {Skip: bad},
		"Key":      {Key: func(*http.Request) (ratelimit.Key, bool) { panic("key") }},
		"ClientIP": {ClientIP: func(*http.Request) netip.Addr { panic("address") }},
		"Observe":  {Observe: func(*http.Request, ratelimit.Decision) { panic("observe") }},
		"Body": {Process: rate.NewLimiter(0, 0), Body: func(*http.Request, ratelimit.Decision) (string, string) {
			panic("body")
		}},
	} {
		for _, count := range []ratelimit.Count{ratelimit.CountConnections, ratelimit.CountRequests} {
			second.Count = count
			limiters := []*ratelimit.Limiter{newLimiter(t, ratelimit.Config{Count: count}), newLimiter(t, second)}
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: nothing panics", why)
					}
				}()
				get(ratelimit.All(limiters...)(http.NotFoundHandler()), "192.0.2.1:1")
			}()
			for i, l := range limiters {
				if got := l.Stats().Open; got != 0 {
					t.Errorf("%s: %d held of limiter %d", why, got, i)
				}
			}
		}
	}
}

// TestNested lets two handlers append to each other's fields.
func TestNested(t *testing.T) {
	minute := newLimiter(t, ratelimit.Config{Name: "minute", Limit: 2, Count: ratelimit.CountRequests, Fields: 11})
	hour := newLimiter(t, ratelimit.Config{Name: "hour", Limit: 100, Window: time.Hour, Count: ratelimit.CountRequests, Fields: 11})
	h := hour.Handler(minute.Handler(http.NotFoundHandler()))
	for i, want := range []string{`"hour";r=99;t=3600, "minute";r=1;t=60`, `"hour";r=98;t=3600, "minute";r=0;t=60`, `"hour";r=97;t=3600, "minute";r=0;t=60`} {
		resp := get(h, "192.0.2.1:1")
		if got := resp.Header.Values("RateLimit"); len(got) != 1 || got[0] != want || (resp.StatusCode == 429) != (i == 2) {
			t.Errorf("request %d: %d, %q, want %q", i, resp.StatusCode, got, want)
		}
		if got := resp.Header.Get("RateLimit-Policy"); got != `"hour";q=100;w=3600, "minute";q=2;w=60` {
			t.Errorf("request %d: %q", i, got)
		}
	}
}

func TestBody(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1, Count: ratelimit.CountRequests, ProblemJSON: true,
		Body: func(r *http.Request, d ratelimit.Decision) (string, string) {
			return "application/json", fmt.Sprintf(`{"path":%q,"error":"too many","limit":%d}`, r.URL.Path, d.Limit)
		}})
	h := l.Handler(http.NotFoundHandler())
	get(h, "192.0.2.1:1")
	r := httptest.NewRequest("GET", "/v1/orders", nil)
	w := httptest.NewRecorder()
	w.Header().Set("Content-Length", "5")
	w.Header().Set("ETag", `"page"`)
	h.ServeHTTP(w, r)
	if w.Code != 429 || w.Body.String() != `{"path":"/v1/orders","error":"too many","limit":1}` || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
	if w.Header().Get("Retry-After") == "" || w.Header().Get("Content-Length") != "" || w.Header().Get("ETag") != "" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", w.Header())
	}
}
