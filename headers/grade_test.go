package headers_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/headers"
)

// head returns a header with "Name: value" lines.
func head(lines ...string) http.Header {
	h := make(http.Header)
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

const (
	hsts    = "Strict-Transport-Security: max-age=31536000"
	nosniff = "X-Content-Type-Options: nosniff"
	csp     = "Content-Security-Policy: "
	strict  = csp + "default-src 'none'; script-src 'self'; frame-ancestors 'none'"
)

func TestGradeOfPresets(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy headers.Policy
		tls    bool
		score  int
		grade  string
	}{
		{"Strict over TLS", headers.Strict(), true, 150, "A+"},
		{"Baseline over TLS", headers.Baseline(), true, 115, "A+"},
		{"Strict without TLS", headers.Strict(), false, 60, "C+"},
		{"nothing", headers.Policy{}, true, 30, "D"},
		{"nothing without TLS", headers.Policy{}, false, 10, "F"},
	} {
		if got := headers.Grade(sent(t, tt.policy, tt.tls), tt.tls); got.Algorithm != 6 || got.Score != tt.score || got.Grade != tt.grade {
			t.Errorf("%s: got %d %s, want %d %s: %+v", tt.name, got.Score, got.Grade, tt.score, tt.grade, got.Findings)
		}
	}
	if got := headers.Grade(sent(t, headers.Strict(), true), true); len(remarksOf(got)) > 0 {
		t.Errorf("Strict leaves something to remark: %q", remarksOf(got))
	}
}

