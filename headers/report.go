package headers

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ReportConfig sets the bounds of a [ReportHandler]. A zero field means its
// default.
type ReportConfig struct {
	// MaxBody is the maximum size of a request's body in bytes. Default 65,536.
	MaxBody int64
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

	// Log gets one record for each violation that is new in its window. If nil,
	// nothing is logged.
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
	// "permissions-policy-violation" and others, or "other".
	Kind string
	// Directive is the effective directive of the CSP, or "other". It is empty
	// for other kinds.
	Directive string
	// Blocked is scheme://host of the blocked resource, or a word such as
	// "inline", "eval", "data", "blob", "extension" or "other".
	Blocked string
	// Page is the path of the page, without the query, or "other".
	Page string
	// ReportOnly reports whether the violated policy is not enforced.
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
	Throttled uint64 // over Rate; an unread request counts as one
	Overflow  uint64 // new, but MaxDistinct violations are kept
	Oversize  uint64 // longer than MaxBody
	Malformed uint64 // unknown content type, or not of that type

	// Violations are those of the current window, the most frequent first.
	Violations []ViolationCount
}

// ReportHandler receives the reports that browsers send to the report-uri of a
// CSP (application/csp-report) and to Reporting-Endpoints
// (application/reports+json). It answers every request with 204, so senders
// learn nothing and browsers do not try again. It is safe for concurrent use,
// starts no goroutine, and keeps at most MaxDistinct violations.
//
// It has no timeout for reading a request. Set ReadTimeout of the http.Server.
type ReportHandler struct {
	cfg     ReportConfig
	limiter *rate.Limiter

	mu    sync.Mutex
	since time.Time
	seen  map[Violation]*ViolationCount
	stats ReportStats // without Violations
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
	bound("Rate", !(cfg.Rate >= 0))
	bound("Burst", cfg.Burst < 0)
	bound("MaxDistinct", cfg.MaxDistinct < 0)
	bound("Window", cfg.Window < 0)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	setDefault(&cfg.MaxBody, 64<<10)
	setDefault(&cfg.Rate, 10)
	setDefault(&cfg.Burst, 100)
	setDefault(&cfg.MaxDistinct, 256)
	setDefault(&cfg.Window, time.Hour)
	return &ReportHandler{
		cfg:     cfg,
		limiter: rate.NewLimiter(rate.Limit(cfg.Rate), cfg.Burst),
		seen:    make(map[Violation]*ViolationCount),
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
	if h.limiter.TokensAt(now) < 1 {
		h.mu.Lock()
		h.stats.Throttled++
		h.mu.Unlock()
		return
	}
	var body []byte
	if r.ContentLength <= h.cfg.MaxBody {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, h.cfg.MaxBody+1)); err != nil {
			h.refuse(&h.stats.Malformed, now)
			return
		}
	}
	if r.ContentLength > h.cfg.MaxBody || int64(len(body)) > h.cfg.MaxBody {
		h.refuse(&h.stats.Oversize, now)
		return
	}
	h.ReceiveAt(r.Header.Get("Content-Type"), body, now)
}

// refuse counts a request without a report. It takes as much of the rate as one
// report.
func (h *ReportHandler) refuse(n *uint64, now time.Time) {
	h.limiter.AllowN(now, 1)
	h.mu.Lock()
	*n++
	h.mu.Unlock()
}

// Receive records the reports in the body of one request. Call it if you read
// the request yourself, instead of ServeHTTP.
func (h *ReportHandler) Receive(contentType string, body []byte) {
	h.ReceiveAt(contentType, body, time.Now())
}

// ReceiveAt is [ReportHandler.Receive] at the time now.
func (h *ReportHandler) ReceiveAt(contentType string, body []byte, now time.Time) {
	violations, err := ParseReports(contentType, body)
	if err != nil {
		h.refuse(&h.stats.Malformed, now)
		return
	}
	for _, v := range violations {
		if h.record(v, now) {
			h.tell(v)
		}
	}
}

