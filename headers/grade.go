package headers

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Grading is the result of [Grade].
type Grading struct {
	Algorithm int // version of the Observatory's rules: 6
	// Score is from 0 to 155, of which up to 55 are bonus points.
	Score    int
	Grade    string // "A+" to "F"
	Findings []Finding
}

// Finding is the outcome of one test, or a remark.
type Finding struct {
	// Test is the Observatory's name of the test, such as "x-frame-options".
	// For a remark it is the name of the header.
	Test string
	// Result is the Observatory's name of the outcome, such as
	// "x-frame-options-not-implemented". It is empty for a remark.
	Result string
	Points int    // added to 100
	Reason string // the outcome in words
	Remark bool   // not a test of the Observatory
}

// algorithm is the version of the rules that Grade follows.
const algorithm = 6

// Grade scores a response by the rules of MDN's HTTP Observatory: algorithm 6
// of August 2026 (github.com/mdn/mdn-http-observatory, commit 2d230d2). Earlier
// algorithms give no points for X-Frame-Options (until 4), nor for
// Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy (until 5).
//
// Grade adds remarks on problems that the Observatory does not test: ws: and
// wss: without a host, directives for which default-src is no fallback,
// script-src-elem, several policies in one header, an X-Frame-Options that
// frame-ancestors overrules, headers for isolation, and versions of software.
//
// Set tls if the response came over TLS with a valid certificate. Grade then
// assumes that plain HTTP redirects to TLS, which the Observatory tests. It
// counts 0 points for three things that the headers do not show: integrity
// attributes of scripts (±5 to -50 points in the Observatory), policies in
// <meta> elements, and the HSTS preload list (5 points).
func Grade(h http.Header, tls bool) Grading {
	csp := observe(h, tls)
	g := Grading{Algorithm: algorithm}
	for _, t := range []struct{ test, result string }{
		{"content-security-policy", csp.result},
		{"cookies", gradeCookies(h, tls)},
		{"cross-origin-embedder-policy", gradeToken(h, embedderHeader, "coep-")},
		{"cross-origin-opener-policy", gradeToken(h, openerHeader, "coop-")},
		{"cross-origin-resource-sharing", gradeCORS(h)},
		{"redirection", gradeRedirection(tls)},
		{"referrer-policy", gradeReferrer(h)},
		{"strict-transport-security", gradeHSTS(h, tls)},
		{"x-content-type-options", gradeSniff(h)},
		{"x-frame-options", gradeFrames(h, csp)},
		{"cross-origin-resource-policy", gradeResource(h)},
	} {
		o := outcomes[t.result]
		g.Findings = append(g.Findings, Finding{Test: t.test, Result: t.result, Points: o.points, Reason: o.reason})
	}
	g.Score = score(g.Findings)
	g.Grade = letter(g.Score)
	g.Findings = append(g.Findings, remarks(h, tls)...)
	return g
}

// bonusFrom is the score without bonus points from which bonus points count.
const bonusFrom = 90

func score(fs []Finding) int {
	base, bonus := 100, 0
	for _, f := range fs {
		base += min(f.Points, 0)
		bonus += max(f.Points, 0)
	}
	if base >= bonusFrom {
		return base + bonus
	}
	return max(base, 0)
}

func letter(score int) string {
	steps := []struct {
		from  int
		grade string
	}{
		{100, "A+"}, {90, "A"}, {85, "A-"}, {80, "B+"}, {70, "B"}, {65, "B-"}, {60, "C+"}, {50, "C"}, {45, "C-"},
		{40, "D+"}, {30, "D"}, {25, "D-"},
	}
	for _, s := range steps {
		if score >= s.from {
			return s.grade
		}
	}
	return "F"
}

// outcome holds the points and the meaning of a result. A result that is not in
// the table does not occur.
type outcome struct {
	points int
	reason string
}

