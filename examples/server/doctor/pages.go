package doctor

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/relayguard/relayguard/headers"
)

const (
	cspName  = "Content-Security-Policy"
	hstsName = "Strict-Transport-Security"
)

// five are the guide's headers without HSTS, which has an item of its own, with
// the values that are at least as strict as the guide's. Of the CSP only the
// presence is checked here.
var five = []struct {
	name   string
	values []string
}{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"X-Frame-Options", []string{"deny"}},
	{"X-XSS-Protection", []string{"1; mode=block", "0"}}, // OWASP recommends 0
	{"Referrer-Policy", []string{"strict-origin-when-cross-origin", "strict-origin", "same-origin", "no-referrer"}},
	{cspName, nil},
}

// missingHeaders returns the problems of the five headers in h.
func missingHeaders(h http.Header) (problems []string) {
	for _, want := range five {
		switch got := h.Values(want.name); {
		case len(got) == 0 && want.name == "X-Frame-Options" && framedBy(h) != nil:
			// A value would forbid what frame-ancestors allows.
		case len(got) == 0 || got[0] == "":
			problems = append(problems, "no "+want.name)
		case len(got) > 1:
			problems = append(problems, fmt.Sprintf("%s is sent %d times", want.name, len(got)))
		case want.values != nil && !slices.Contains(want.values, strings.ToLower(strings.TrimSpace(got[0]))):
			problems = append(problems, want.name+" is "+quote(got[0]))
		}
	}
	return problems
}

// framedBy returns the origins that the policy allows to show the answer in a
// frame. It returns nil if it allows none, or more than single origins.
func framedBy(h http.Header) []headers.Source {
	policy, err := headers.ParseCSP(nonces.ReplaceAllString(h.Get(cspName), headers.NonceSource))
	if err != nil {
		return nil
	}
	origins, _ := policy.Sources("frame-ancestors")
	for _, o := range origins {
		if !strings.Contains(string(o), "://") || strings.Contains(string(o), "*") {
			return nil
		}
	}
	return origins
}

// checkHeaders judges one answer under id, and keeps it for checkAll. The
// answer must have one of the statuses, if there are any.
func (p *probe) checkHeaders(id, name string, a answer, statuses ...int) {
	if a.err != nil {
		p.note(id, Fail, "no answer: %s", plainError(a.err))
		return
	}
	p.answers = append(p.answers, labelled{name, a})
	if len(statuses) > 0 && !slices.Contains(statuses, a.status) {
		p.note(id, Fail, "answered %d, want %d", a.status, statuses[0])
		return
	}
	p.judge(id, missingHeaders(a.header), "all are on the answer %d", a.status)
}

// asset finds a relative link to a file in the page.
var asset = regexp.MustCompile(`(?i)(?:src|href)=["']?(?:\./)?([a-z0-9_-][a-z0-9_./-]*\.(?:m?js|css|svg|png|ico))["'\s>]`)

func (p *probe) checkPages(page answer) {
	p.checkHeaders("headers.page", "page", page, http.StatusOK)
	if m := asset.FindStringSubmatch(page.body); m == nil {
		p.note("headers.asset", Skipped, "the page refers to no file of its own")
	} else {
		p.checkHeaders("headers.asset", m[1], p.get(m[1]), http.StatusOK)
	}
	missing := p.get("no-such-page-" + strings.ToLower(rand.Text()))
	p.checkHeaders("headers.missing", "404", missing, http.StatusNotFound)
	plain := p.get(p.socket())
	p.checkHeaders("headers.refusal", "ws without upgrade", plain, http.StatusUpgradeRequired, http.StatusBadRequest, http.StatusTooManyRequests, http.StatusForbidden)
	method := p.do(http.MethodPost, "")
	p.answers = append(p.answers, labelled{"POST", method})

	p.checkErrorPages(missing, plain, method)
	p.checkPolicy(page)
	p.checkExposed(missing)

	var problems []string
	degraded := ""
	for _, path := range []string{"healthz", "readyz"} {
		a := p.get(path)
		text := strings.TrimSpace(a.body)
		if a.err != nil {
			problems = append(problems, "/"+path+": "+plainError(a.err))
		} else if a.status == http.StatusServiceUnavailable && text == "starting" {
			problems = append(problems, "/"+path+" says that the server waits for its engine")
		} else if a.status != http.StatusOK {
			problems = append(problems, fmt.Sprintf("/%s is answered %d", path, a.status))
		} else if strings.HasPrefix(text, "degraded") {
			degraded = quote(text)
		}
	}
	p.judge("monitoring.health", problems, "/healthz and /readyz answer 200")
	if degraded != "" && problems == nil {
		p.note("monitoring.health", Warn, "/readyz says %s: the server's disk or its engine fails", degraded)
	}
}

