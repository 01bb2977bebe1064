// Package operate is the relay's second listener: what its operator may ask of a
// running server. Every call needs a token with the permission admin, also on the
// loopback address, because browsers and other users of the machine reach it too.
package operate

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/wsauth"
)

// Config says what the calls stand on. All fields are required.
type Config struct {
	Verifier wsauth.Verifier
	Reports  func() headers.ReportStats
}

// Handler serves the operator's calls:
//
//	GET /reports   counts of what browsers reported against the page's policy
//
// Answers are JSON. Without a good token every path is a 401.
func Handler(cfg Config) (http.Handler, error) {
	if cfg.Verifier == nil || cfg.Reports == nil {
		return nil, errors.New("operate: Config.Verifier and Reports are required")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /reports", func(w http.ResponseWriter, _ *http.Request) { answer(w, cfg.Reports()) })
	return admins(cfg.Verifier, mux), nil
}

func admins(v wsauth.Verifier, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if ok {
			id, err := v.VerifyAt([]byte(token), time.Now())
			ok = err == nil && id.Can(wsauth.Admin)
		}
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // fails only where the reader is gone
}
