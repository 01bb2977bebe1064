package site

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relayguard/relayguard/examples/server/watch"
)

// endsEvery is how often the families of refresh tokens are read for the
// metrics.
const endsEvery = time.Minute

// ends are the hard ends of which an alert must warn in time: that of the
// certificate, and the earliest of a family of refresh tokens. A device whose
// family has ended is silent until a person brings it a new pair.
type ends struct {
	of                  *Site
	certificate, family *prometheus.Desc

	mu       sync.Mutex
	read     time.Time
	earliest time.Time // zero if there is no family
}

func newEnds(s *Site) *ends {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(watch.Namespace, "", name), help, nil, nil)
	}
	return &ends{
		of:          s,
		certificate: desc("certificate_expires_timestamp_seconds", "When the certificate expires, in Unix seconds; 0 if a proxy ends TLS, or if there is none yet."),
		family:      desc("refresh_family_ends_timestamp_seconds", "When the first family of refresh tokens ends however often it is refreshed, in Unix seconds; 0 if there is none. `server families -prolong` prolongs one."),
	}
}

// Describe implements [prometheus.Collector].
func (e *ends) Describe(out chan<- *prometheus.Desc) {
	out <- e.certificate
	out <- e.family
}

// Collect implements [prometheus.Collector].
func (e *ends) Collect(out chan<- prometheus.Metric) {
	var certificate time.Time
	if e.of.cert != nil {
		certificate = e.of.cert.Expires()
	}
	out <- prometheus.MustNewConstMetric(e.certificate, prometheus.GaugeValue, unix(certificate))
	out <- prometheus.MustNewConstMetric(e.family, prometheus.GaugeValue, unix(e.first(time.Now())))
}

// first returns the earliest end of a family.
func (e *ends) first(now time.Time) time.Time {
	issuer := e.of.Authority.Issuer()
	if issuer == nil {
		return time.Time{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Sub(e.read) < endsEvery && !now.Before(e.read) {
		return e.earliest
	}
	e.read, e.earliest = now, time.Time{}
	// Families that cannot be read are a matter of the log.
	all, _ := issuer.Families(context.Background())
	for _, f := range all {
		if e.earliest.IsZero() || f.EndsAt.Before(e.earliest) {
			e.earliest = f.EndsAt
		}
	}
	return e.earliest
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