// leaks are the contents that an error page must not have, with their names in
// reports.
var leaks = []struct {
	what string
	re   *regexp.Regexp
}{
	{"a stack trace", regexp.MustCompile(`goroutine \d+ \[|\.(?:go|js|ts|mjs|py|rb|php|java):\d+|Traceback \(most recent|Exception in thread|\bat [\w.$<>]+ \(|panic:|runtime error`)},
	{"a path", regexp.MustCompile(`(?:^|[\s"'(>=])/(?:usr|home|root|var|opt|srv|app|etc|tmp|proc)/[\w.-]|node_modules|[A-Z]:\\`)},
	{"a version", regexp.MustCompile(`(?i)\b(?:nginx|apache|caddy|openresty|iis|tomcat|jetty|express|php|go|node(?:\.js)?|bun|openssl|python)\s*[/ ]\s*v?\d+\.\d`)},
	{"a secret's name", regexp.MustCompile(`JWT_SECRET|BEGIN [A-Z ]*PRIVATE KEY`)},
}

func (p *probe) checkErrorPages(known ...answer) {
	answers := []labelled{{"404", known[0]}, {"426", known[1]}, {"405", known[2]}}
	answers = append(answers,
		labelled{"a path that leaves the root", p.get("..%2f..%2f..%2fetc%2fpasswd")},
		labelled{"a malformed path", p.raw("GET /%zz HTTP/1.1\r\nHost: " + p.url.Host + "\r\nConnection: close\r\n\r\n")},
	)
	var problems []string
	seen := 0
	for _, a := range answers {
		if a.err != nil {
			continue // a cut connection discloses nothing either
		}
		seen++
		for _, leak := range leaks {
			if m := leak.re.FindString(a.body); m != "" {
				problems = append(problems, fmt.Sprintf("%s holds %s: %s", a.name, leak.what, quote(strings.TrimSpace(m))))
			}
		}
		if strings.Contains(a.body, "root:") && a.status == http.StatusOK {
			problems = append(problems, a.name+" is answered with a file of the machine")
		}
	}
	p.judge("errors.pages", problems, "none of %d error answers shows a stack trace, a path or a version", seen)
}

// checkPolicy judges the page's CSP, and all its headers by the rules of public
// graders.
func (p *probe) checkPolicy(page answer) {
	g := headers.Grade(page.header, p.secure())
	var others []string
	for _, f := range g.Findings {
		switch {
		case f.Remark:
		case f.Test == "content-security-policy":
			p.checkCSP(page, g, f)
		case f.Test == "strict-transport-security", f.Test == "redirection", f.Test == "x-content-type-options",
			f.Test == "x-frame-options", f.Test == "referrer-policy": // have items of their own
		case f.Points < 0:
			others = append(others, f.Test+": "+f.Reason)
		}
	}
	p.judge("headers.grade", others, "%s, %d points by the rules of MDN's Observatory", g.Grade, g.Score)
}

var nonces = regexp.MustCompile(`'nonce-[^']+'`)

func (p *probe) checkCSP(page answer, g headers.Grading, f headers.Finding) {
	policy := page.header.Get(cspName)
	if policy == "" {
		p.note("headers.csp", Skipped, "there is no policy: see headers.page")
		return
	}
	if f.Points < 0 {
		p.note("headers.csp", Fail, "%s", f.Reason)
		return
	}
	if nonce := nonces.FindString(policy); nonce != "" {
		if again := p.get(""); again.err == nil && strings.Contains(again.header.Get(cspName), nonce) {
			p.note("headers.csp", Fail, "the nonce is the same in two answers, so injected script knows it")
			return
		}
	}
	var remarks []string
	for _, r := range g.Findings {
		if r.Remark && r.Test == cspName {
			remarks = append(remarks, r.Reason)
		}
	}
	if len(remarks) > 0 {
		p.note("headers.csp", Warn, "%s", strings.Join(remarks, "; "))
		return
	}
	p.note("headers.csp", OK, "%s", f.Reason)
}

