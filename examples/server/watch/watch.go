// Package watch handles the relay's security events. An event has up to four
// effects: a metric, an entry in the trail, a penalty for the address that it
// comes from, and a line in the log. The line is written last, so that a
// program that reacts to it finds the other effects.
package watch

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/examples/server/watch/suspect"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
)

// maxSuspects is the number of clients that are watched for suspicious
// patterns. They take about two megabytes.
const maxSuspects = 5000

// Config configures a [Watch]. Log, Trail and Limits are required.
type Config struct {
	Log   *slog.Logger
	Trail *trail.Trail
	// Limits configures the limiter of connections, which New makes. New sets
	// OnReject. Observe gets every decision after Watch has counted it. The
	// Penalty is for wrong tokens, and bars a client from sending tokens; it
	// does not refuse the client's connections.
	Limits ratelimit.Config
	// Tokens, if set, makes several servers count wrong tokens together, as
	// Limits.Shared does for connections.
	Tokens ratelimit.Shared
	// Publishing, if set, returns the addresses that have authenticated
	// sessions on other servers. Like those of this server, they are spared.
	Publishing func() []netip.Addr
}

// Watch handles the events. It is a [prometheus.Collector] of their counts. It
// is safe for concurrent use.
type Watch struct {
	log      *slog.Logger
	trail    *trail.Trail
	limiter  *ratelimit.Limiter
	suspects *suspect.Detector
	thinned  *thinned

	penalties *penalties
	counts
}

// New returns a Watch and makes its limiter.
func New(cfg Config) (*Watch, error) {
	if cfg.Log == nil || cfg.Trail == nil {
		return nil, errRequired
	}
	w := &Watch{
		log: cfg.Log, trail: cfg.Trail, suspects: suspect.New(maxSuspects),
		counts: newCounts(),
	}
	w.thinned = newThinned(func(kind string, client netip.Prefix, suppressed int) {
		w.log.Warn("lines were left out", "of", kind, "client", clientText(client), "suppressed", suppressed)
	})
	var err error
	if w.penalties, err = newPenalties(cfg); err != nil {
		return nil, err
	}
	cfg.Limits.Penalty = ratelimit.Penalty{}
	cfg.Limits.OnReject, cfg.Limits.Observe = w.rejected, w.decidedThen(cfg.Limits.Observe)
	w.limiter, err = ratelimit.New(cfg.Limits)
	return w, err
}

// Limiter returns the limiter.
func (w *Watch) Limiter() *ratelimit.Limiter { return w.limiter }

// Event handles an event of the audit. A token that may have been guessed
// counts against the peer's address, so that a client that keeps guessing is
// barred from sending tokens.
func (w *Watch) Event(e wsauth.Event) {
	w.event(e)
	w.trail.Add(trail.FromEvent(e))
	w.penalties.note(e)
	if !refusal(e.Kind) || w.thinned.allow(string(e.Kind), ratelimit.Fold(e.Peer.Addr), time.Now()) {
		wsauth.AuditLog(slog.New(withClient{w.log.Handler(), e.Peer.ID}))(e)
	}
	switch e.Kind {
	case wsauth.EventRefused:
		if e.Reason.IsGuess() {
			w.Failed(e.Peer.Addr)
		}
	case wsauth.EventOriginRefused:
		w.suspicious(w.suspects.Foreign(e.Peer.Addr, e.Detail, time.Now()))
	}
}

// refusal reports whether events of a kind are refusals, which any stranger can
// cause.
func refusal(kind wsauth.EventKind) bool {
	return kind == wsauth.EventRefused || kind == wsauth.EventOriginRefused || kind == wsauth.EventPairRefused
}

// clientText is a client for the log.
func clientText(client netip.Prefix) string {
	if !client.IsValid() {
		return "others"
	}
	return client.String()
}

// Close writes how many lines were left out.
func (w *Watch) Close() { w.thinned.flush() }

// Failed counts an access or refresh token that may have been guessed against
// addr.
func (w *Watch) Failed(addr netip.Addr) {
	w.suspicious(w.suspects.Failed(addr, time.Now()))
	if until, began := w.penalties.fail(addr); began {
		w.blocked.Inc()
		w.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "penalty", Addr: addr.String(), Until: &until})
		w.log.Warn("address barred from sending tokens", "addr", addr, "until", until)
	}
}

