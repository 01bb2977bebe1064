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
// names neither the reason nor the client. It is plain text, problem+json if
// Config.ProblemJSON is set, or what Config.Body returns.
//
// Retry-After (RFC 9110, section 10.2.3) is Decision.RetryAfter plus a random
// time, of up to a tenth of it and at most ten seconds, rounded up to whole
// seconds. So it is at least 1 and never too early, and clients do not all
// return at the same moment.
func (l *Limiter) Refuse(w http.ResponseWriter, r *http.Request, d Decision) {
	status := d.Reason.Status()
	if status == http.StatusOK {
		status = http.StatusTooManyRequests
	}
	h := w.Header()
	l.setFields(h, d)
	h.Set("Cache-Control", "no-store")
	if status != http.StatusForbidden && d.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(seconds(d.RetryAfter+jitter(d.RetryAfter)), 10))
	}
	contentType, body := "text/plain; charset=utf-8", http.StatusText(status)+"\n"
	switch {
	case l.cfg.Body != nil:
		contentType, body = l.cfg.Body(r, d)
	case l.cfg.ProblemJSON:
		contentType = "application/problem+json"
		body = fmt.Sprintf("{\"type\":\"about:blank\",\"title\":%q,\"status\":%d}\n", http.StatusText(status), status)
	}
	// These would describe another body, as of a page that was begun.
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func jitter(d time.Duration) time.Duration {
	return rand.N(min(d/10, 10*time.Second) + 1)
}

// seconds returns d in seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// setFields adds the fields for a client that has a window. A blocked client
// has none. Both fields are lists, so it appends to those of other limiters.
func (l *Limiter) setFields(h http.Header, d Decision) {
	if l.cfg.Fields == 0 || d.Reset <= 0 || d.Limit == 0 || d.Reason.Status() == http.StatusForbidden {
		return
	}
	item := func(field, first string, a int, second string, b int64) {
		var buf [64]byte
		text := buf[:0]
		for _, others := range h[field] {
			text = append(append(text, others...), ", "...)
		}
		text = append(append(append(text, '"'), l.cfg.Name...), '"')
		text = strconv.AppendInt(append(text, first...), int64(a), 10)
		text = strconv.AppendInt(append(text, second...), b, 10)
		h[field] = []string{string(text)}
	}
	item("Ratelimit-Policy", ";q=", d.Limit, ";w=", seconds(l.cfg.Window))
	item("Ratelimit", ";r=", d.Remaining, ";t=", seconds(d.Reset))
}
