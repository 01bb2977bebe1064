// Package operate serves the operator's calls to a running server, on listeners
// of their own. On a Unix socket the socket's mode decides who may call. On
// TCP every call needs a token, also on the loopback address, because browsers
// and other users of the machine can reach that address too.
package operate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/blocklist"
	"github.com/relayguard/relayguard/examples/server/hold"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/examples/server/watch"
	"github.com/relayguard/relayguard/headers"
)

// Config holds the parts of the server that the calls work on. All fields but
// Delay and Lives are required.
type Config struct {
	Authority *authority.Authority
	Blocks    *blocklist.List
	Trail     *trail.Trail
	Watch     *watch.Watch // is told of every call
	History   History
	Hold      *hold.Brake
	Lives     *lives.Store  // nil if lives are not kept
	Delay     time.Duration // of what viewers see; may be 0
	Reports   func() headers.ReportStats
	Reload    func() error // reads the secrets again
	Metrics   http.Handler
}

func (c *Config) check() error {
	if c.Authority == nil || c.Blocks == nil || c.Trail == nil || c.Watch == nil || c.History.Rooms == nil || c.Hold == nil ||
		c.Reports == nil || c.Reload == nil || c.Metrics == nil {
		return errors.New("operate: every field of Config but Delay and Lives is required")
	}
	return nil
}

// Handler returns the handler of the operator's calls:
//
//	GET    /reports
//	       counts of the violations of the page's policy that browsers
//	       reported: a [headers.ReportStats]
//	GET    /sessions
//	       the connections that may publish: a list of [Session]
//	GET    /watching
//	       how many connections watch: a [Watching]
//	DELETE /sessions/{id}
//	       closes one of them (code 1008); its token stays valid
//	POST   /devices/{device}/revoke
//	       revokes all tokens of the device and ends its sessions: an
//	       [authority.Revoked]. With ?before=TIME (RFC 3339), tokens issued
//	       since then stay valid, unless the device has a family of refresh
//	       tokens that began before then. An unknown device needs &force=true
//	DELETE /devices/{device}/revoke
//	       takes the revocations of the device back
//	GET    /families
//	       the families of refresh tokens: a [Families]
//	DELETE /families/{id}
//	       ends one of them, and revokes the access tokens of its device that
//	       were issued until now
//	POST   /families/{id}/prolong
//	       lets it be refreshed for REFRESH_TOKEN_LIFETIME from now; the device
//	       needs no new pair
//	GET    /keys
//	       the ring of keys and how much each key is used: a list of [Key]
//	POST   /keys/reload
//	       reads the secrets again, as SIGHUP does
//	GET    /blocks
//	       the networks that are blocked by hand: a list of [blocklist.Block]
//	POST   /blocks
//	       blocks ?prefix=, an address or a prefix, and ends its open
//	       connections (code 1008): a [blocklist.Blocked]. The block lasts
//	       for an hour, for &for=24h, until &until=TIME (RFC 3339), or
//	       forever with &forever=true. A prefix of all addresses needs
//	       &force=true; a trusted proxy is never blocked
//	DELETE /blocks/{prefix}
//	       ends a block, and forgives the failures and penalties in it
//	GET    /audit
//	       the newest ?n= events (100 if not set), or the events since
//	       &since=TIME (RFC 3339): a list of [trail.Entry]. With
//	       &follow=true, the answer has one event a line, and goes on with
//	       each new event until the client leaves
//	GET    /history/export
//	       the history as an archive of package archive, not encrypted
//	POST   /history/import
//	       replaces the history with the newest messages of such an archive,
//	       or changes nothing: an [Imported]
//	DELETE /history
//	       erases every message
//	DELETE /history/{seq}
//	       erases one message, by its number in an export
//	GET    /lives
//	       the lives that are kept, newest first: a list of [lives.Life]. With
//	       ?room=, only those of a room
//	DELETE /lives/{id}
//	       erases one of them
//	DELETE /lives
//	       erases all of them
//	POST   /hold
//	       holds viewers, on all servers that share an engine: they see nothing
//	       more. A [Held]
//	DELETE /hold
//	       releases them
//	GET    /metrics
//	       the metrics of site/metrics.md, in Prometheus's text format
//	GET    /debug/pprof/{profile}
//	       a profile for "go tool pprof": heap, allocs, goroutine, block,
//	       mutex or threadcreate. Also profile, of the processor's time, and
//	       trace, both over the next ?seconds=
//
//	GET    /proof
//	       proof that the server has the secrets, for ?nonce=: a list of texts.
//	       It needs no token
//
// If the server has rooms, the calls about the history need ?room=.
//
// Answers are JSON, and errors are plain text. Without a valid token, every
// other path answers 401. The permission admin admits to every call. Reading
// needs only metrics, sessions (also for families, keys and watching), audit
// (also for reports), blocks or profile, so that a token for one purpose is good
// for no other.
func Handler(cfg Config) (http.Handler, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /reports", func(w http.ResponseWriter, _ *http.Request) { answer(w, cfg.Reports()) })
	mux.Handle("GET /metrics", cfg.Metrics)
	handleProfiles(mux)
	cfg.handleSessions(mux)
	cfg.handleBlocks(mux)
	cfg.handleAudit(mux)
	cfg.handleHistory(mux)
	cfg.handleLives(mux)
	cfg.handleHold(mux)
	cfg.handleWatching(mux)
	all := http.NewServeMux()
	all.HandleFunc("GET /proof", cfg.handleProof)
	all.Handle("/", admit(cfg.Authority, cfg.Watch, mux))
	return all, nil
}

// Reports asks for the counts of the violations of the page's policy that
// browsers reported.
func (c *Client) Reports(ctx context.Context) (headers.ReportStats, error) {
	return get[headers.ReportStats](ctx, c, http.MethodGet, "/reports")
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // fails only if the client is gone
}
