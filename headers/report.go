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

// ReportConfig bounds a ReportHandler. Zero fields mean the defaults.
type ReportConfig struct {
	MaxBody     int64         // bytes of one request; default 65,536
	Rate        float64       // reports a second, over all clients; default 10
	Burst       int           // reports at once; default 100
	MaxDistinct int           // different violations remembered at a time; default 256
	Window      time.Duration // after it the remembered ones are dropped whole, and told anew; default 1 hour

	// Log gets one record for each violation that is new in its window, and none for its repetitions. Nil: silence.
	Log *slog.Logger
	// OnViolation is called as Log is, from the goroutine that serves the report. Nil: nobody is told.
	OnViolation func(Violation)
}

// A Violation is what is kept of a report. Anybody can send one, so nothing in it is text of the sender's choice: each
// field is one of a closed set of words, or an origin or a path reduced to harmless characters.
type Violation struct {
	Kind       string // type of the report: "csp-violation", "coep", "coop", "permissions-policy-violation", … or "other"
	Directive  string // effective CSP directive, or "other"; empty for other kinds
	Blocked    string // scheme://host of what was blocked, or "inline", "eval", "data", "blob", "extension", "other", …
	Page       string // path of the page without query, or "other"
	ReportOnly bool   // the policy that was violated is not enforced
}

// A ViolationCount says how often a violation was reported in the current window.
type ViolationCount struct {
	Violation
	Count       uint64
	First, Last time.Time
}

// ReportStats is what a ReportHandler has seen. The totals count from its making, in reports, but for Oversize and
// Malformed, which count requests.
type ReportStats struct {
	Accepted  uint64 // counted in a violation
	Throttled uint64 // over the rate; a request turned away unread counts as one
	Overflow  uint64 // new while MaxDistinct others were remembered
	Oversize  uint64 // body over MaxBody
	Malformed uint64 // unknown content type, or not what it says

	Violations []ViolationCount // of the current window, most frequent first
}

// A ReportHandler receives the reports that browsers send to a policy's report-uri (application/csp-report) and
// Reporting-Endpoints (application/reports+json). It answers 204 to everything, so it tells nobody anything and no
// browser tries again. It is safe for concurrent use, starts no goroutine and keeps at most MaxDistinct violations.
//
// It reads whatever arrives until the server's own ReadTimeout: set one.
type ReportHandler struct {
	cfg     ReportConfig
	limiter *rate.Limiter

	mu    sync.Mutex
	since time.Time
	seen  map[Violation]*ViolationCount
	stats ReportStats // without Violations
}

// NewReportHandler returns a handler within the bounds of cfg, or an error that joins a *ConfigError for each negative one.
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

// ServeHTTP answers 204, whatever was sent.
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

// refuse counts a request that held no report, and lets it cost as much as one.
func (h *ReportHandler) refuse(n *uint64, now time.Time) {
	h.limiter.AllowN(now, 1)
	h.mu.Lock()
	*n++
	h.mu.Unlock()
}

// Receive takes in the body of one request.
func (h *ReportHandler) Receive(contentType string, body []byte) {
	h.ReceiveAt(contentType, body, time.Now())
}

// ReceiveAt is Receive at a given time.
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

// record reports whether the violation is new in this window.
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

// roll drops what is remembered when its window is over. A dropped map gives its memory back; a cleared one does not.
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

// StatsAt is Stats at a given time.
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

// legacyReport is the body of a report-uri report, CSP Level 3 section 5.3.
type legacyReport struct {
	Report *struct {
		Document    string `json:"document-uri"`
		Effective   string `json:"effective-directive"`
		Violated    string `json:"violated-directive"`
		Blocked     string `json:"blocked-uri"`
		Disposition string `json:"disposition"`
	} `json:"csp-report"`
}

// report is one item of the Reporting API.
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

// ParseReports reads the body of a request as its content type says and reduces every report in it to a Violation.
// Its error says nothing of the body.
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

// blockedWord keeps of a URL its origin: the rest may hold what a user typed or a token.
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
