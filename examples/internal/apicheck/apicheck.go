// Package apicheck asks a REST API with a login and API keys as its clients do:
// over sockets, directly and through proxies.
package apicheck

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// The tenants and the account of the API.
var Tenants = map[string]string{"key-1": "tenant-1", "key-2": "tenant-1", "key-3": "tenant-3"}

// Login accepts one password of every user.
func Login(_, password string) bool { return password == "correct" }

// New makes the API with the trusted proxies.
type New func(trusted string) (http.Handler, error)

// The lists of trusted proxies: a proxy on this machine, alone and behind a CDN
// that publishes its networks.
const (
	nginx      = "127.0.0.1, ::1"
	cloudflare = "173.245.48.0/20\n104.16.0.0/13\n2606:4700::/32\n127.0.0.1/32\n"
	fastly     = `{"addresses":["23.235.32.0/20","151.101.0.0/16","127.0.0.1/32"],"ipv6_addresses":["2a04:4e40::/32"]}`
)

// client is a client of the API.
type client struct {
	t   *testing.T
	url string
}

func start(t *testing.T, make New, trusted string) client {
	t.Helper()
	h, err := make(trusted)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return client{t, s.URL}
}

// do sends a request n times, and returns how many the limits let through.
func (c client) do(n int, method, path string, form url.Values, header ...string) (served int) {
	c.t.Helper()
	for range n {
		r, err := http.NewRequest(method, c.url+path, strings.NewReader(form.Encode()))
		if err != nil {
			c.t.Fatal(err)
		}
		if form != nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			c.t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests {
			served++
			continue
		}
		wait, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		if wait < 1 || wait > 910 || resp.Header.Get("Content-Type") != "application/json" || string(body) != `{"error":"too many requests"}`+"\n" {
			c.t.Errorf("refused with %v, %q", resp.Header, body)
		}
	}
	return served
}

func (c client) login(n int, user string, header ...string) int {
	c.t.Helper()
	return c.do(n, "POST", "/login", url.Values{"user": {user}, "password": {"guess"}}, header...)
}

func (c client) orders(n int, key string, header ...string) int {
	c.t.Helper()
	return c.do(n, "GET", "/v1/orders", nil, append(header, "X-API-Key", key)...)
}

// Run checks an API.
func Run(t *testing.T, make New) {
	want := func(t *testing.T, why string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d served, want %d", why, got, want)
		}
	}
	t.Run("login", func(t *testing.T) {
		c := start(t, make, nginx)
		from := func(n int) []string { return []string{"X-Forwarded-For", fmt.Sprintf("192.0.2.%d", n)} }
		want(t, "one account from one address", c.login(30, "alice", from(1)...), 5)
		want(t, "the refused attempts did not count for the address", c.login(5, "bob", from(1)...), 5)
		want(t, "ten a minute from one address", c.login(3, "carol", from(1)...), 0)
		want(t, "carol's account has all of its five", c.login(6, "carol", from(2)...), 5)
		want(t, "alice's account is guarded from every address", c.login(3, "alice", from(3)...), 0)
	})
	t.Run("keys", func(t *testing.T) {
		c := start(t, make, nginx)
		want(t, "a tenant", c.orders(60, "key-1", "X-Forwarded-For", "192.0.2.1"), 60)
		want(t, "the same tenant's other key, from elsewhere", c.orders(60, "key-2", "X-Forwarded-For", "192.0.2.2"), 40)
		want(t, "another tenant", c.orders(10, "key-3", "X-Forwarded-For", "192.0.2.1"), 10)
		invented := 0
		for i := range 120 {
			invented += c.orders(1, fmt.Sprintf("guess-%d", i), "X-Forwarded-For", "192.0.2.1")
		}
		want(t, "invented keys count for the address", invented, 100)
	})
	for _, row := range []struct {
		trusted, field string
		apart          bool
		why            string
	}{
		{"", "192.0.2.%d", false, "nothing in front: the field is the client's invention"},
		{nginx, "192.0.2.%d", true, "one proxy"},
		{nginx, "2001:db8:0:%d::1", true, "one proxy, IPv6"},
		{nginx, "198.51.100.%d, 192.0.2.1", false, "what the client wrote before the proxy"},
		{cloudflare, "192.0.2.%d, 104.16.0.9", true, "Cloudflare, then a proxy"},
		{cloudflare, "192.0.2.%d, 151.101.0.9", false, "somebody else's CDN"},
		{fastly, "192.0.2.%d, 151.101.0.9", true, "Fastly, then a proxy"},
		{fastly, "192.0.2.%d, 2a04:4e40::9", true, "Fastly over IPv6"},
	} {
		t.Run(row.why, func(t *testing.T) {
			c, served := start(t, make, row.trusted), 0
			for i := range 3 {
				served += c.login(5, fmt.Sprintf("user-%d", i), "X-Forwarded-For", fmt.Sprintf(row.field, i+1))
			}
			if row.apart {
				want(t, "three clients", served, 15)
			} else {
				want(t, "one client", served, 10)
			}
		})
	}
	t.Run("not a list", func(t *testing.T) {
		if _, err := make("nginx"); err == nil {
			t.Error("a host name is accepted as a trusted network")
		}
	})
}