var outcomes = map[string]outcome{
	cspNone:        {10, "nothing unsafe, and default-src is 'none'"},
	cspSafe:        {5, "nothing unsafe"},
	cspStyleOnly:   {0, "unsafe sources, but only for styles"},
	cspDuplicates:  {0, "report-uri or report-to occurs twice"},
	cspPassive:     {-10, "images or media may come over plain HTTP"},
	cspEval:        {-10, "'unsafe-eval' is allowed"},
	cspInline:      {-20, "inline or arbitrary script is allowed, or no source of scripts or objects is named"},
	cspActive:      {-20, "active content may come over plain HTTP"},
	cspInvalid:     {-25, "the policy cannot be read, repeats a directive, or has 'strict-dynamic' without nonce or hash"},
	cspAbsent:      {-25, "there is no policy"},
	cspReportsOnly: {-25, "the policy is only reported, not enforced"},

	"cookies-not-found": {0, "no cookie is set"},
	"cookies-secure-with-httponly-sessions-and-samesite": {5, "all cookies have Secure and SameSite, sessions HttpOnly"},
	"cookies-secure-with-httponly-sessions":              {0, "all cookies have Secure, sessions HttpOnly"},
	cookiePlainHSTS:                                      {-5, "a cookie lacks Secure, but HSTS protects it"},
	cookieSessionPlainHSTS:                               {-10, "a session cookie lacks Secure, but HSTS protects it"},
	cookiePlain:                                          {-20, "a cookie lacks Secure"},
	cookieSameSite:                                       {-20, "a cookie's SameSite is invalid, or None without Secure"},
	cookieCSRF:                                           {-20, "an anti-CSRF cookie lacks SameSite"},
	cookieSessionScript:                                  {-30, "a session cookie lacks HttpOnly"},
	cookieSessionPlain:                                   {-40, "a session cookie lacks Secure"},

	"cross-origin-resource-sharing-not-implemented":                    {0, "other origins may read nothing"},
	"cross-origin-resource-sharing-implemented-with-public-access":     {0, "any origin may read it, without credentials"},
	"cross-origin-resource-sharing-implemented-with-restricted-access": {0, "one named origin may read it"},

	"redirection-to-https": {0, "assumed, since the response came over TLS"},
	"redirection-missing":  {-20, "the page is served over plain HTTP"},

	"referrer-policy-private":         {5, "other sites get at most the origin"},
	"referrer-policy-not-implemented": {0, "left to the browser's default"},
	"referrer-policy-unsafe":          {-5, "other sites get more than they should"},
	"referrer-policy-header-invalid":  {-5, "not a policy"},

	hstsLong: {0, "six months or more"},
	"hsts-implemented-max-age-less-than-six-months": {-10, "less than six months"},
	"hsts-not-implemented":                          {-20, "absent"},
	"hsts-header-invalid":                           {-20, "cannot be read, has no max-age, or is set twice"},
	"hsts-not-implemented-no-https":                 {-20, "impossible without TLS"},

	"x-content-type-options-nosniff":         {0, "nosniff"},
	"x-content-type-options-not-implemented": {-5, "absent"},
	"x-content-type-options-header-invalid":  {-5, "is not nosniff"},

	"x-frame-options-implemented-via-csp": {5, "the policy has frame-ancestors"},
	"x-frame-options-sameorigin-or-deny":  {5, "DENY or SAMEORIGIN"},
	"x-frame-options-allow-from-origin":   {0, "ALLOW-FROM, which browsers ignore"},
	"x-frame-options-not-implemented":     {-20, "any site may frame the page"},
	"x-frame-options-header-invalid":      {-20, "is neither DENY nor SAMEORIGIN"},

	"corp-implemented-with-same-origin":  {10, "same-origin"},
	"corp-implemented-with-same-site":    {10, "same-site"},
	"corp-implemented-with-cross-origin": {0, "cross-origin"},
	"corp-not-implemented":               {0, "absent, which means cross-origin"},
	"corp-header-invalid":                {-5, "not a policy"},

	"coep-implemented-with-require-corp":   {10, "require-corp"},
	"coep-implemented-with-credentialless": {10, "credentialless"},
	"coep-implemented-with-unsafe-none":    {0, "unsafe-none"},
	"coep-not-implemented":                 {0, "absent, which means unsafe-none"},
	"coep-header-invalid":                  {-5, "not a policy, or set twice"},

	"coop-implemented-with-same-origin":              {10, "same-origin"},
	"coop-implemented-with-same-origin-allow-popups": {10, "same-origin-allow-popups"},
	"coop-implemented-with-noopener-allow-popups":    {10, "noopener-allow-popups"},
	"coop-implemented-with-unsafe-none":              {0, "unsafe-none"},
	"coop-not-implemented":                           {0, "absent, which means unsafe-none"},
	"coop-header-invalid":                            {-5, "not a policy, or set twice"},
}

// observed returns a header as the Observatory's HTTP client does: several
// lines are joined by commas.
func observed(h http.Header, name string) (value string, present bool) {
	lines := h[name]
	return strings.Join(lines, ", "), len(lines) > 0
}

// observedWord returns a header in the form in which most values are compared.
func observedWord(h http.Header, name string) string {
	v, _ := observed(h, name)
	return strings.ToLower(strings.TrimSpace(v))
}

func gradeRedirection(tls bool) string {
	if tls {
		return "redirection-to-https"
	}
	return "redirection-missing"
}

func gradeCORS(h http.Header) string {
	const test = "cross-origin-resource-sharing-"
	origin, _ := observed(h, "Access-Control-Allow-Origin")
	switch {
	case origin == "":
		return test + "not-implemented"
	case strings.TrimSpace(origin) == "*":
		return test + "implemented-with-public-access"
	}
	return test + "implemented-with-restricted-access"
}