func TestGradeOutcomes(t *testing.T) {
	tests := []struct {
		why, result string // result and its points
		header      http.Header
	}{
		{"nothing but default-src 'none'", "csp-implemented-with-no-unsafe-default-src-none +10", head(csp + "default-src 'none'; img-src 'self'")},
		{"default-src 'self'", "csp-implemented-with-no-unsafe +5", head(csp + "default-src 'self'")},
		{"names and keywords in any case", "csp-implemented-with-unsafe-inline -20", head(csp + "Default-Src 'Unsafe-Inline'")},
		{"inline style only", "csp-implemented-with-unsafe-inline-in-style-src-only +0", head(csp + "default-src 'self'; style-src 'unsafe-inline'")},
		{"data: in styles", "csp-implemented-with-unsafe-inline-in-style-src-only +0", head(csp + "default-src 'self'; style-src data:")},
		{"inline script", "csp-implemented-with-unsafe-inline -20", head(csp + "script-src 'unsafe-inline'; object-src 'none'")},
		{"data: runs as script", "csp-implemented-with-unsafe-inline -20", head(csp + "default-src 'self' data:")},
		{"objects from anywhere", "csp-implemented-with-unsafe-inline -20", head(csp + "script-src 'self'; style-src 'self'")},
		{"a hash switches 'unsafe-inline' off", "csp-implemented-with-no-unsafe +5", head(csp + "default-src 'self' 'unsafe-inline' " + sha256Source)},
		{"strict-dynamic switches hosts off", "csp-implemented-with-no-unsafe +5", head(csp + "script-src 'strict-dynamic' 'nonce-abc' https: 'self'; object-src 'none'; style-src 'self'")},
		{"strict-dynamic alone", "csp-header-invalid -25", head(csp + "script-src 'strict-dynamic'; object-src 'none'")},
		{"eval", "csp-implemented-with-unsafe-eval -10", head(csp + "default-src 'self' 'unsafe-eval'")},
		{"script over plain HTTP", "csp-implemented-with-insecure-scheme -20", head(csp + "default-src 'self'; script-src http://a.example")},
		{"reports over plain HTTP", "csp-implemented-with-insecure-scheme -20", head(csp + "default-src 'self'; report-uri http://a.example/r")},
		{"images over plain HTTP", "csp-implemented-with-insecure-scheme-in-passive-content-only -10", head(csp + "default-src 'self'; img-src http:")},
		{"a directive twice", "csp-header-invalid -25", head(csp + "img-src 'self'; img-src *")},
		{"too short to be read", "csp-header-invalid -25", head(csp + "x")},
		{"only separators", "csp-not-implemented -25", head(csp + ";;;;;;;;")},
		{"two report-uri", "csp-implemented-but-duplicate-directives +0", head(csp + "default-src 'none'; report-uri /a; report-uri /b")},
		{"two report-to forgive plain images", "csp-implemented-but-duplicate-directives +0", head(csp + "default-src 'self'; img-src http:; report-to a; report-to b")},
		{"tried out, not enforced", "csp-not-implemented-but-reporting-enabled -25", head("Content-Security-Policy-Report-Only: default-src 'none'")},
		{"of several policies, the sources in all of them count", "csp-implemented-with-no-unsafe +5", head(csp+"img-src 'self'; default-src 'self' https:", csp+"report-uri /; default-src 'self'")},
		{"in one line as well", "csp-implemented-with-no-unsafe +5", head(csp + "default-src 'self' 'unsafe-inline', default-src 'self'")},
		{"if all of them allow it", "csp-implemented-with-unsafe-inline -20", head(csp + "default-src 'self' 'unsafe-inline', default-src 'unsafe-inline'")},
		{"a directive of a later policy alone has no source", "csp-implemented-with-no-unsafe-default-src-none +10", head(csp + "img-src *, default-src *")},
		{"a path in a directory", "csp-implemented-with-insecure-scheme -20", head(csp + "default-src 'self' http://a.example/x/, default-src 'self' http://a.example/x/y")},
		{"a path that differs", "csp-implemented-with-no-unsafe +5", head(csp + "default-src 'self' http://a.example/x, default-src 'self' http://a.example/y")},
		{"a path that cannot be read", "csp-header-invalid -25", head(csp + "default-src http://a.example/%zz, default-src http://a.example/%zz")},
		{"a directive once in each policy", "csp-implemented-with-no-unsafe +5", head(csp + "default-src 'self'; report-uri /, default-src 'self'; report-uri /")},
		{"twice in the second", "csp-header-invalid -25", head(csp + "default-src 'self', img-src *; img-src *")},
		{"a comma at the end", "csp-header-invalid -25", head(csp + "default-src 'self',")},
		{"a policy too short", "csp-header-invalid -25", head(csp+"default-src 'self'", csp+"x")},

		{"half a year, in other case", "hsts-implemented-max-age-at-least-six-months +0", head("Strict-Transport-Security: includeSubDomains; Max-Age=15552000")},
		{"a day", "hsts-implemented-max-age-less-than-six-months -10", head("Strict-Transport-Security: max-age=86400")},
		{"no number passes there", "hsts-implemented-max-age-at-least-six-months +0", head(`Strict-Transport-Security: max-age="1"`)},
		{"a number too long to count", "hsts-implemented-max-age-at-least-six-months +0", head("Strict-Transport-Security: max-age=" + strings.Repeat("9", 60))},
		{"below zero", "hsts-implemented-max-age-less-than-six-months -10", head("Strict-Transport-Security: max-age=-1")},
		{"no age", "hsts-header-invalid -20", head("Strict-Transport-Security: includeSubDomains")},
		{"twice", "hsts-header-invalid -20", head(hsts, hsts)},
		{"absent", "hsts-not-implemented -20", head()},

		{"frame-ancestors", "x-frame-options-implemented-via-csp +5", head(strict)},
		{"in any case", "x-frame-options-sameorigin-or-deny +5", head("X-Frame-Options: Deny")},
		{"obsolete", "x-frame-options-allow-from-origin +0", head("X-Frame-Options: ALLOW-FROM https://a.example")},
		{"twice", "x-frame-options-header-invalid -20", head("X-Frame-Options: DENY", "X-Frame-Options: DENY")},
		{"absent", "x-frame-options-not-implemented -20", head()},

		{"nosniff", "x-content-type-options-nosniff +0", head(nosniff)},
		{"twice", "x-content-type-options-header-invalid -5", head(nosniff, nosniff)},
		{"absent", "x-content-type-options-not-implemented -5", head()},

		{"the last known word counts", "referrer-policy-private +5", head("Referrer-Policy: unsafe-url, no-referrer, future")},
		{"leaky", "referrer-policy-unsafe -5", head("Referrer-Policy: origin")},
		{"nonsense", "referrer-policy-header-invalid -5", head("Referrer-Policy: never")},

		{"CORP", "corp-implemented-with-same-site +10", head("Cross-Origin-Resource-Policy: same-site")},
		{"CORP", "corp-implemented-with-cross-origin +0", head("Cross-Origin-Resource-Policy: cross-origin")},
		{"CORP", "corp-header-invalid -5", head("Cross-Origin-Resource-Policy: none")},

		{"twice", "corp-header-invalid -5", head("Cross-Origin-Resource-Policy: same-origin", "Cross-Origin-Resource-Policy: same-origin")},

		{"COOP", "coop-implemented-with-same-origin +10", head("Cross-Origin-Opener-Policy: same-origin")},
		{"COOP", "coop-implemented-with-same-origin-allow-popups +10", head("Cross-Origin-Opener-Policy: same-origin-allow-popups")},
		{"COOP", "coop-implemented-with-noopener-allow-popups +10", head("Cross-Origin-Opener-Policy: noopener-allow-popups")},
		{"COOP", "coop-implemented-with-unsafe-none +0", head("Cross-Origin-Opener-Policy: unsafe-none")},
		{"absent", "coop-not-implemented +0", head()},
		{"a policy of COEP", "coop-header-invalid -5", head("Cross-Origin-Opener-Policy: require-corp")},
		{"twice", "coop-header-invalid -5", head("Cross-Origin-Opener-Policy: same-origin", "Cross-Origin-Opener-Policy: same-origin")},
		{"twice in one line", "coop-header-invalid -5", head("Cross-Origin-Opener-Policy: same-origin, same-origin")},
		{"a structured field knows case", "coop-header-invalid -5", head("Cross-Origin-Opener-Policy: Same-Origin")},
		{"a string is no token", "coop-header-invalid -5", head(`Cross-Origin-Opener-Policy: "same-origin"`)},
		{"parameters", "coop-implemented-with-same-origin +10", head(`Cross-Origin-Opener-Policy: same-origin; report-to="coop";a;b=?1;c=-1.5;d=:YQ==:;e=t;f=@1;g=%"x"`)},
		{"a space before the parameter", "coop-header-invalid -5", head(`Cross-Origin-Opener-Policy: same-origin ;report-to="coop"`)},
		{"a parameter cut off", "coop-header-invalid -5", head(`Cross-Origin-Opener-Policy: same-origin; report-to="coop`)},
		{"a parameter in capitals", "coop-header-invalid -5", head("Cross-Origin-Opener-Policy: same-origin; A=1")},
		{"COEP", "coep-implemented-with-require-corp +10", head("Cross-Origin-Embedder-Policy: require-corp")},
		{"COEP", "coep-implemented-with-credentialless +10", head("Cross-Origin-Embedder-Policy: credentialless; report-to=\"x\"")},
		{"COEP", "coep-implemented-with-unsafe-none +0", head("Cross-Origin-Embedder-Policy: unsafe-none")},
		{"absent", "coep-not-implemented +0", head()},
		{"a policy of COOP", "coep-header-invalid -5", head("Cross-Origin-Embedder-Policy: same-origin")},
		{"two", "coep-header-invalid -5", head("Cross-Origin-Embedder-Policy: require-corp", "Cross-Origin-Embedder-Policy: credentialless")},

		{"CORS for all", "cross-origin-resource-sharing-implemented-with-public-access +0", head("Access-Control-Allow-Origin: *")},
		{"CORS for one", "cross-origin-resource-sharing-implemented-with-restricted-access +0", head("Access-Control-Allow-Origin: https://a.example", "Access-Control-Allow-Credentials: true")},

		{"a good cookie", "cookies-secure-with-httponly-sessions-and-samesite +5", head("Set-Cookie: sess=1; Secure; HttpOnly; SameSite=Lax; Path=/")},
		{"no SameSite", "cookies-secure-with-httponly-sessions +0", head("Set-Cookie: a=1; Secure")},
		{"no Secure, with HSTS", "cookies-without-secure-flag-but-protected-by-hsts -5", head("Set-Cookie: a=1", hsts)},
		{"no Secure", "cookies-without-secure-flag -20", head("Set-Cookie: a=1")},
		{"session without Secure, with HSTS", "cookies-session-without-secure-flag-but-protected-by-hsts -10", head("Set-Cookie: login=1; HttpOnly", hsts)},
		{"session without Secure", "cookies-session-without-secure-flag -40", head("Set-Cookie: PHPSESSID=1; HttpOnly")},
		{"session that script can read", "cookies-session-without-httponly-flag -30", head("Set-Cookie: session=1; Secure", hsts)},
		{"CSRF without SameSite", "cookies-anticsrf-without-samesite-flag -20", head("Set-Cookie: csrf=1; Secure")},
		{"SameSite of no meaning", "cookies-samesite-flag-invalid -20", head("Set-Cookie: a=1; Secure; SameSite=Loose")},
		{"None needs Secure", "cookies-samesite-flag-invalid -20", head("Set-Cookie: a=1; SameSite=None")},
		{"the worst one counts", "cookies-session-without-httponly-flag -30", head("Set-Cookie: a=1; Secure; SameSite=Strict", "Set-Cookie: sess=1; Secure", "Set-Cookie: csrf=1; Secure")},
		{"replaced by its namesake", "cookies-secure-with-httponly-sessions +0", head("Set-Cookie: a=1", "Set-Cookie: a=2; Secure")},
		{"not kept by browsers", "cookies-not-found +0", head("Set-Cookie: __Host-a=1; Secure; Path=/x", "Set-Cookie: __Secure-b=1", "Set-Cookie: novalue", "Set-Cookie: =x")},
	}
	for _, tt := range tests {
		found := ""
		for _, f := range headers.Grade(tt.header, true).Findings {
			if sign := map[bool]string{true: "+", false: ""}[f.Points >= 0]; !f.Remark {
				found += f.Result + " " + sign + strconv.Itoa(f.Points) + "\n"
			}
		}
		if !strings.Contains(found, tt.result+"\n") {
			t.Errorf("%s: want %s among\n%s", tt.why, tt.result, found)
		}
	}
}

