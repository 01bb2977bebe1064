package headers

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ReportConfig sets the bounds of a [ReportHandler]. A zero field means its
// default.
type ReportConfig struct {
	// MaxBody is the maximum size of a request's body in bytes. Default 65,536.
	MaxBody int64
	// MaxOpen is the maximum number of requests that are read at the same time.
	// Together they take MaxOpen times MaxBody of memory. Default 16.
	MaxOpen int
	// Rate is the maximum number of reports per second, of all clients
	// together. Default 10.
	Rate float64
	// Burst is the maximum number of reports at once. Default 100.
	Burst int
	// MaxDistinct is the maximum number of different violations that are kept
	// at a time. Default 256.
	MaxDistinct int
	// Window is the time after which all kept violations are dropped. A
	// violation that is reported again then counts as new. Default one hour.
	Window time.Duration

	// Log gets one record for each violation that is new in its window, and one
	// for the first malformed request in each window. If nil, nothing is
	// logged.
	Log *slog.Logger
	// OnViolation is called for each violation that is new in its window, in
	// the goroutine that serves the report. If nil, nothing is called.
	OnViolation func(Violation)
}

// Violation is the part of a report that is kept. Anyone can send a report, so
// no field holds free text of the sender. Each field is a word of a closed set,
// or an origin or a path of harmless characters.
type Violation struct {
	// Kind is the type of the report: "csp-violation", "coep", "coop",
	// "permissions-policy-violation", "integrity-violation",
	// "connection-allowlist" and others, or "other".
	Kind string
	// Directive is the violated part of the policy: the effective directive of
	// a CSP, the feature of a Permissions-Policy or a Document-Policy, or
	// "other". It is empty for other kinds.
	Directive string
	// Blocked is scheme://host of the blocked resource, or a word such as
	// "inline", "eval", "data", "blob", "webrtc", "extension" or "other".
	Blocked string
	// Page is the path of the page, without the query, or "other".
	Page string
	// ReportOnly reports whether the violated policy is only reported and not
	// enforced. It is read for every kind.
	ReportOnly bool
}

// ViolationCount is the number of reports of a violation in the current window.
type ViolationCount struct {
	Violation
	Count       uint64
	First, Last time.Time
}

// ReportStats holds the counts of a [ReportHandler] since it was made. They
// count reports, except for Oversize and Malformed, which count requests.
type ReportStats struct {
	Accepted  uint64 // counted in a violation
	Throttled uint64 // over Rate or the bound of a request; an unread request counts as one
	Overflow  uint64 // new, but MaxDistinct violations are kept
	Oversize  uint64 // longer than MaxBody
	Malformed uint64 // unknown content type, or not a report

	// Violations are those of the current window, the most frequent first.
	Violations []ViolationCount
}

// ReportHandler receives the reports that browsers send to the report-uri of a
// CSP (application/csp-report) and to Reporting-Endpoints
// (application/reports+json). It answers every request with 204, so senders
// learn nothing and browsers do not try again. It is safe for concurrent use,
// starts no goroutine, and keeps at most MaxDistinct violations.
//
// A request takes its place among MaxOpen and the rate of one report before its
// body is read. A request that does not get both is not read. Each further
// report in the body takes the rate of one more. At most 100 reports of a body
// are decoded.
//
// ReportHandler has no timeout for reading a request. Set ReadTimeout of the
// http.Server.
type ReportHandler struct {
	cfg  ReportConfig
	open atomic.Int64

	mu         sync.Mutex
	tokens     bucket
	since      time.Time
	seen       map[Violation]*ViolationCount
	complained bool        // of a malformed request in this window
	stats      ReportStats // without Violations
}

// NewReportHandler returns a handler with the bounds of cfg. If fields are
// negative, it returns an error for each, joined with [errors.Join], each a
// [*ConfigError].
func NewReportHandler(cfg ReportConfig) (*ReportHandler, error) {
	var errs []error
	bound := func(field string, negative bool) {
		if negative {
			errs = append(errs, &ConfigError{"ReportConfig." + field, ConfigNegative})
		}
	}
	bound("MaxBody", cfg.MaxBody < 0)
	bound("MaxOpen", cfg.MaxOpen < 0)
	bound("Rate", !(cfg.Rate >= 0))
	bound("Burst", cfg.Burst < 0)
	bound("MaxDistinct", cfg.MaxDistinct < 0)
	bound("Window", cfg.Window < 0)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	setDefault(&cfg.MaxBody, 64<<10)
	setDefault(&cfg.MaxOpen, 16)
	setDefault(&cfg.Rate, 10)
	setDefault(&cfg.Burst, 100)
	setDefault(&cfg.MaxDistinct, 256)
	setDefault(&cfg.Window, time.Hour)
	return &ReportHandler{
		cfg:    cfg,
		tokens: newBucket(cfg.Rate, cfg.Burst),
		seen:   make(map[Violation]*ViolationCount),
	}, nil
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// ServeHTTP reads the reports in the request, and answers 204 in every case.
func (h *ReportHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		h.serve(r, time.Now())
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *ReportHandler) serve(r *http.Request, now time.Time) {
	// Every bound that needs no body is checked before the body is read.
	defer h.open.Add(-1)
	if h.open.Add(1) > int64(h.cfg.MaxOpen) {
		h.throttle(1)
		return
	}
	if !h.take(now) {
		return
	}
	contentType := r.Header.Get("Content-Type")
	switch {
	case mediaType(contentType) == "":
		h.malformed(now)
		return
	case r.ContentLength > h.cfg.MaxBody:
		h.oversize()
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, h.cfg.MaxBody+1))
	switch {
	case err != nil:
		h.malformed(now)
	case int64(len(body)) > h.cfg.MaxBody:
		h.oversize()
	default:
		h.receive(contentType, body, now)
	}
}

