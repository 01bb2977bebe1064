package bench_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/didip/tollbooth/v7"
	"github.com/didip/tollbooth/v7/limiter"
	chi "github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/httprate"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	ulule "github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/middleware/stdlib"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/ratelimit"
)

// client identifies a client: by its address for relayguard, and by key for the
// others, which need a string. The time to make the string counts only in the
// measurements of handlers, not in those of decisions.
type client struct {
	addr netip.Addr
	key  string
}

func clientOf(addr netip.Addr) client { return client{addr, ratelimit.Fold(addr).Addr().String()} }

// clientAt returns the i-th of many clients, in no order. Half of the clients
// have IPv6 addresses.
func clientAt(i int) client {
	n := uint64(i) * 0x9e3779b97f4a7c15 // odd: no two are equal
	if n&1 == 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n>>32))
		return clientOf(netip.AddrFrom4(b))
	}
	b := [16]byte{0: 0x20}
	binary.BigEndian.PutUint64(b[1:], n)
	return clientOf(netip.AddrFrom16(b))
}

// limits is one limiter: its decision and its middleware.
type limits struct {
	admit   func(*client) bool
	handler func(http.Handler) http.Handler
}

// peer makes limiters that admit limit requests of a client in a window, and
// forget the client some time after the window.
type peer struct {
	name string
	make func(tb testing.TB, limit int, window time.Duration) limits
}

// relayguard's two decisions: on a connection that stays open, and on one that
// is closed at once.
var (
	admit = peer{"relayguard, Admit", func(tb testing.TB, limit int, window time.Duration) limits {
		l := newLimiter(tb, limit, window)
		return limits{func(c *client) bool {
			_, d := l.Admit(ratelimit.Key{Addr: c.addr})
			return d.Allowed
		}, l.Handler}
	}}
	admitRelease = peer{"relayguard, Admit + Release", func(tb testing.TB, limit int, window time.Duration) limits {
		l := newLimiter(tb, limit, window)
		return limits{func(c *client) bool {
			slot, d := l.Admit(ratelimit.Key{Addr: c.addr})
			slot.Release()
			return d.Allowed
		}, l.Handler}
	}}
)

func newLimiter(tb testing.TB, limit int, window time.Duration) *ratelimit.Limiter {
	l, err := ratelimit.New(ratelimit.Config{Limit: limit, MaxAttempts: limit, MaxOpen: limit, Window: window})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

var peers = []peer{
	{"go-chi/httprate", func(_ testing.TB, limit int, window time.Duration) limits {
		l := httprate.NewRateLimiter(limit, window, httprate.WithResponseHeaders(httprate.ResponseHeaders{}))
		w, r := newWriter(), httptest.NewRequest("GET", "/", nil)
		key := func(r *http.Request) (string, error) {
			return httprate.CanonicalizeIP(chi.GetClientIP(r.Context())), nil
		}
		return limits{
			func(c *client) bool { return !l.OnLimit(w, r, c.key) },
			func(next http.Handler) http.Handler {
				return chi.ClientIPFromRemoteAddr(httprate.LimitBy(limit, window, key)(next))
			},
		}
	}},
	{"ulule/limiter", func(tb testing.TB, limit int, window time.Duration) limits {
		store := memory.NewStoreWithOptions(ulule.StoreOptions{Prefix: ulule.DefaultPrefix, CleanUpInterval: window})
		l := ulule.New(store, ulule.Rate{Limit: int64(limit), Period: window}, ulule.WithIPv6Mask(net.CIDRMask(64, 128)))
		return limits{
			func(c *client) bool {
				state, err := l.Get(context.Background(), c.key)
				return err == nil && !state.Reached
			},
			stdlib.NewMiddleware(l).Handler,
		}
	}},
	{"sethvargo/go-limiter", func(tb testing.TB, limit int, window time.Duration) limits {
		store, err := memorystore.New(&memorystore.Config{
			Tokens: uint64(limit), Interval: window, SweepInterval: window, SweepMinTTL: window,
		})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { store.Close(context.Background()) })
		mw, err := httplimit.NewMiddleware(store, httplimit.IPKeyFunc())
		if err != nil {
			tb.Fatal(err)
		}
		return limits{
			func(c *client) bool {
				_, _, _, ok, err := store.Take(context.Background(), c.key)
				return err == nil && ok
			},
			mw.Handle,
		}
	}},
	{"didip/tollbooth", func(_ testing.TB, limit int, window time.Duration) limits {
		l := tollbooth.NewLimiter(float64(limit)/window.Seconds(), &limiter.ExpirableOptions{DefaultExpirationTTL: window})
		l.SetBurst(limit).SetIPLookups([]string{"RemoteAddr"})
		return limits{
			func(c *client) bool { return tollbooth.LimitByKeys(l, []string{c.key}) == nil },
			func(next http.Handler) http.Handler { return tollbooth.LimitHandler(l, next) },
		}
	}},
	{"map of x/time/rate", func(tb testing.TB, limit int, window time.Duration) limits {
		v := &visitors{m: make(map[string]*visitor), every: rate.Every(window / time.Duration(limit)), burst: limit}
		stop := make(chan struct{})
		tb.Cleanup(func() { close(stop) })
		go v.sweep(window, stop)
		return limits{func(c *client) bool { return v.allow(c.key) }, v.handler}
	}},
}