// record counts the violation, and reports whether it is new in this window.
func (h *ReportHandler) record(v Violation, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.limiter.AllowN(now, 1) {
		h.stats.Throttled++
		return false
	}
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

// legacyReport is the body of a report to report-uri (CSP Level 3, section
// 5.3).
type legacyReport struct {
	Report *struct {
		Document    string `json:"document-uri"`
		Effective   string `json:"effective-directive"`
		Violated    string `json:"violated-directive"`
		Blocked     string `json:"blocked-uri"`
		Disposition string `json:"disposition"`
	} `json:"csp-report"`
}

// report is one report of the Reporting API.
type report struct {
	Type string `json:"type"`
	URL  string `json:"url"`
	Body struct {
		Document    string `json:"documentURL"`
		Effective   string `json:"effectiveDirective"`
		Blocked     string `json:"blockedURL"`
		Disposition string `json:"disposition"`
	} `json:"body"`
}

var errReport = errors.New("headers: not a violation report")

// ParseReports reads the body of a request in the format of its content type,
// and reduces each report in it to a [Violation]. Its error does not quote the
// body.
func ParseReports(contentType string, body []byte) ([]Violation, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, errReport
	}
	switch media {
	case "application/csp-report":
		var l legacyReport
		if json.Unmarshal(body, &l) != nil || l.Report == nil {
			return nil, errReport
		}
		r := l.Report
		name := r.Effective
		if name == "" {
			name, _, _ = strings.Cut(r.Violated, " ")
		}
		return []Violation{{
			Kind: "csp-violation", Directive: directiveWord(name), Blocked: blockedWord(r.Blocked),
			Page: pageWord(r.Document), ReportOnly: r.Disposition == "report",
		}}, nil
	case "application/reports+json":
		var rs []report
		if json.Unmarshal(body, &rs) != nil {
			return nil, errReport
		}
		vs := make([]Violation, len(rs))
		for i, r := range rs {
			v := Violation{
				Kind: kindWord(r.Type), Blocked: blockedWord(r.Body.Blocked), Page: pageWord(r.URL),
				ReportOnly: r.Body.Disposition == "report" || r.Body.Disposition == "reporting",
			}
			if v.Kind == "csp-violation" {
				v.Directive = directiveWord(r.Body.Effective)
				if r.URL == "" {
					v.Page = pageWord(r.Body.Document)
				}
			}
			vs[i] = v
		}
		return vs, nil
	}
	return nil, errReport
}

const other = "other"

var kinds = []string{
	"csp-violation", "csp-hash", "coep", "coop", "permissions-policy-violation", "document-policy-violation",
	"integrity-violation", "deprecation", "intervention", "crash", "network-error",
}

func kindWord(s string) string {
	if slices.Contains(kinds, s) {
		return s
	}
	return other
}

func directiveWord(s string) string {
	if _, ok := directives[s]; ok {
		return s
	}
	return other
}

var (
	blockedKeywords = []string{
		"inline", "eval", "wasm-eval", "self", "data", "blob", "filesystem", "about", "trusted-types-policy",
		"trusted-types-sink",
	}
	extensionSchemes = []string{
		"chrome-extension", "moz-extension", "safari-extension", "safari-web-extension", "ms-browser-extension",
	}
)

// blockedWord keeps only the origin of a URL. The rest may contain a token or
// the input of a user.
func blockedWord(s string) string {
	if s == "" || slices.Contains(blockedKeywords, s) {
		return s
	}
	u, err := url.Parse(s)
	scheme, _, _ := strings.Cut(s, ":")
	switch {
	case slices.Contains(extensionSchemes, scheme):
		return "extension"
	case slices.Contains(blockedKeywords, scheme):
		return scheme
	case err != nil || len(u.Host) > 100 || !isHarmless(u.Host, ".-:[]"):
		return other
	}
	switch u.Scheme {
	case "http", "https", "ws", "wss":
		return u.Scheme + "://" + strings.ToLower(u.Host)
	}
	return other
}

func pageWord(s string) string {
	u, err := url.Parse(s)
	if err != nil || len(u.Path) > 100 || !strings.HasPrefix(u.Path, "/") || !isHarmless(u.Path, "/._-") {
		return other
	}
	return u.Path
}

func isHarmless(s, marks string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune(marks, r)
	})
}
