package watch

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relayguard/relayguard/examples/server/watch/suspect"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
)

// Namespace is what the names of the relay's metrics begin with.
const Namespace = "relayguard"

// originRefusal stands among the limiter's reasons in the metric of refusals.
const originRefusal = "origin"

// counts are the metrics of security events. Labels have values of closed sets
// only: no address, device or token ever becomes one, or a stranger could fill
// the memory of both sides.
type counts struct {
	refused   *prometheus.CounterVec
	auth      *prometheus.CounterVec
	suspected *prometheus.CounterVec
	blocked   prometheus.Counter
}

func newCounts() counts {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: Namespace, Name: name, Help: help}, labels)
	}
	c := counts{
		refused:   counter("connections_refused_total", "Connections refused before their upgrade: by a limit, a block, or for a foreign origin.", "reason"),
		auth:      counter("auth_events_total", "Authentication events, by the audit's outcome and reason.", "outcome", "reason"),
		suspected: counter("suspicious_total", "Suspicious clients, each at most once in 10 minutes for each outcome: failures, churn, origins.", "outcome"),
		blocked: prometheus.NewCounter(prometheus.CounterOpts{Namespace: Namespace, Name: "addresses_blocked_total",
			Help: "Blocks of addresses that showed too many bad tokens."}),
	}
	// An event that has not happened yet is 0 and not absent, or its first time
	// would be no rise.
	for _, reason := range []ratelimit.Reason{
		ratelimit.ReasonLimit, ratelimit.ReasonAttempts, ratelimit.ReasonOpen, ratelimit.ReasonProcess, ratelimit.ReasonTotal, ratelimit.ReasonBlocked, ratelimit.ReasonPenalty,
		originRefusal,
	} {
		c.refused.WithLabelValues(string(reason))
	}
	for _, kind := range wsauth.EventKinds() {
		c.auth.WithLabelValues(string(kind), "")
	}
	for _, kind := range suspect.Kinds() {
		c.suspected.WithLabelValues(string(kind))
	}
	return c
}

func (c *counts) all() []prometheus.Collector {
	return []prometheus.Collector{c.refused, c.auth, c.suspected, c.blocked}
}

// Describe implements [prometheus.Collector].
func (c *counts) Describe(out chan<- *prometheus.Desc) {
	for _, one := range c.all() {
		one.Describe(out)
	}
}

// Collect implements [prometheus.Collector].
func (c *counts) Collect(out chan<- prometheus.Metric) {
	for _, one := range c.all() {
		one.Collect(out)
	}
}

func (c *counts) decided(_ *http.Request, d ratelimit.Decision) {
	if d.Reason != ratelimit.ReasonNone {
		c.refused.WithLabelValues(string(d.Reason)).Inc()
	}
}

func (c *counts) event(e wsauth.Event) {
	c.auth.WithLabelValues(string(e.Kind), string(e.Reason)).Inc()
	if e.Kind == wsauth.EventOriginRefused {
		c.refused.WithLabelValues(originRefusal).Inc()
	}
}