// visitors is the limiter that tutorials build with golang.org/x/time/rate: a
// map with a mutex, and a goroutine that removes old clients.
type visitors struct {
	mu    sync.Mutex
	m     map[string]*visitor
	every rate.Limit
	burst int
}

type visitor struct {
	*rate.Limiter
	seen time.Time
}

func (v *visitors) allow(key string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	one, known := v.m[key]
	if !known {
		one = &visitor{Limiter: rate.NewLimiter(v.every, v.burst)}
		v.m[key] = one
	}
	one.seen = time.Now()
	return one.Allow()
}

func (v *visitors) sweep(window time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(window)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		v.mu.Lock()
		for key, one := range v.m {
			if time.Since(one.seen) > window {
				delete(v.m, key)
			}
		}
		v.mu.Unlock()
	}
}

func (v *visitors) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil || !v.allow(host) {
			http.Error(w, http.StatusText(http.StatusTooManyRequests), http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Every limiter counts per client: it admits ten requests of one client, and
// then still admits another client.
func TestLimitersCount(t *testing.T) {
	const limit = 10
	for _, p := range append(peers, admit) {
		t.Run(p.name, func(t *testing.T) {
			one, other := clientOf(netip.MustParseAddr("192.0.2.1")), clientOf(netip.MustParseAddr("2001:db8::1"))
			l := p.make(t, limit, time.Hour)
			for i := range limit + 2 {
				if got := l.admit(&one); got != (i < limit) {
					t.Errorf("decision %d: admitted %t", i, got)
				}
			}
			if !l.admit(&other) {
				t.Error("a second client was refused for the first")
			}

			h := p.make(t, limit, time.Hour).handler(nothing)
			for i := range limit + 2 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, requestFrom("192.0.2.1:4711"))
				if refused := w.Code == http.StatusTooManyRequests; refused != (i >= limit) {
					t.Errorf("request %d: %d", i, w.Code)
				}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, requestFrom("[2001:db8::1]:4711"))
			if w.Code != http.StatusOK {
				t.Errorf("a second client: %d", w.Code)
			}
		})
	}
}

func requestFrom(addr string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = addr
	return r
}

func TestAdmitAllocations(t *testing.T) {
	for _, p := range []peer{admit, admitRelease} {
		l := p.make(t, 1<<20, time.Hour)
		for _, i := range []int{1, 2} { // one of each family
			c := clientAt(i)
			if n := testing.AllocsPerRun(1000, func() { l.admit(&c) }); n != 0 {
				t.Errorf("%s: %s: %v allocations", p.name, c.addr, n)
			}
		}
	}
}
