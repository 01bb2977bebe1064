// Package operate is the relay's second listener: what its operator may ask of
// a running server. Every call needs a token with the permission admin, also on
// the loopback address, because browsers and other users of the machine reach
// it too.
package operate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/blocklist"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/wsauth"
)

// Config is what the calls work on. All fields are required.
type Config struct {
	Authority *authority.Authority
	Blocks    *blocklist.List
	Trail     *trail.Trail
	History   History
	Reports   func() headers.ReportStats
	Reload    func() error // reads the secrets again
	Metrics   http.Handler
}

func (c *Config) check() error {
	if c.Authority == nil || c.Blocks == nil || c.Trail == nil || c.History.Log == nil || c.History.Relay == nil ||
		c.Reports == nil || c.Reload == nil || c.Metrics == nil {
		return errors.New("operate: every field of Config is required")
	}
	return nil
}

// Handler serves the operator's calls:
//
//	GET    /reports                 counts of what browsers reported against the page's policy
//	GET    /sessions                the connections that may publish: a list of [Session]
//	DELETE /sessions/{id}           closes one of them (code 1008); its token stays good
//	POST   /devices/{device}/revoke makes all tokens of the device worthless, open sessions included; ?before=TIME
//	                                spares those issued since then (RFC 3339), unless a line of refresh tokens that
//	                                began before has to end with them: an [authority.Revoked]
//	GET    /families                the lines of refresh tokens: a [Families]
//	DELETE /families/{id}           ends one of them, and what stands on its device's tokens until now
//	GET    /keys                    the ring of keys and how much each is needed: a list of [Key]
//	POST   /keys/reload             reads the secrets again, as SIGHUP does
//	GET    /blocks                  the networks that are blocked by hand: a list of [blocklist.Block]
//	POST   /blocks                  blocks ?prefix=, an address or a prefix, and ends its open connections (code 1008): a
//	                                [blocklist.Blocked]. For an hour, &for=24h, until &until=TIME (RFC 3339), or &forever=true. Every
//	                                address there is needs &force=true; a trusted proxy is never blocked
//	DELETE /blocks/{prefix}         ends a block, and forgives failures and penalties in it
//	GET    /audit                   the newest ?n=100 events, or those &since=TIME: a list of [trail.Entry]; with &follow=true one
//	                                a line, then those that come, until the reader leaves
//	GET    /history/export          the history as an archive of package archive, not encrypted
//	POST   /history/import          puts the newest messages of such an archive in its place, all or nothing: an [Imported]
//	DELETE /history                 erases everything
//	DELETE /history/{seq}           erases one message, by its number in an export
//	GET    /metrics                 site/metrics.md, in Prometheus's text format
//
// Answers are JSON, errors plain text. Without a good token every path is a
// 401.
func Handler(cfg Config) (http.Handler, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /reports", func(w http.ResponseWriter, _ *http.Request) { answer(w, cfg.Reports()) })
	mux.Handle("GET /metrics", cfg.Metrics)
	cfg.handleSessions(mux)
	cfg.handleBlocks(mux)
	cfg.handleAudit(mux)
	cfg.handleHistory(mux)
	return admins(cfg.Authority, mux), nil
}

// Reports asks for the counts of what browsers reported against the page's
// policy.
func (c *Client) Reports(ctx context.Context) (headers.ReportStats, error) {
	return get[headers.ReportStats](ctx, c, http.MethodGet, "/reports")
}

func admins(v wsauth.Verifier, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The scheme is the same in any case (RFC 9110, section 11.1).
		scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
		if ok = ok && strings.EqualFold(scheme, "Bearer"); ok {
			id, err := v.VerifyAt([]byte(strings.TrimLeft(token, " ")), time.Now())
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
