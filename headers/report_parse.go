package headers

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"iter"
	"mime"
	"net/url"
	"slices"
	"strings"
)

// maxReports is the number of reports of one body that are decoded. Chromium
// and Firefox both queue at most 100 reports.
const maxReports = 100

// report is one report, in the form of the Reporting API or in the older form
// of report-uri (CSP Level 3, section 5.3).
type report struct {
	Type   string          `json:"type"`
	URL    string          `json:"url"`
	Body   json.RawMessage `json:"body"`
	Legacy *struct {
		Document    string `json:"document-uri"`
		Effective   string `json:"effective-directive"`
		Violated    string `json:"violated-directive"`
		Blocked     string `json:"blocked-uri"`
		Disposition string `json:"disposition"`
	} `json:"csp-report"`
}

// reportBody holds the members of every kind of report that a [Violation]
// depends on.
type reportBody struct {
	Document    string `json:"documentURL"`
	Effective   string `json:"effectiveDirective"`
	Blocked     string `json:"blockedURL"`
	Connection  string `json:"connection"` // of a Connection-Allowlist
	Disposition string `json:"disposition"`
	ReportOnly  bool   `json:"reportOnly"` // of an Integrity-Policy
	Policy      string `json:"policyId"`   // of Chromium
	Feature     string `json:"featureId"`  // of the Permissions Policy
}

var errReport = errors.New("headers: not a violation report")

// mediaTypes are those of violation reports. Browsers do not agree which form
// of report has which type, so the type does not decide the form.
var mediaTypes = []string{"application/csp-report", "application/reports+json"}

// maxContentType is the longest content type that is read. Browsers send less
// than 50 bytes. To parse a megabyte of parameters takes longer than to parse
// any body.
const maxContentType = 256

// mediaType returns the media type of reports that contentType is, or "".
func mediaType(contentType string) string {
	if len(contentType) > maxContentType {
		return ""
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || !slices.Contains(mediaTypes, media) {
		return ""
	}
	return media
}

// ParseReports reads the body of a request with the content type
// application/csp-report or application/reports+json, and reduces each report
// in it to a [Violation]. The body is one report or a list of reports, each in
// the form of report-uri or of the Reporting API: Safari sends one report of
// the Reporting API, and no list, with either type. Of a list, ParseReports
// decodes the first 100 reports and drops the others. Its error does not quote
// the body.
func ParseReports(contentType string, body []byte) ([]Violation, error) {
	vs, _, err := parseReports(contentType, body)
	return vs, err
}

// parseReports also returns the number of reports that it dropped.
func parseReports(contentType string, body []byte) (vs []Violation, rest int, err error) {
	// A valid body can be split without decoding it, so that a list of
	// thousands of reports costs neither memory nor time.
	if mediaType(contentType) == "" || !json.Valid(body) {
		return nil, 0, errReport
	}
	body = bytes.TrimLeft(body, " \t\r\n")
	if body[0] != '[' {
		var r report
		if json.Unmarshal(body, &r) != nil || r.Legacy == nil && (r.Type == "" || !isObject(r.Body)) {
			return nil, 0, errReport
		}
		v, ok := r.violation()
		if !ok {
			return nil, 0, errReport
		}
		return []Violation{v}, 0, nil
	}
	vs = []Violation{}
	for element := range split(body) {
		if len(vs) == maxReports {
			rest++
			continue
		}
		var r report
		if json.Unmarshal(element, &r) != nil {
			return nil, 0, errReport
		}
		v, ok := r.violation()
		if !ok {
			return nil, 0, errReport
		}
		vs = append(vs, v)
	}
	return vs, rest, nil
}

// split yields the elements of a list, which must be valid JSON.
func split(list []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		depth, start, quoted := 0, 0, false
		for i := 0; i < len(list); i++ {
			switch c := list[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case quoted:
			case c == '[' || c == '{':
				if depth++; depth == 1 {
					start = i + 1
				}
			case depth == 1 && (c == ',' || c == ']'):
				element := bytes.TrimSpace(list[start:i])
				start = i + 1
				if len(element) > 0 && !yield(element) {
					return
				}
			case c == ']' || c == '}':
				depth--
			}
		}
	}
}

func isObject(text json.RawMessage) bool { return len(text) > 0 && text[0] == '{' }

// violation reduces a report. It returns false if a CSP report has members of
// other types than the standard. The members of other kinds are read if they
// have the known types.
func (r *report) violation() (v Violation, ok bool) {
	if l := r.Legacy; l != nil {
		name := l.Effective
		if name == "" {
			name, _, _ = strings.Cut(l.Violated, " ")
		}
		return Violation{
			Kind: "csp-violation", Directive: directiveWord(name), Blocked: blockedWord(l.Blocked),
			Page: pageWord(l.Document), ReportOnly: isReportOnly(l.Disposition),
		}, true
	}
	v.Kind = kindWord(r.Type)
	var b reportBody
	if len(r.Body) > 0 && json.Unmarshal(r.Body, &b) != nil && v.Kind == "csp-violation" {
		return Violation{}, false
	}
	switch v.Kind {
	case "csp-violation":
		v.Directive = directiveWord(b.Effective)
	case "permissions-policy-violation", "potential-permissions-policy-violation", "document-policy-violation":
		v.Directive = featureWord(cmp.Or(b.Policy, b.Feature))
	}
	v.Blocked = blockedWord(cmp.Or(b.Blocked, b.Connection))
	v.Page = pageWord(cmp.Or(r.URL, b.Document))
	v.ReportOnly = b.ReportOnly || isReportOnly(b.Disposition)
	return v, true
}

// isReportOnly knows the word of CSP and of Permissions-Policy, and the one of
// COOP and COEP.
func isReportOnly(disposition string) bool {
	return disposition == "report" || disposition == "reporting"
}

const other = "other"

var kinds = []string{
	"csp-violation", "csp-hash", "coep", "coop", "connection-allowlist", "permissions-policy-violation",
	"potential-permissions-policy-violation", "document-policy-violation", "integrity-violation", "deprecation",
	"intervention", "crash", "network-error",
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

// documentFeatures are the names that Chromium has for a Document-Policy.
var documentFeatures = []string{
	"document-write", "expect-no-linked-resources", "force-load-at-top", "include-js-call-stacks-in-crash-reports",
	"js-profiling", "layout-animations", "lossless-images-max-bpp", "lossless-images-strict-max-bpp",
	"lossy-images-max-bpp", "network-efficiency-guardrails", "oversized-images", "sync-script", "unsized-media",
}

func featureWord(s string) string {
	if slices.Contains(features, s) || slices.Contains(otherFeatures, s) || slices.Contains(documentFeatures, s) {
		return s
	}
	return other
}

var (
	blockedKeywords = []string{
		"inline", "eval", "wasm-eval", "self", "data", "blob", "filesystem", "about", "trusted-types-policy",
		"trusted-types-sink", "webrtc",
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