// Bonus points count only from 90 points on, and no score is negative.
func TestGradeScore(t *testing.T) {
	good := []string{strict, hsts, "Referrer-Policy: no-referrer", "Cross-Origin-Resource-Policy: same-origin"}
	for _, tt := range []struct {
		why    string
		header http.Header
		score  int
		grade  string
	}{
		{"all bonuses but one for cookies", head(append(good, nosniff)...), 130, "A+"},
		{"95 takes its bonuses", head(good...), 125, "A+"},
		{"90 takes its bonuses", head(append(good, nosniff, "Set-Cookie: login=1; HttpOnly")...), 120, "A+"},
		{"85 takes none", head(append(good, "Set-Cookie: login=1; HttpOnly")...), 85, "A-"},
		{"all lost", head("Set-Cookie: session=1; SameSite=?", "Referrer-Policy: x", "Cross-Origin-Resource-Policy: x"), 0, "F"},
	} {
		if got := headers.Grade(tt.header, true); got.Score != tt.score || got.Grade != tt.grade {
			t.Errorf("%s: got %d %s, want %d %s: %+v", tt.why, got.Score, got.Grade, tt.score, tt.grade, got.Findings)
		}
	}
}

func remarksOf(g headers.Grading) (out []string) {
	for _, f := range g.Findings {
		if f.Remark {
			out = append(out, f.Test+": "+f.Reason)
		}
	}
	return out
}

