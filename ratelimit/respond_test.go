package ratelimit_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/ratelimit"
)

func TestRetryAfter(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	for _, test := range []struct {
		wait     time.Duration
		min, max int
		why      string
	}{
		{1, 1, 1, "rounded up, never 0"},
		{time.Second, 1, 2, "exact"},
		{time.Second + 1, 2, 2, "never too early"},
		{5 * time.Second, 5, 6, "5 seconds are left: not 60"},
		{time.Minute, 60, 66, "at most a tenth more"},
		{time.Hour, 3600, 3610, "at most ten seconds more"},
		{0, -1, -1, "unknown: no header"},
	} {
		seen := make(map[int]bool)
		for range 500 {
			w := httptest.NewRecorder()
			l.Refuse(w, httptest.NewRequest("GET", "/", nil), ratelimit.Decision{Reason: ratelimit.ReasonLimit, RetryAfter: test.wait})
			got := -1
			if v := w.Header().Get("Retry-After"); v != "" {
				got, _ = strconv.Atoi(v)
			}
			if seen[got] = true; got < test.min || got > test.max {
				t.Fatalf("%v: Retry-After %d: %s", test.wait, got, test.why)
			}
		}
		if test.max-test.min > 3 && len(seen) < 3 {
			t.Errorf("%v: always one of %v: not jittered", test.wait, seen)
		}
	}
}

func TestRefuse(t *testing.T) {
	for _, test := range []struct {
		config      ratelimit.Config
		decision    ratelimit.Decision
		status      int
		contentType string
		body        string
	}{
		{ratelimit.Config{}, ratelimit.Decision{Reason: ratelimit.ReasonOpen}, 429, "text/plain; charset=utf-8", "Too Many Requests\n"},
		{ratelimit.Config{}, ratelimit.Decision{Reason: ratelimit.ReasonProcess}, 429, "text/plain; charset=utf-8", "Too Many Requests\n"},
		{ratelimit.Config{}, ratelimit.Decision{Reason: ratelimit.ReasonBlocked, RetryAfter: time.Hour}, 403, "text/plain; charset=utf-8", "Forbidden\n"},
		{ratelimit.Config{}, ratelimit.Decision{Reason: ratelimit.ReasonPenalty}, 403, "text/plain; charset=utf-8", "Forbidden\n"},
		{ratelimit.Config{}, ratelimit.Decision{Reason: ratelimit.ReasonTotal, RetryAfter: time.Minute}, 503, "text/plain; charset=utf-8", "Service Unavailable\n"},
		{ratelimit.Config{}, ratelimit.Decision{}, 429, "text/plain; charset=utf-8", "Too Many Requests\n"},
		{ratelimit.Config{ProblemJSON: true}, ratelimit.Decision{Reason: ratelimit.ReasonLimit}, 429, "application/problem+json",
			`{"type":"about:blank","title":"Too Many Requests","status":429}` + "\n"},
		{ratelimit.Config{ProblemJSON: true}, ratelimit.Decision{Reason: ratelimit.ReasonBlocked}, 403, "application/problem+json",
			`{"type":"about:blank","title":"Forbidden","status":403}` + "\n"},
		{ratelimit.Config{ProblemJSON: true}, ratelimit.Decision{Reason: ratelimit.ReasonTotal, RetryAfter: time.Minute}, 503, "application/problem+json",
			`{"type":"about:blank","title":"Service Unavailable","status":503}` + "\n"},
	} {
		w := httptest.NewRecorder()
		newLimiter(t, test.config).Refuse(w, httptest.NewRequest("GET", "/", nil), test.decision)
		if w.Code != test.status || w.Header().Get("Content-Type") != test.contentType || w.Body.String() != test.body {
			t.Errorf("%+v: %d %q %q", test.decision, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		if test.config.ProblemJSON && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%+v: not JSON", test.decision)
		}
		if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%+v: %v", test.decision, w.Header())
		}
		if test.status == 403 && w.Header().Get("Retry-After") != "" {
			t.Errorf("%+v: a blocked client learns for how long", test.decision)
		}
		if test.status == 503 && w.Header().Get("Retry-After") == "" {
			t.Errorf("%+v: no Retry-After", test.decision)
		}
	}
}