// take takes the rate of one report. If there is none, it counts one throttled.
func (h *ReportHandler) take(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tokens.take(now) {
		return true
	}
	h.stats.Throttled++
	return false
}

func (h *ReportHandler) throttle(n int) {
	h.mu.Lock()
	h.stats.Throttled += uint64(n)
	h.mu.Unlock()
}

func (h *ReportHandler) oversize() {
	h.mu.Lock()
	h.stats.Oversize++
	h.mu.Unlock()
}

func (h *ReportHandler) malformed(now time.Time) {
	h.mu.Lock()
	h.roll(now)
	h.stats.Malformed++
	first := !h.complained
	h.complained = true
	h.mu.Unlock()
	if first && h.cfg.Log != nil {
		h.cfg.Log.Warn("malformed violation report", "further", "counted, not logged", "window", h.cfg.Window)
	}
}

// Receive records the reports in the body of one request. Call it if you read
// the request yourself, instead of ServeHTTP. It checks neither MaxBody nor
// MaxOpen.
func (h *ReportHandler) Receive(contentType string, body []byte) {
	h.ReceiveAt(contentType, body, time.Now())
}

// ReceiveAt is [ReportHandler.Receive] at the time now.
func (h *ReportHandler) ReceiveAt(contentType string, body []byte, now time.Time) {
	if h.take(now) {
		h.receive(contentType, body, now)
	}
}

// receive records the reports in a body that has taken the rate of one report.
func (h *ReportHandler) receive(contentType string, body []byte, now time.Time) {
	violations, rest, err := parseReports(contentType, body)
	if err != nil {
		h.malformed(now)
		return
	}
	for i, v := range violations {
		if i > 0 && !h.take(now) {
			rest += len(violations) - i - 1 // take has counted one
			break
		}
		if h.record(v, now) {
			h.tell(v)
		}
	}
	h.throttle(rest)
}

// record counts the violation, and reports whether it is new in this window.
func (h *ReportHandler) record(v Violation, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.roll(now)
	c, known := h.seen[v]
	if !known {
		if len(h.seen) >= h.cfg.MaxDistinct {
			h.stats.Overflow++
			return false
		}
		c = &ViolationCount{Violation: v, First: now}
		h.seen[v] = c
	}
	h.stats.Accepted++
	c.Count++
	c.Last = now
	return !known
}

// roll drops the violations of a window that has ended. It makes a new map,
// because clear would keep the memory of the old one.
func (h *ReportHandler) roll(now time.Time) {
	if now.Sub(h.since) >= h.cfg.Window {
		h.since = now
		h.complained = false
		h.seen = make(map[Violation]*ViolationCount)
	}
}

func (h *ReportHandler) tell(v Violation) {
	if h.cfg.OnViolation != nil {
		h.cfg.OnViolation(v)
	}
	if h.cfg.Log != nil {
		h.cfg.Log.Warn("policy violation reported", "kind", v.Kind, "directive", v.Directive, "blocked", v.Blocked,
			"page", v.Page, "report_only", v.ReportOnly)
	}
}

// Stats returns a copy of the counts.
func (h *ReportHandler) Stats() ReportStats { return h.StatsAt(time.Now()) }

// StatsAt is [ReportHandler.Stats] at the time now.
func (h *ReportHandler) StatsAt(now time.Time) ReportStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.roll(now)
	s := h.stats
	for _, c := range h.seen {
		s.Violations = append(s.Violations, *c)
	}
	slices.SortFunc(s.Violations, func(a, b ViolationCount) int {
		switch {
		case a.Count != b.Count && a.Count > b.Count:
			return -1
		case a.Count != b.Count:
			return 1
		}
		return a.First.Compare(b.First)
	})
	return s
}
