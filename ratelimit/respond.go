package ratelimit

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Status is the HTTP status of a refusal: 403 Forbidden for the blocked, 429 Too Many Requests for the limited.
func (r Reason) Status() int {
	switch r {
	case ReasonNone:
		return http.StatusOK
	case ReasonBlocked, ReasonPenalty:
		return http.StatusForbidden
	}
	return http.StatusTooManyRequests
}

// Refuse answers a request that was refused, as [Limiter.Handler] does: 403, or 429 with Retry-After, and a body that
// names neither the reason nor the client. Plain text unless Config.ProblemJSON is set.
//
// Retry-After (RFC 9110, section 10.2.3) is Decision.RetryAfter plus a random part of up to a tenth of it, at most ten
// seconds, rounded up to seconds: never too early, at least 1, and not the same moment for all who wait.
func (l *Limiter) Refuse(w http.ResponseWriter, d Decision) {
	status := d.Reason.Status()
	if status == http.StatusOK {
		status = http.StatusTooManyRequests
	}
	h := w.Header()
	l.cfg.Fields.set(h, d, l.cfg)
	h.Set("Cache-Control", "no-store")
	if status == http.StatusTooManyRequests && d.RetryAfter > 0 {
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

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Fields is a version of the IETF's RateLimit header fields, which are still a draft
// (draft-ietf-httpapi-ratelimit-headers) and were renamed along the way.
type Fields int

// The versions.
const (
	FieldsNone    Fields = iota
	FieldsDraft06        // RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset
	FieldsDraft10        // RateLimit-Policy: "client";q=10;w=60 and RateLimit: "client";r=9;t=42
)

// set writes the fields for clients that have a window; the blocked have none.
func (f Fields) set(h http.Header, d Decision, c Config) {
	if d.Reset <= 0 {
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