// internal are paths for the operator, or for no one.
var internal = []string{"metrics", "sessions", "reports", "debug/pprof/", "debug/vars", ".env", ".git/HEAD"}

func (p *probe) checkExposed(missing answer) {
	var problems []string
	for _, path := range internal {
		a := p.get(path)
		// A site that answers every path alike exposes nothing by it. 401 is
		// the operator's listener, which must not be public.
		if a.err == nil && a.status != missing.status && (a.status/100 == 2 || a.status == http.StatusUnauthorized) {
			problems = append(problems, fmt.Sprintf("/%s is answered %d", path, a.status))
		}
	}
	p.judge("exposed", problems, "none of /%s is served", strings.Join(internal, ", /"))
}

// checkAll checks the rules for all answers.
func (p *probe) checkAll() {
	var banners, ages []string
	for _, a := range p.answers {
		if a.err != nil {
			continue
		}
		for _, name := range []string{"Server", "X-Powered-By", "X-AspNet-Version", "Via"} {
			v := a.header.Get(name)
			// nginx cannot leave out a bare "Server: nginx", which discloses
			// little.
			if v != "" && (name != "Server" && name != "Via" || versioned.MatchString(v)) {
				banners = append(banners, name+": "+quote(v))
			}
		}
		if problem := hstsProblem(a.header.Values(hstsName)); problem != "" {
			ages = append(ages, problem+" on "+a.name)
		} else {
			p.hsts = true
		}
	}
	p.judge("errors.banner", slices.Compact(banners), "no answer names a version")
	if !p.secure() {
		p.note("headers.hsts", Skipped, "browsers ignore it over plain HTTP")
		return
	}
	if len(ages) == len(p.answers) && len(ages) > 1 {
		ages = ages[:1]
		ages[0] = strings.TrimSuffix(ages[0], " on "+p.answers[0].name) + " on any answer"
	}
	p.judge("headers.hsts", ages, "%s on all %d answers", quote(p.answers[0].header.Get(hstsName)), len(p.answers))
}

// versioned matches a product with its version. "1.1 proxy", in Via, is the
// version of a protocol.
var versioned = regexp.MustCompile(`[A-Za-z_-]+/\d`)

func hstsProblem(lines []string) string {
	switch len(lines) {
	case 0:
		return "none"
	case 1:
	default:
		return fmt.Sprintf("sent %d times", len(lines))
	}
	for part := range strings.SplitSeq(strings.ToLower(lines[0]), ";") {
		if age, ok := strings.CutPrefix(strings.TrimSpace(part), "max-age="); ok {
			if n, err := strconv.ParseUint(strings.Trim(age, `"`), 10, 63); err == nil && n >= 31536000 {
				return ""
			}
			return "max-age=" + quote(age) + " is less than a year"
		}
	}
	return quote(lines[0]) + " has no max-age"
}

// checkProduction notes whether there are signs of NODE_ENV=production. If both
// signs are missing, it notes one failure with the cause instead of two.
func (p *probe) checkProduction() {
	p.checkAll()
	refused := p.foreign == http.StatusForbidden
	switch {
	case p.foreign == 0:
		p.note("production", Skipped, "the WebSocket could not be opened, so there is no sign of it")
	case p.secure() && !p.hsts && !refused:
		p.note("production", Fail, "neither HSTS nor the origin check is on")
		p.note("headers.hsts", Skipped, "see production")
		p.note("origin", Skipped, "see production")
	case refused || p.hsts:
		p.note("production", OK, "%s", signs(p.hsts && p.secure(), refused))
	default:
		p.note("production", Manual, "plain HTTP shows no sign of it")
	}
}

func signs(hsts, refused bool) string {
	var s []string
	if hsts {
		s = append(s, "HSTS is sent")
	}
	if refused {
		s = append(s, "foreign origins are refused")
	}
	return strings.Join(s, ", ")
}
