package ratelimit

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Status returns the HTTP status of a response for this reason: 403 Forbidden
// for a blocked client, 503 Service Unavailable for ReasonTotal, since the
// client has done nothing, 429 Too Many Requests for the other limits, 200 OK
// for ReasonNone.
func (r Reason) Status() int {
	switch r {
	case ReasonNone:
		return http.StatusOK
	case ReasonBlocked, ReasonPenalty:
		return http.StatusForbidden
	case ReasonTotal:
		return http.StatusServiceUnavailable
	}
	return http.StatusTooManyRequests
}

// Refuse answers a refused request as [Limiter.Handler] does: with status 403,
// or 429 or 503 and Retry-After, and with Cache-Control: no-store. The body
// names neither the reason nor the client. It is plain text, or problem+json if
// Config.ProblemJSON is set.
//
// Retry-After (RFC 9110, section 10.2.3) is Decision.RetryAfter plus a random
// time, of up to a tenth of it and at most ten seconds, rounded up to whole
// seconds. So it is at least 1 and never too early, and clients do not all
// return at the same moment.
func (l *Limiter) Refuse(w http.ResponseWriter, d Decision) {
	status := d.Reason.Status()
	if status == http.StatusOK {
		status = http.StatusTooManyRequests
	}
	h := w.Header()
	l.cfg.Fields.set(h, d, l.cfg)
	h.Set("Cache-Control", "no-store")
	if status != http.StatusForbidden && d.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(seconds(d.RetryAfter+jitter(d.RetryAfter)), 10))
	}
	if !l.cfg.ProblemJSON {
		http.Error(w, http.StatusText(status), status)
		return
	}
	h.Del("Content-Length")
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, fmt.Sprintf("{\"type\":\"about:blank\",\"title\":%q,\"status\":%d}\n", http.StatusText(status), status))
}

func jitter(d time.Duration) time.Duration {
	return rand.N(min(d/10, 10*time.Second) + 1)
}

// seconds returns d in seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Fields is a version of the RateLimit header fields. They are a draft of the
// IETF (draft-ietf-httpapi-ratelimit-headers), whose versions use different
// names.
type Fields int

// The versions of the header fields.
const (
	FieldsNone Fields = iota
	// FieldsDraft06 is RateLimit-Limit, RateLimit-Remaining and
	// RateLimit-Reset.
	FieldsDraft06
	// FieldsDraft10 is RateLimit-Policy: "client";q=10;w=60 and RateLimit:
	// "client";r=9;t=42.
	FieldsDraft10
)

// set writes the fields for a client that has a window. A blocked client has
// none.
func (f Fields) set(h http.Header, d Decision, c Config) {
	if d.Reset <= 0 || d.Reason.Status() == http.StatusForbidden {
		return
	}
	reset := seconds(d.Reset)
	switch f {
	case FieldsDraft06:
		h.Set("RateLimit-Limit", strconv.Itoa(d.Limit))
		h.Set("RateLimit-Remaining", strconv.Itoa(d.Remaining))
		h.Set("RateLimit-Reset", strconv.FormatInt(reset, 10))
	case FieldsDraft10:
		h.Set("RateLimit-Policy", fmt.Sprintf(`"client";q=%d;w=%d`, d.Limit, seconds(c.Window)))
		h.Set("RateLimit", fmt.Sprintf(`"client";r=%d;t=%d`, d.Remaining, reset))
	}
}
