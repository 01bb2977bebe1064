// Package watch gives the relay's security events their consequences: a line in
// the log, a metric, an entry in the trail, and a penalty for the address that
// they come from.
package watch

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/examples/server/watch/suspect"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/clientip"
	"github.com/relayguard/relayguard/wsauth"
)

// maxSuspects is how many clients are watched for suspicious patterns, in some
// two megabytes.
const maxSuspects = 5000

// Config is what the events go to. All fields but Proxies are required.
type Config struct {
	Log   *slog.Logger
	Trail *trail.Trail
	// Proxies are the trusted proxies. A limit that one of them reaches is
	// reached by all visitors behind it.
	Proxies []netip.Prefix
	// Limits are those of the limiter that penalties are for. New makes the
	// limiter, so that neither exists without the other; it sets OnReject and
	// Observe itself.
	Limits ratelimit.Config
}

// Watch takes the events. It is a [prometheus.Collector] of their counts, and
// safe for concurrent use.
type Watch struct {
	log      *slog.Logger
	trail    *trail.Trail
	limiter  *ratelimit.Limiter
	proxies  []netip.Prefix
	suspects *suspect.Detector
	audit    func(wsauth.Event)
	counts
}

// New returns a Watch with the limiter that it penalizes addresses at.
func New(cfg Config) (*Watch, error) {
	if cfg.Log == nil || cfg.Trail == nil {
		return nil, errors.New("watch: Config.Log and Config.Trail are required")
	}
	w := &Watch{
		log: cfg.Log, trail: cfg.Trail, proxies: cfg.Proxies, suspects: suspect.New(maxSuspects),
		audit: wsauth.AuditLog(slog.New(withClient{cfg.Log.Handler()})), counts: newCounts(),
	}
	cfg.Limits.OnReject, cfg.Limits.Observe = w.rejected, w.decided
	var err error
	w.limiter, err = ratelimit.New(cfg.Limits)
	return w, err
}

// Limiter returns the limiter.
func (w *Watch) Limiter() *ratelimit.Limiter { return w.limiter }

// Event takes an event of the audit. A refused token counts against the address
// that showed it, so that a client that goes on guessing is blocked before it
// is upgraded.
func (w *Watch) Event(e wsauth.Event) {
	w.audit(e)
	w.event(e)
	w.trail.Add(trail.FromEvent(e))
	switch e.Kind {
	case wsauth.EventRefused:
		w.Failed(e.Peer.Addr)
	case wsauth.EventOriginRefused:
		w.suspicious(w.suspects.Foreign(e.Peer.Addr, e.Detail, time.Now()))
	}
}

// Failed counts a refused token, of either kind, against addr.
func (w *Watch) Failed(addr netip.Addr) {
	w.suspicious(w.suspects.Failed(addr, time.Now()))
	if until, blocked := w.limiter.Fail(addr); blocked {
		w.blocked.Inc()
		w.log.Warn("address blocked", "addr", addr, "until", until)
		w.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "penalty", Addr: addr.String(), Until: &until})
	}
}

// Barred reports whether addr was blocked since its connection was admitted.
func (w *Watch) Barred(addr netip.Addr) bool {
	_, blocked := w.limiter.Blocked(addr)
	return blocked
}

// Ended looks at the length of a connection that has ended by itself. The
// connections of a blocked address are ended for it.
func (w *Watch) Ended(addr netip.Addr, lasted time.Duration) {
	if !w.Barred(addr) {
		w.suspicious(w.suspects.Ended(addr, lasted, time.Now()))
	}
}

func (w *Watch) rejected(_ *http.Request, d ratelimit.Decision, suppressed uint64) {
	client := d.Client.String()
	if !d.Client.IsValid() && d.Coarse {
		client = "others"
	}
	attrs := []any{"client", client, "reason", string(d.Reason),
		"retry_after", d.RetryAfter.Round(time.Millisecond), "suppressed", suppressed}
	if slices.ContainsFunc(w.proxies, d.Client.Overlaps) {
		attrs = append(attrs, "hint", "a trusted proxy: all visitors behind it count as this one client; let it send X-Forwarded-For")
	}
	w.log.Warn("connection refused", attrs...)
	w.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindRefused, Outcome: string(d.Reason), Addr: client, Count: suppressed + 1})
}

// Unreadable takes a request whose forwarding header cannot be understood, so
// that all visitors behind its peer count as one client. Use it for
// [clientip.Resolver.Report].
func (w *Watch) Unreadable(_ *http.Request, res clientip.Result, suppressed uint64) {
	w.log.Warn("client address unreadable", "peer", res.Addr, "error", res.Err, "suppressed", suppressed,
		"hint", "all visitors behind this peer count as one client")
}

// suspicious records e if it happened. The log record's format is stable, so
// that other programs can read it: msg=suspicious, then outcome (failures,
// churn or origins), addr, count, within and client. Later versions may only
// insert before client, which is the last.
func (w *Watch) suspicious(e suspect.Event, happened bool) {
	if !happened {
		return
	}
	w.suspected.WithLabelValues(string(e.Kind)).Inc()
	w.log.Warn("suspicious", "outcome", string(e.Kind), "addr", e.Addr, "count", e.Count, "within", e.Within.Round(time.Millisecond),
		"client", clientOf(e.Addr))
	w.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindSuspicious, Outcome: string(e.Kind), Addr: e.Addr.String(), Count: uint64(e.Count)})
}

var _ prometheus.Collector = (*Watch)(nil)
