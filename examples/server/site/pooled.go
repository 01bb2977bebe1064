package site

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relayguard/relayguard/examples/server/watch"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/clientip"
)

// pooled reports the two ways in which all clients of a trusted proxy become
// one client, and reach its limits together: the proxy sends a forwarding
// header that cannot be read, or none at all.
type pooled struct {
	clients    *clientip.Resolver // reports, so it must resolve each request once
	quiet      *clientip.Resolver // the same, and reports nothing
	thin       *slog.Logger
	unreadable *prometheus.CounterVec
	refused    prometheus.Counter
}

func newPooled(clients *clientip.Resolver, log, thin *slog.Logger) *pooled {
	p := &pooled{
		quiet: clients, thin: thin,
		unreadable: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: watch.Namespace, Name: "forwarding_unreadable_total",
			Help: "WebSocket requests of trusted proxies whose forwarding headers cannot be read. All of them count as one client."}, []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Namespace: watch.Namespace, Name: "proxies_refused_total",
			Help: "WebSocket requests that were refused because a trusted proxy itself is over a limit or blocked: all clients whose address it does not pass on count as one."}),
	}
	for _, reason := range []clientip.Reason{clientip.ReasonNotAnAddress, clientip.ReasonObfuscated, clientip.ReasonAmbiguous, clientip.ReasonNoAddress} {
		p.unreadable.WithLabelValues(string(reason))
	}
	p.clients = clients.Report(func(_ *http.Request, res clientip.Result, suppressed uint64) {
		var attrs []any
		if res.Addr.IsValid() {
			attrs = append(attrs, "addr", res.Addr)
		}
		log.Warn("unreadable forwarding header of a trusted proxy, so all clients that it sends so count as one",
			append(attrs, "error", res.Err, "suppressed", suppressed)...)
	})
	return p
}

// addr returns the address of the client for the limiter.
func (p *pooled) addr(r *http.Request) netip.Addr {
	res := p.clients.Resolve(r)
	if err, unreadable := errors.AsType[*clientip.Error](res.Err); unreadable {
		p.unreadable.WithLabelValues(string(err.Reason)).Inc()
	}
	return res.Addr
}

// decided takes every decision of the limiter.
func (p *pooled) decided(r *http.Request, d ratelimit.Decision) {
	switch d.Reason {
	case ratelimit.ReasonNone, ratelimit.ReasonTotal, ratelimit.ReasonProcess:
		return // not the client's fault
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && !p.quiet.Trusts(peer.Addr()) {
		return
	}
	// Decision.Client may be a network that the proxy and others are in. A peer
	// on a Unix socket has no address, and neither have its clients then.
	if ratelimit.Fold(p.quiet.Addr(r)) != ratelimit.Fold(peer.Addr()) {
		return
	}
	p.refused.Inc()
	attrs := []any{"reason", string(d.Reason)}
	if err == nil {
		attrs = append(attrs, "addr", peer.Addr().Unmap().WithZone(""))
	}
	p.thin.Warn("a trusted proxy itself was refused: it passes on no readable address, so its clients count as one", attrs...)
}