func TestFields(t *testing.T) {
	d := ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 3, Reset: 41*time.Second + 1}
	for _, test := range []struct {
		fields int
		want   map[string]string
	}{
		{0, nil},
		{11, map[string]string{"RateLimit-Policy": `"client";q=10;w=60`, "RateLimit": `"client";r=3;t=42`}},
	} {
		l := newLimiter(t, ratelimit.Config{Fields: test.fields})
		w := httptest.NewRecorder()
		l.Refuse(w, httptest.NewRequest("GET", "/", nil), d)
		for _, name := range []string{"RateLimit-Policy", "RateLimit"} {
			if got := w.Header().Get(name); got != test.want[name] {
				t.Errorf("version %d: %s: %q, want %q", test.fields, name, got, test.want[name])
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Config{Fields: 11})
		w := httptest.NewRecorder()
		l.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if got := w.Header().Get("RateLimit"); got != `"client";r=9;t=60` {
			t.Errorf("admitted: %q", got)
		}
		// The requests of httptest come from 192.0.2.1.
		l.Block(netip.MustParsePrefix("192.0.2.0/24"), time.Time{})
		w = httptest.NewRecorder()
		l.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if got := w.Header().Get("RateLimit"); got != "" || w.Code != 403 {
			t.Errorf("blocked: %d, %q", w.Code, got)
		}
	})
}

// TestFieldsOfReasons checks for every reason, as the limiter decides it, that
// a blocked client learns nothing about limits, and that others learn the
// truth.
func TestFieldsOfReasons(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.1") // as httptest
	for _, test := range []struct {
		reason  ratelimit.Reason
		status  int
		config  ratelimit.Config
		provoke func(*ratelimit.Limiter)
	}{
		{ratelimit.ReasonNone, 404, ratelimit.Config{}, func(*ratelimit.Limiter) {}},
		{ratelimit.ReasonLimit, 429, ratelimit.Config{Limit: 1}, func(l *ratelimit.Limiter) { l.Admit(ratelimit.Key{Addr: client}) }},
		{ratelimit.ReasonAttempts, 429, ratelimit.Config{Limit: 1, MaxAttempts: 1}, func(l *ratelimit.Limiter) { l.Admit(ratelimit.Key{Addr: client}) }},
		{ratelimit.ReasonOpen, 429, ratelimit.Config{Limit: 1, MaxOpen: 1}, func(l *ratelimit.Limiter) { l.Admit(ratelimit.Key{Addr: client}) }},
		{ratelimit.ReasonProcess, 429, ratelimit.Config{Process: rate.NewLimiter(1, 1)}, func(l *ratelimit.Limiter) { l.Admit(ratelimit.Key{Addr: bob}) }},
		{ratelimit.ReasonTotal, 503, ratelimit.Config{MaxTotal: 1}, func(l *ratelimit.Limiter) { l.Admit(ratelimit.Key{Addr: bob}) }},
		{ratelimit.ReasonBlocked, 403, ratelimit.Config{}, func(l *ratelimit.Limiter) { l.Block(netip.PrefixFrom(client, 32), time.Time{}) }},
		{ratelimit.ReasonPenalty, 403, ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 1}}, func(l *ratelimit.Limiter) { l.Fail(ratelimit.Key{Addr: client}) }},
		{ratelimit.ReasonPenalty, 403, ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 1}}, func(l *ratelimit.Limiter) { l.Admit(ratelimit.Key{Addr: client}); l.Fail(ratelimit.Key{Addr: client}) }},
	} {
		config := test.config
		var got ratelimit.Decision
		config.Fields, config.Observe = 11, func(_ *http.Request, d ratelimit.Decision) { got = d }
		l := newLimiter(t, config)
		test.provoke(l)
		w := httptest.NewRecorder()
		l.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if got.Reason != test.reason && !(test.reason == ratelimit.ReasonAttempts && got.Reason == ratelimit.ReasonLimit) || w.Code != test.status {
			t.Errorf("%q: %d, %+v", test.reason, w.Code, got)
		}
		for _, name := range []string{"RateLimit-Policy", "RateLimit"} {
			if value := w.Header().Get(name); (value != "") == (test.status == http.StatusForbidden) {
				t.Errorf("%q: %s: %q", test.reason, name, value)
			}
		}
		if got.Reason != ratelimit.ReasonNone && got.Remaining != 0 || test.status == http.StatusForbidden && got.Reset != 0 {
			t.Errorf("%q: refused with %d remaining, and a reset in %v", test.reason, got.Remaining, got.Reset)
		}
		if after := w.Header().Get("Retry-After"); (after != "") != (test.status == 429 || test.status == 503) {
			t.Errorf("%q: Retry-After %q", test.reason, after)
		}
	}
}

