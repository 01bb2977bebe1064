package ratelimit_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/clientip"
	"golang.org/x/time/rate"
)

func Example() {
	websocket := http.NotFoundHandler() // put your WebSocket handler here

	lim, err := ratelimit.New(ratelimit.Config{
		Limit:    10,
		Window:   time.Minute,
		ClientIP: clientip.Behind(clientip.Loopback()...).Addr,
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/ws", lim.Handler(websocket))
	fmt.Println(lim.Stats().Open, "open")
	// Output: 0 open
}

// A limiter around the whole server also counts pages, scripts and images, so
// it refuses the later files of a page. Wrap only the route of the WebSocket.
func ExampleLimiter_Handler_incorrect() {
	lim, _ := ratelimit.New(ratelimit.Config{Limit: 2, MaxAttempts: 2})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	everything := lim.Handler(mux) // wrong

	for _, file := range []string{"/", "/page.css", "/page.js"} {
		w := httptest.NewRecorder()
		everything.ServeHTTP(w, httptest.NewRequest("GET", file, nil))
		fmt.Println(file, w.Code)
	}
	// Output:
	// / 200
	// /page.css 200
	// /page.js 429
}

// A login is limited by address and by account, in one decision.
func ExampleAll() {
	addresses, _ := ratelimit.New(ratelimit.Config{Name: "address", Count: ratelimit.CountRequests, Limit: 10})
	accounts, _ := ratelimit.New(ratelimit.Config{
		Name: "account", Count: ratelimit.CountRequests, Limit: 1, Window: time.Hour,
		Key: func(r *http.Request) (ratelimit.Key, bool) {
			user := strings.ToLower(r.FormValue("user"))
			return ratelimit.Key{ID: user}, user != ""
		},
	})
	login := ratelimit.All(addresses, accounts)(http.NotFoundHandler()) // put your handler here
	login = http.MaxBytesHandler(login, 4096)                           // the account is in the body

	for _, user := range []string{"alice", "Alice", "bob"} {
		w := httptest.NewRecorder()
		login.ServeHTTP(w, httptest.NewRequest("POST", "/login?user="+user, nil))
		fmt.Println(user, w.Code)
	}
	// Output:
	// alice 404
	// Alice 429
	// bob 404
}

// An API key that is not checked is no client: a client that invents a new one
// for each request has no limit. Report false for a wrong key, so that its
// request counts by the address.
func ExampleKey_incorrect() {
	count := func(key func(*http.Request) (ratelimit.Key, bool)) (admitted int) {
		lim, _ := ratelimit.New(ratelimit.Config{Count: ratelimit.CountRequests, Limit: 3, Key: key})
		h := lim.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { admitted++ }))
		for i := range 100 {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-API-Key", fmt.Sprint("invented-", i))
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		return admitted
	}

	fmt.Println(count(func(r *http.Request) (ratelimit.Key, bool) {
		return ratelimit.Key{ID: r.Header.Get("X-API-Key")}, true // wrong
	}))
	tenants := map[string]string{"k-8Jq2": "tenant-1"}
	fmt.Println(count(func(r *http.Request) (ratelimit.Key, bool) {
		tenant, ok := tenants[r.Header.Get("X-API-Key")]
		return ratelimit.Key{ID: tenant}, ok
	}))
	// Output:
	// 100
	// 3
}

func ExampleLimiter_Admit() {
	lim, _ := ratelimit.New(ratelimit.Config{Limit: 1})
	addr := netip.MustParseAddr("2001:db8::1")

	slot, _ := lim.Admit(ratelimit.Key{Addr: addr})
	_, d := lim.Admit(ratelimit.Key{Addr: netip.MustParseAddr("2001:db8::2")}) // the same /64
	fmt.Println(d.Allowed, d.Reason, d.Client)

	slot.Release()
	_, d = lim.Admit(ratelimit.Key{Addr: addr})
	fmt.Println(d.Allowed)
	// Output:
	// false limit 2001:db8::/64
	// true
}

func ExampleLimiter_Fail() {
	lim, _ := ratelimit.New(ratelimit.Config{
		Penalty: ratelimit.Penalty{Failures: 3, Within: time.Minute, Block: 10 * time.Minute},
	})
	addr := netip.MustParseAddr("192.0.2.1")
	for range 3 {
		_, blocked := lim.Fail(ratelimit.Key{Addr: addr}) // its token was refused
		fmt.Println(blocked)
	}
	_, d := lim.Admit(ratelimit.Key{Addr: addr})
	fmt.Println(d.Reason, d.Reason.Status())
	// Output:
	// false
	// false
	// true
	// penalty 403
}

func ExampleLimiter_Block() {
	lim, _ := ratelimit.New(ratelimit.Config{})
	if err := lim.Block(netip.MustParsePrefix("203.0.113.0/24"), time.Now().Add(time.Hour)); err != nil {
		panic(err)
	}
	_, blocked := lim.BlockedUntil(ratelimit.Key{Addr: netip.MustParseAddr("203.0.113.77")})
	fmt.Println(blocked)
	// Output: true
}

// Observe counts every decision. OnReject gets some of the refusals for the
// log, and the number of those left out. All clients together may open at most
// 50 connections a second.
func ExampleConfig() {
	refused := make(map[ratelimit.Reason]int)
	_, err := ratelimit.New(ratelimit.Config{
		Process: rate.NewLimiter(50, 100),
		Observe: func(_ *http.Request, d ratelimit.Decision) { refused[d.Reason]++ },
		OnReject: func(_ *http.Request, d ratelimit.Decision, suppressed uint64) {
			slog.Warn("connection refused", "client", d.Client, "reason", d.Reason, "suppressed", suppressed)
		},
	})
	fmt.Println(err)
	// Output: <nil>
}
