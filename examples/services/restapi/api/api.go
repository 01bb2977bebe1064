// Package api is a REST API with a login and API keys. It limits logins by
// address and by account, and calls by tenant.
package api

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/clientip"
)

// Config configures the API.
type Config struct {
	Trusted string            // proxies: none, or prefixes, or the list of a CDN as it is published
	Tenants map[string]string // by API key
	Login   func(user, password string) bool
}

// New returns the handler of the API.
func New(c Config) (http.Handler, error) {
	trusted, badTrusted := clientip.ParsePrefixes(c.Trusted)
	base := ratelimit.Config{
		Count:    ratelimit.CountRequests,
		ClientIP: clientip.Behind(trusted...).Addr,
		Fields:   11,
		Body: func(*http.Request, ratelimit.Decision) (contentType, body string) {
			return "application/json", `{"error":"too many requests"}` + "\n"
		},
	}
	byAddress, byAccount, byTenant := base, base, base
	byAddress.Name, byAddress.Limit = "address", 10
	byAccount.Name, byAccount.Limit, byAccount.Window = "account", 5, 15*time.Minute
	byAccount.Key = func(r *http.Request) (ratelimit.Key, bool) {
		user := r.PostFormValue("user")
		return ratelimit.Key{ID: user}, user != ""
	}
	byTenant.Name, byTenant.Limit = "tenant", 100
	byTenant.Key = func(r *http.Request) (ratelimit.Key, bool) {
		tenant, ok := c.Tenants[r.Header.Get("X-API-Key")]
		return ratelimit.Key{ID: tenant}, ok
	}
	addresses, badAddress := ratelimit.New(byAddress)
	accounts, badAccount := ratelimit.New(byAccount)
	tenants, badTenant := ratelimit.New(byTenant)
	if err := errors.Join(badTrusted, badAddress, badAccount, badTenant); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /login", ratelimit.All(addresses, accounts)(http.HandlerFunc(c.login)))
	mux.Handle("GET /v1/orders", tenants.Handler(http.HandlerFunc(c.orders)))
	return http.MaxBytesHandler(mux, 4096), nil
}

func (c *Config) login(w http.ResponseWriter, r *http.Request) {
	if !c.Login(r.PostFormValue("user"), r.PostFormValue("password")) {
		http.Error(w, "wrong user or password", http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *Config) orders(w http.ResponseWriter, r *http.Request) {
	tenant, ok := c.Tenants[r.Header.Get("X-API-Key")]
	if !ok {
		http.Error(w, "wrong API key", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"orders":[],"tenant":"`+tenant+`"}`)
}
