// Command restapi is examples/services/restapi with chi and httprate.
package main

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/httprate"
)

type api struct {
	tenants   map[string]string // by API key
	login     func(user, password string) bool
	mu        sync.Mutex
	addresses *httprate.RateLimiter
	accounts  *httprate.RateLimiter
}

func newAPI(trusted string, tenants map[string]string, login func(user, password string) bool) (http.Handler, error) {
	clientIP, err := resolver(trusted)
	if err != nil {
		return nil, err
	}
	refuse := httprate.WithLimitHandler(tooMany)
	a := &api{
		tenants: tenants, login: login,
		addresses: httprate.NewRateLimiter(10, time.Minute, refuse),
		accounts:  httprate.NewRateLimiter(5, 15*time.Minute, refuse),
	}
	r := chi.NewRouter()
	r.Use(middleware.RequestSize(4096), clientIP)
	r.With(a.limitLogin).Post("/login", a.handleLogin)
	r.With(httprate.LimitBy(100, time.Minute, a.tenantKey, refuse)).Get("/v1/orders", a.orders)
	return r, nil
}

// resolver returns the middleware that finds the client's address.
func resolver(trusted string) (func(http.Handler) http.Handler, error) {
	prefixes, err := parseTrusted(trusted)
	if err != nil {
		return nil, err
	}
	if len(prefixes) == 0 {
		return middleware.ClientIPFromRemoteAddr, nil
	}
	return middleware.ClientIPFromXFF(prefixes...), nil
}

// parseTrusted reads a list of prefixes or addresses, or Fastly's list.
func parseTrusted(trusted string) ([]string, error) {
	var items []string
	if strings.HasPrefix(strings.TrimSpace(trusted), "{") {
		var list struct {
			V4 []string `json:"addresses"`
			V6 []string `json:"ipv6_addresses"`
		}
		if err := json.Unmarshal([]byte(trusted), &list); err != nil {
			return nil, err
		}
		if items = append(list.V4, list.V6...); len(items) == 0 {
			return nil, errors.New("not the list of Fastly")
		}
	} else {
		items = strings.FieldsFunc(trusted, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
	}
	for i, item := range items {
		if addr, err := netip.ParseAddr(item); err == nil {
			items[i] = netip.PrefixFrom(addr, addr.BitLen()).String()
			continue
		}
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			return nil, err
		}
		if prefix.Bits() == 0 {
			return nil, fmt.Errorf("%s would trust every address", item)
		}
	}
	return items, nil
}

func tooMany(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = io.WriteString(w, `{"error":"too many requests"}`+"\n")
}

func address(r *http.Request) string {
	return "ip:" + httprate.CanonicalizeIP(middleware.GetClientIP(r.Context()))
}

// limitLogin asks both limits before it counts for either.
func (a *api) limitLogin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		account := address(r)
		if user := r.PostFormValue("user"); user != "" {
			account = "user:" + user
		}
		if !a.countLogin(w, r, account) {
			next.ServeHTTP(w, r)
		}
	})
}

func (a *api) countLogin(w http.ResponseWriter, r *http.Request, account string) (refused bool) {
	a.mu.Lock() // httprate cannot ask and count at once
	defer a.mu.Unlock()
	_, rate, err := a.addresses.Status(address(r))
	if err != nil {
		http.Error(w, "limits are unavailable", http.StatusServiceUnavailable)
		return true
	}
	if rate+1 > 10 {
		return a.addresses.RespondOnLimit(w, r, address(r))
	}
	return a.accounts.RespondOnLimit(w, r, account) || a.addresses.RespondOnLimit(w, r, address(r))
}

func (a *api) tenantKey(r *http.Request) (string, error) {
	if tenant, ok := a.tenants[r.Header.Get("X-API-Key")]; ok {
		return "tenant:" + tenant, nil
	}
	return address(r), nil
}

func (a *api) handleLogin(w http.ResponseWriter, r *http.Request) {
	if !a.login(r.PostFormValue("user"), r.PostFormValue("password")) {
		http.Error(w, "wrong user or password", http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *api) orders(w http.ResponseWriter, r *http.Request) {
	tenant, ok := a.tenants[r.Header.Get("X-API-Key")]
	if !ok {
		http.Error(w, "wrong API key", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"orders":[],"tenant":"`+tenant+`"}`)
}

func main() {
	key, password := os.Getenv("API_KEY"), os.Getenv("ADMIN_PASSWORD")
	if key == "" || password == "" {
		log.Fatal("API_KEY and ADMIN_PASSWORD are required")
	}
	h, err := newAPI(os.Getenv("TRUSTED_PROXIES"), map[string]string{key: "tenant-1"}, func(user, given string) bool {
		return user == "admin" && subtle.ConstantTimeCompare([]byte(given), []byte(password)) == 1
	})
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: "localhost:8080", Handler: h, ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