func TestGradeRemarks(t *testing.T) {
	for _, tt := range []struct{ why, want, header string }{
		{"any host can be a WebSocket's", "connect-src allows wss:", csp + "default-src 'none'; connect-src 'self' wss:"},
		{"and in the clear", "connect-src allows ws:", csp + "default-src 'self' ws:"},
		{"default-src is no fallback for base-uri", "base-uri is absent", strict},
		{"nor for form-action", "form-action is absent", strict},
		{"nor for frame-ancestors", "frame-ancestors is absent", csp + "default-src 'none'"},
		{"script-src-elem is never looked at", "script-src-elem allows script", csp + "script-src 'self'; script-src-elem 'unsafe-inline'"},
		{"blob: runs script", "script-src allows blob:", csp + "script-src blob:"},
		{"a host called self", "keyword without quotes", csp + "script-src self"},
		{"several policies", "holds several policies", csp + "default-src 'self', script-src 'none'"},
		{"frame-ancestors decides", "frame-ancestors allows more", csp + "frame-ancestors 'self'\nX-Frame-Options: deny"},
		{"frame-ancestors decides", "frame-ancestors allows more", csp + "frame-ancestors 'self' https://a.example\nX-Frame-Options: SAMEORIGIN"},
		{"subdomains", "does not include subdomains", hsts},
		{"no number", "max-age is not a number", "Strict-Transport-Security: max-age=year"},
		{"isolation", "Cross-Origin-Opener-Policy", "Cross-Origin-Opener-Policy: unsafe-none"},
		{"a weak value that is reported", "Cross-Origin-Opener-Policy", `Cross-Origin-Opener-Policy: unsafe-none; report-to="a"`},
		{"permissions", "Permissions-Policy", nosniff},
		{"the XSS filter as an oracle", "X-Xss-Protection", "X-XSS-Protection: 1"},
		{"a version", "Server", "Server: Apache/2.4.1"},
		{"an origin echoed", "does not repeat every Origin", "Access-Control-Allow-Origin: https://a.example\nAccess-Control-Allow-Credentials: true"},
	} {
		got := strings.Join(remarksOf(headers.Grade(head(strings.Split(tt.header, "\n")...), true)), "\n")
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: want %q among\n%s", tt.why, tt.want, got)
		}
	}
	if got := remarksOf(headers.Grade(head(hsts), false)); !strings.Contains(strings.Join(got, "\n"), "plain HTTP") {
		t.Errorf("HSTS over plain HTTP goes unremarked: %q", got)
	}
}

func FuzzGrade(f *testing.F) {
	f.Add(headers.Strict().CSP.String(), "max-age=31536000", "sess=1; Secure; SameSite=Lax")
	f.Add("script-src 'strict-dynamic' 'nonce-a' *; report-to a; report-to b", `max-age="x"`, "__Host-a=1; Path=/; Secure")
	f.Add("default-src 'self' http://a.example/x/, default-src http://a.example/x/%", `same-origin; report-to="a"`, "sess")
	f.Fuzz(func(t *testing.T, csp, hsts, cookie string) {
		h := http.Header{"Content-Security-Policy": {csp}, "Strict-Transport-Security": {hsts}, "Set-Cookie": {cookie}}
		h.Set("Cross-Origin-Opener-Policy", hsts)
		g := headers.Grade(h, true)
		if g.Score < 0 || g.Score > 155 || g.Grade == "" {
			t.Fatalf("got %+v", g)
		}
		for _, found := range g.Findings {
			if found.Reason == "" {
				t.Fatalf("%+v has no reason", found)
			}
		}
	})
}
