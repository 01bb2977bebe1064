package watch

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relayguard/relayguard/examples/server/watch/suspect"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
)

// Namespace is the prefix of the names of the relay's metrics.
const Namespace = "relayguard"

// originRefusal is a reason in the metric of refusals, in addition to the
// limiter's reasons.
const originRefusal = "origin"

// counts are the metrics of security events. Every label has a closed set of
// values. An address, device or token is never a value, because a stranger
// could then fill the memory of the relay and of Prometheus.
type counts struct {
	refused   *prometheus.CounterVec
	auth      *prometheus.CounterVec
	suspected *prometheus.CounterVec
	calls     *prometheus.CounterVec
	blocked   prometheus.Counter
	scraper   prometheus.Gauge
}

func newCounts() counts {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: Namespace, Name: name, Help: help}, labels)
	}
	c := counts{
		refused:   counter("connections_refused_total", "Connections refused before their upgrade: by a limit, a block, or for a foreign origin.", "reason"),
		auth:      counter("auth_events_total", "Authentication events, by the audit's outcome and reason.", "outcome", "reason"),
		suspected: counter("suspicious_total", "Suspicious clients, each at most once in 10 minutes for each outcome: failures, churn, origins, floods.", "outcome"),
		calls:     counter("operator_calls_total", "Calls on the operator's listener, by their outcome: done, failed or refused.", "call", "outcome"),
		scraper: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: Namespace, Name: "metrics_token_expires_timestamp_seconds",
			Help: "When the token expires that these metrics were read with, in Unix seconds; 0 if it never does, or none was needed."}),
		blocked: prometheus.NewCounter(prometheus.CounterOpts{Namespace: Namespace, Name: "addresses_blocked_total",
			Help: "Penalties of addresses that sent too many wrong tokens, and may send none for a while."}),
	}
	// The counter of an event that has not happened yet is 0 and not absent. If
	// it were absent, Prometheus would see no increase at the first event.
	for _, reason := range []ratelimit.Reason{
		ratelimit.ReasonLimit, ratelimit.ReasonAttempts, ratelimit.ReasonOpen, ratelimit.ReasonProcess, ratelimit.ReasonTotal, ratelimit.ReasonBlocked, ratelimit.ReasonPenalty,
		originRefusal,
	} {
		c.refused.WithLabelValues(string(reason))
	}
	for _, outcome := range []string{"done", "failed", "refused"} {
		c.calls.WithLabelValues("other", outcome)
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
	return []prometheus.Collector{c.refused, c.auth, c.suspected, c.calls, c.blocked, c.scraper}
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

// decidedThen counts each decision before next gets it, if that is not nil.
func (c *counts) decidedThen(next func(*http.Request, ratelimit.Decision)) func(*http.Request, ratelimit.Decision) {
	if next == nil {
		return c.decided
	}
	return func(r *http.Request, d ratelimit.Decision) {
		c.decided(r, d)
		next(r, d)
	}
}

func (c *counts) event(e wsauth.Event) {
	c.auth.WithLabelValues(string(e.Kind), string(e.Reason)).Inc()
	if e.Kind == wsauth.EventOriginRefused {
		c.refused.WithLabelValues(originRefusal).Inc()
	}
}