func gradeReferrer(h http.Header) string {
	value, present := observed(h, referrerHeader)
	if !present {
		return "referrer-policy-not-implemented"
	}
	result := "referrer-policy-header-invalid"
	for word := range strings.SplitSeq(strings.ToLower(value), ",") {
		switch ReferrerPolicy(strings.TrimSpace(word)) {
		case ReferrerNone, ReferrerSameOrigin, ReferrerStrictOrigin, ReferrerStrictOriginWhenCrossOrigin:
			result = "referrer-policy-private"
		case ReferrerOrigin, ReferrerOriginWhenCrossOrigin, ReferrerUnsafeURL, ReferrerNoneWhenDowngrade:
			result = "referrer-policy-unsafe"
		}
	}
	return result
}

const (
	hstsLong  = "hsts-implemented-max-age-at-least-six-months"
	sixMonths = 15552000 // 180 days, a common value for six months
)

func gradeHSTS(h http.Header, tls bool) string {
	value, present := observed(h, hstsHeader)
	switch {
	case !tls:
		return "hsts-not-implemented-no-https"
	case !present:
		return "hsts-not-implemented"
	case strings.Contains(value, ","):
		return "hsts-header-invalid"
	}
	result := "hsts-header-invalid"
	for part := range strings.SplitSeq(strings.ToLower(value), ";") {
		if age, ok := strings.CutPrefix(strings.TrimSpace(part), "max-age="); ok {
			// The Observatory accepts a max-age that is not a number, such as a
			// quoted one.
			if n, isNumber := leadingInt(age); isNumber && n < sixMonths {
				result = "hsts-implemented-max-age-less-than-six-months"
			} else {
				result = hstsLong
			}
		}
	}
	return result
}

// leadingInt reads the digits at the beginning of a text. It stops when the
// number is large enough for every comparison.
func leadingInt(s string) (n int, ok bool) {
	s = strings.TrimSpace(s)
	negative := strings.HasPrefix(s, "-")
	if negative || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			break
		}
		n, ok = min(n*10+int(c-'0'), 1<<40), true
	}
	if negative {
		n = -n
	}
	return n, ok
}

func gradeSniff(h http.Header) string {
	const test = "x-content-type-options-"
	if v, _ := observed(h, sniffHeader); v == "" {
		return test + "not-implemented"
	}
	if observedWord(h, sniffHeader) == "nosniff" {
		return test + "nosniff"
	}
	return test + "header-invalid"
}

func gradeFrames(h http.Header, csp observation) string {
	const test = "x-frame-options-"
	value, _ := observed(h, frameHeader)
	word := observedWord(h, frameHeader)
	switch {
	case csp.directives["frame-ancestors"] != nil:
		return test + "implemented-via-csp"
	case value == "":
		return test + "not-implemented"
	case word == "deny" || word == "sameorigin":
		return test + "sameorigin-or-deny"
	case strings.HasPrefix(word, "allow-from"):
		return test + "allow-from-origin"
	}
	return test + "header-invalid"
}

func gradeResource(h http.Header) string {
	const test = "corp-"
	switch word := observedWord(h, resourceHeader); {
	case word == "":
		return test + "not-implemented"
	case slices.Contains([]ResourcePolicy{ResourceSameOrigin, ResourceSameSite, ResourceCrossOrigin}, ResourcePolicy(word)):
		return test + "implemented-with-" + word
	}
	return test + "header-invalid"
}

// structuredToken is a structured field (RFC 9651) whose item is a token, with
// any parameters.
var structuredToken = regexp.MustCompile(`^([A-Za-z*][A-Za-z0-9!#$%&'*+.^_|~:/` + "`" + `-]*)(?:; *[a-z*][a-z0-9_.*-]*(?:=(?:` +
	strings.Join([]string{
		`-?[0-9]{1,15}`, `-?[0-9]{1,12}\.[0-9]{1,3}`, // integer, decimal
		`"(?:[ !#-\[\]-~]|\\["\\])*"`, `%"(?:[ !#$&-~]|%[0-9a-f]{2})*"`, // string, display string
		`[A-Za-z*][A-Za-z0-9!#$%&'*+.^_|~:/` + "`" + `-]*`, `:[A-Za-z0-9+/=]*:`, `\?[01]`, `@-?[0-9]{1,15}`, // token, bytes, boolean, date
	}, "|") + `))?)*$`)

// gradeToken grades a header that browsers read as a structured field. They
// ignore all of it if it is not a token, or occurs twice.
func gradeToken(h http.Header, name, test string) string {
	value, _ := observed(h, name)
	value = strings.TrimSpace(value[:min(len(value), 1024)])
	if value == "" {
		return test + "not-implemented"
	}
	if m := structuredToken.FindStringSubmatch(value); m != nil {
		if result := test + "implemented-with-" + m[1]; outcomes[result].reason != "" {
			return result
		}
	}
	return test + "header-invalid"
}