// Barred reports whether addr is blocked now. An address can be blocked after
// its connection was admitted.
func (w *Watch) Barred(addr netip.Addr) bool {
	_, blocked := w.limiter.BlockedUntil(ratelimit.Key{Addr: addr})
	return blocked
}

// Ended counts a connection that has ended, if it was suspiciously short. It
// ignores the connections of a blocked address, because the block has ended
// them.
func (w *Watch) Ended(addr netip.Addr, lasted time.Duration) {
	if !w.Barred(addr) {
		w.suspicious(w.suspects.Ended(addr, lasted, time.Now()))
	}
}

// Call is one call on the operator's listener.
type Call struct {
	Pattern string // such as "DELETE /sessions/{id}"; empty if there is no such call
	Path    string
	By      string // the subject of the token, or the user at a Unix socket; empty if not known
	TokenID string
	Addr    string
	Status  int // of the answer
}

// outcome is one of a closed set.
func (c *Call) outcome() string {
	switch {
	case c.Status == http.StatusUnauthorized, c.Status == http.StatusForbidden:
		return "refused"
	case c.Status >= 400:
		return "failed"
	}
	return "done"
}

// detail is the call with the values in its path, or only its pattern.
func (c *Call) detail() string {
	method, _, _ := strings.Cut(c.Pattern, " ")
	if c.Path == "" {
		return c.Pattern
	}
	return method + " " + c.Path
}

// Called records a call on the operator's listener. Readings of the metrics,
// which come all day, are counted and not logged.
func (w *Watch) Called(c Call) {
	outcome := c.outcome()
	pattern := c.Pattern
	if pattern == "" {
		pattern = "other"
	}
	w.calls.WithLabelValues(pattern, outcome).Inc()
	level := slog.LevelWarn
	switch {
	case pattern == "GET /metrics" && outcome == "done":
		return
	case strings.HasPrefix(pattern, "GET ") && outcome == "done":
		level = slog.LevelInfo
	}
	if outcome == "refused" {
		addr, _ := netip.ParseAddr(c.Addr)
		if !w.thinned.allow("operator call", ratelimit.Fold(addr), time.Now()) {
			return
		}
	}
	w.trail.Add(trail.Entry{
		Time: time.Now(), Kind: trail.KindOperator, Outcome: outcome, Addr: c.Addr,
		Device: c.By, TokenID: c.TokenID, Detail: c.detail(),
	})
	w.log.Log(context.Background(), level, "operator call", "call", c.detail(), "outcome", outcome, "status", c.Status,
		"by", c.By, "token_id", c.TokenID, "addr", c.Addr)
}

// Scraped records when the token expires that the metrics were read with.
func (w *Watch) Scraped(expires time.Time) {
	w.scraper.Set(float64(expires.Unix()))
}

// Flooded takes a client that was disconnected for frames that deliver nothing.
func (w *Watch) Flooded(addr netip.Addr) {
	w.suspicious(w.suspects.Flooded(addr, time.Now()))
}

func (w *Watch) rejected(_ *http.Request, d ratelimit.Decision, suppressed uint64) {
	w.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindRefused, Outcome: string(d.Reason), Addr: clientName(d), Count: suppressed + 1})
	w.log.Warn("connection refused", "client", clientName(d), "reason", string(d.Reason),
		"retry_after", d.RetryAfter.Round(time.Millisecond), "suppressed", suppressed)
}

// suspicious records e if it happened. The log record's format is stable, so
// that other programs can read it: msg=suspicious, then outcome (failures,
// churn, origins or floods), addr, count, within and client. Later versions may
// only insert attributes before client, which is the last.
func (w *Watch) suspicious(e suspect.Event, happened bool) {
	if !happened {
		return
	}
	w.suspected.WithLabelValues(string(e.Kind)).Inc()
	w.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindSuspicious, Outcome: string(e.Kind), Addr: e.Addr.String(), Count: uint64(e.Count)})
	w.log.Warn("suspicious", "outcome", string(e.Kind), "addr", e.Addr, "count", e.Count, "within", e.Within.Round(time.Millisecond),
		"client", clientOf(e.Addr))
}

var _ prometheus.Collector = (*Watch)(nil)
