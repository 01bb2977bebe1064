package ratelimit_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// told is one call of OnReject.
type told struct {
	at         time.Duration
	client     netip.Prefix
	reason     ratelimit.Reason
	suppressed uint64
}

// refusals refuses requests, and notes the calls of OnReject.
type refusals struct {
	*ratelimit.Limiter
	h     http.Handler
	began time.Time
	mu    sync.Mutex
	calls []told
}

func newRefusals(t *testing.T, c ratelimit.Config) *refusals {
	f := &refusals{began: time.Now()}
	c.OnReject = func(r *http.Request, d ratelimit.Decision, n uint64) {
		if r.URL.Path != "/ws" || r.Header == nil || r.Body == nil || r.Context() == nil || d.Allowed {
			t.Errorf("told of %+v, %+v", r, d)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, told{time.Since(f.began), d.Client, d.Reason, n})
	}
	f.Limiter = newLimiter(t, c)
	f.h = f.Handler(http.NotFoundHandler())
	return f
}

func (f *refusals) ask(addr string, n int) {
	for range n {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(addr), 1).String()
		f.h.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// sums returns the number of refusals that the calls speak of.
func (f *refusals) sums() map[netip.Prefix]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	sums := make(map[netip.Prefix]uint64)
	for _, c := range f.calls {
		sums[c.client] += 1 + c.suppressed
	}
	return sums
}

// TestSuppressed has several clients refused at the same time. A count beside
// an address must be that address's and that reason's, and nothing may be left
// untold although no further event comes.
func TestSuppressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRefusals(t, ratelimit.Config{})
		f.Block(netip.MustParsePrefix("0.0.0.0/0"), time.Now().Add(time.Hour))
		f.Block(netip.MustParsePrefix("::/0"), time.Now().Add(time.Hour))
		f.ask("192.0.2.1", 500)
		f.ask("198.51.100.7", 3)
		f.ask("2001:db8::1", 40)
		f.ask("2001:db8::2", 2)
		time.Sleep(2*time.Second - 1)
		if f.mu.Lock(); len(f.calls) != 10 {
			t.Errorf("told before the burst has ended: %v", f.calls)
		}
		f.mu.Unlock()
		time.Sleep(time.Second)
		want := map[netip.Prefix]uint64{
			netip.MustParsePrefix("192.0.2.1/32"): 500, netip.MustParsePrefix("198.51.100.7/32"): 3, netip.MustParsePrefix("2001:db8::/64"): 42,
		}
		got := f.sums()
		for client, n := range want {
			if got[client] != n {
				t.Errorf("%v: told of %d refusals, want %d", client, got[client], n)
			}
		}
		f.mu.Lock()
		if len(f.calls) != 13 || len(got) != 3 {
			t.Errorf("%d calls: %v", len(f.calls), f.calls)
		}
		f.mu.Unlock()
		time.Sleep(time.Hour)
		if f.mu.Lock(); len(f.calls) != 13 {
			t.Errorf("in the end: %v", f.calls)
		}
		f.mu.Unlock()
	})
}

// TestSuppressedReasons changes the reason in the middle of a burst.
func TestSuppressedReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRefusals(t, ratelimit.Config{Limit: 1, MaxAttempts: 1})
		f.ask("192.0.2.1", 1)
		f.ask("192.0.2.1", 30)
		f.Block(netip.MustParsePrefix("192.0.2.1/32"), time.Time{})
		f.ask("192.0.2.1", 5)
		time.Sleep(time.Minute)
		f.mu.Lock()
		defer f.mu.Unlock()
		sums := map[ratelimit.Reason]uint64{}
		for _, c := range f.calls {
			sums[c.reason] += 1 + c.suppressed
		}
		if sums[ratelimit.ReasonAttempts] != 30 || sums[ratelimit.ReasonBlocked] != 5 {
			t.Errorf("told of %v", sums)
		}
	})
}

// TestSuppressedLong checks that a burst that does not end, beside one that
// takes every call, is told of within a minute.
func TestSuppressedLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRefusals(t, ratelimit.Config{})
		f.Block(netip.MustParsePrefix("0.0.0.0/0"), time.Time{})
		for range 150 {
			f.ask("192.0.2.1", 20)
			f.ask("198.51.100.7", 1)
			time.Sleep(time.Second)
		}
		first := time.Duration(0)
		f.mu.Lock()
		for _, c := range f.calls {
			if first == 0 && c.client.Addr() == bob {
				first = c.at
			}
		}
		f.mu.Unlock()
		if first == 0 || first > 61*time.Second {
			t.Errorf("the other client is told of after %v", first)
		}
		time.Sleep(time.Minute)
		if got := f.sums(); got[ratelimit.Fold(bob)] != 150 || got[ratelimit.Fold(alice)] != 3000 {
			t.Errorf("told of %v", got)
		}
	})
}

// TestSuppressedCrowd has more clients than are counted one by one. No refusal
// is lost, no count is beside a wrong address, and the calls stay few.
func TestSuppressedCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRefusals(t, ratelimit.Config{})
		f.Block(netip.MustParsePrefix("10.0.0.0/8"), time.Time{})
		const clients, each = 5000, 3
		for range each {
			for i := range clients {
				f.ask(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String(), 1)
			}
		}
		time.Sleep(20 * time.Second)
		f.mu.Lock()
		if n := len(f.calls); n > 10+10+20 {
			t.Errorf("%d calls within 20 seconds", n)
		}
		f.mu.Unlock()
		time.Sleep(time.Hour)
		var all uint64
		for client, n := range f.sums() {
			if all += n; client.IsValid() && n > each {
				t.Errorf("%v: told of %d refusals, of %d", client, n, each)
			}
		}
		if all != clients*each {
			t.Errorf("told of %d refusals in all, want %d", all, clients*each)
		}
	})
}

// TestSuppressedIsSmall refuses requests with long texts. What is kept of them
// until the burst has ended must not take the memory that they took.
func TestSuppressedIsSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last atomic.Pointer[http.Request]
		l := newLimiter(t, ratelimit.Config{OnReject: func(r *http.Request, _ ratelimit.Decision, _ uint64) { last.Store(r) }})
		l.Block(netip.MustParsePrefix("192.0.2.1/32"), time.Time{})
		h := l.Handler(http.NotFoundHandler())
		long := strings.Repeat("a", 1<<16)
		for range 20 {
			r := httptest.NewRequest(long, "/"+long+"?"+long, nil)
			r.RemoteAddr, r.Host = "192.0.2.1:1", long
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		last.Store(nil)
		time.Sleep(time.Minute)
		late := last.Load()
		if late == nil || late.URL.Path[:3] != "/aa" {
			t.Fatalf("told of %v", late)
		}
		for _, text := range []string{late.Method, late.RequestURI, late.Host, late.URL.String()} {
			if len(text) > 4096 {
				t.Errorf("a text of %d bytes was kept", len(text))
			}
		}
	})
}