// TestObserver checks that Observe gets every decision, and that OnReject gets
// some refusals and the number of all others. A single attacker is known to
// have caused 169,000 log lines in four hours.
func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		observed := make(map[ratelimit.Reason]int)
		var mu sync.Mutex
		var lines int
		var suppressed uint64
		l := newLimiter(t, ratelimit.Config{
			Limit:   1,
			Observe: func(_ *http.Request, d ratelimit.Decision) { observed[d.Reason]++ },
			OnReject: func(r *http.Request, d ratelimit.Decision, n uint64) {
				if r.URL.Path != "/ws" || d.Reason != ratelimit.ReasonLimit || d.Allowed {
					t.Errorf("reported: %s %+v", r.URL, d)
				}
				mu.Lock()
				defer mu.Unlock()
				lines++
				suppressed += n
			},
		})
		held, _ := l.Admit(ratelimit.Key{Addr: netip.MustParseAddr("192.0.2.1")}) // as httptest
		h := l.Handler(http.NotFoundHandler())
		for range 30 {
			for range 100 {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/ws", nil))
			}
			time.Sleep(time.Second)
		}
		if observed[ratelimit.ReasonLimit] != 3000 {
			t.Errorf("observed %v, want 3000", observed)
		}
		// Ten calls at once, then one in each of 29 further seconds. The last
		// 99 refusals are not reported yet.
		mu.Lock()
		if lines != 39 || suppressed+99 != 3000-39 {
			t.Errorf("%d lines that speak of %d more", lines, suppressed)
		}
		mu.Unlock()
		held.Release()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/ws", nil))
		if observed[ratelimit.ReasonNone] != 1 {
			t.Errorf("observed %v, want one admitted", observed)
		}
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if lines != 40 || suppressed != 3000-40 {
			t.Errorf("in the end, %d lines that speak of %d more", lines, suppressed)
		}
	})
}

func TestObserverEvery(t *testing.T) {
	lines := 0
	l := newLimiter(t, ratelimit.Config{
		Limit: 1, DryRun: true, RejectEvery: -1,
		OnReject: func(_ *http.Request, d ratelimit.Decision, n uint64) {
			if lines++; n != 0 || !d.Allowed {
				t.Errorf("reported: %+v, %d more", d, n)
			}
		},
	})
	l.Admit(ratelimit.Key{Addr: netip.MustParseAddr("192.0.2.1")})
	for range 50 {
		w := httptest.NewRecorder()
		if l.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/ws", nil)); w.Code != 404 {
			t.Fatalf("a dry run refused: %d", w.Code)
		}
	}
	if lines != 50 {
		t.Errorf("%d lines, want all 50", lines)
	}
}

// TestTime calls the methods that use the clock of the process.
func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, ratelimit.Config{Limit: 1, Penalty: ratelimit.Penalty{Failures: 1, Block: time.Minute}})
		l.Admit(ratelimit.Key{Addr: alice})
		if _, d := l.Admit(ratelimit.Key{Addr: alice}); d.Allowed {
			t.Error("second of one admitted")
		} else {
			time.Sleep(d.RetryAfter)
		}
		if _, d := l.Admit(ratelimit.Key{Addr: alice}); !d.Allowed {
			t.Errorf("refused after RetryAfter: %+v", d)
		}
		until, _ := l.Fail(ratelimit.Key{Addr: bob})
		if again, blocked := l.BlockedUntil(ratelimit.Key{Addr: bob}); !blocked || !again.Equal(until) || time.Until(until) != time.Minute {
			t.Errorf("blocked until %v, then %v", until, again)
		}
		l.Block(netip.PrefixFrom(alice, 32), time.Now().Add(time.Hour))
		if len(l.Blocks()) != 1 {
			t.Errorf("Blocks = %v", l.Blocks())
		}
		time.Sleep(time.Hour)
		if _, blocked := l.BlockedUntil(ratelimit.Key{Addr: alice}); blocked || len(l.Blocks()) != 0 {
			t.Errorf("still blocked: %v", l.Blocks())
		}
	})
}
