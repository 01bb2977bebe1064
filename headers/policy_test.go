package headers_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/headers"
)

// sent returns the headers that a policy sets on the response to a request,
// over TLS or not.
func sent(t testing.TB, p headers.Policy, tls bool) http.Header {
	t.Helper()
	mw, err := headers.New(p)
	if err != nil {
		t.Fatal(err)
	}
	target := "http://relay.example/"
	if tls {
		target = "https://relay.example/"
	}
	h := make(http.Header)
	mw.Apply(h, httptest.NewRequest("GET", target, nil))
	return h
}

// problems returns the errors that New joined.
func problems(t *testing.T, err error) []*headers.ConfigError {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T is not a joined error", err)
	}
	var all []*headers.ConfigError
	for _, e := range joined.Unwrap() {
		var ce *headers.ConfigError
		if !errors.As(e, &ce) || !strings.HasPrefix(e.Error(), "headers: "+ce.Field+" ") {
			t.Fatalf("%T is not a *ConfigError: %v", e, e)
		}
		all = append(all, ce)
	}
	return all
}

func TestBaselineIsTheSix(t *testing.T) {
	want := map[string]string{
		"X-Content-Type-Options": "nosniff",
		"X-Frame-Options":        "DENY",
		"X-Xss-Protection":       "1; mode=block",
		"Referrer-Policy":        "strict-origin-when-cross-origin",
		"Content-Security-Policy": "default-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
			"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
		"Strict-Transport-Security": "max-age=31536000; includeSubDomains",
	}
	wantExactly(t, sent(t, headers.Baseline(), true), want)
	delete(want, "Strict-Transport-Security")
	wantExactly(t, sent(t, headers.Baseline(), false), want)
}

func TestStrict(t *testing.T) {
	h := sent(t, headers.Strict(), true)
	permissions := h.Get("Permissions-Policy")
	wantExactly(t, h, map[string]string{
		"X-Content-Type-Options": "nosniff",
		"X-Frame-Options":        "DENY",
		"X-Xss-Protection":       "1; mode=block",
		"Referrer-Policy":        "strict-origin-when-cross-origin",
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
			"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
		"Strict-Transport-Security":    "max-age=31536000; includeSubDomains",
		"Permissions-Policy":           permissions,
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Embedder-Policy": "require-corp",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Origin-Agent-Cluster":         "?1",
	})
	for _, f := range []string{"camera", "microphone", "geolocation", "payment", "usb", "serial", "hid", "midi"} {
		if !strings.Contains(", "+permissions+",", ", "+f+"=(),") {
			t.Errorf("Permissions-Policy does not deny %s: %s", f, permissions)
		}
	}
}

func wantExactly(t *testing.T, got http.Header, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if vs := got[name]; len(vs) != 1 || vs[0] != value {
			t.Errorf("%s: got %q, want %q", name, vs, value)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("unexpected %s: %q", name, got[name])
		}
	}
}

// A zero policy sends nothing, so every tool shows that no policy was chosen.
func TestZeroPolicySendsNothing(t *testing.T) {
	wantExactly(t, sent(t, headers.Policy{}, true), nil)
}

func TestEveryField(t *testing.T) {
	wantExactly(t, sent(t, headers.Policy{
		NoSniff:            true,
		FrameOptions:       headers.FrameSameOrigin,
		XSSProtection:      headers.XSSOff,
		ReferrerPolicy:     headers.ReferrerNone,
		CSP:                headers.CSP{}.With("default-src", headers.None).With("report-to", "csp"),
		CSPReportOnly:      headers.CSP{}.With("img-src", headers.None).With("report-uri", "/reports"),
		HSTS:               headers.HSTS{MaxAge: 2 * headers.Year, IncludeSubDomains: true, Preload: true},
		Permissions:        headers.Permissions{}.With("fullscreen", headers.Self, "https://a.example").With("usb").With("hid", headers.Any),
		OpenerPolicy:       headers.OpenerSameOriginAllowPopups,
		EmbedderPolicy:     headers.EmbedderCredentialless,
		ResourcePolicy:     headers.ResourceSameSite,
		OriginAgent:        headers.AgentSiteKeyed,
		ReportingEndpoints: []headers.Endpoint{{Name: "csp", URL: "/reports"}, {Name: "else", URL: "https://r.example/x?y=1"}},
		CacheControl:       `private, max-age=60, no-cache="Set-Cookie"`,
		Integrity:          headers.Integrity{Scripts: true, Styles: true, ReportTo: "csp"},
		Connections:        headers.Connections{Allow: []headers.Source{headers.Self, "https://*.a.example/v1/*"}, Redirects: true, WebRTC: true, ReportTo: "csp"},
		Extra:              map[string]string{"x-robots-tag": "noindex", "NEL": "{\"report_to\":\"csp\",\t\"max_age\":60}"},

		PermissionsReportOnly:    headers.Permissions{}.With("usb").With("camera", headers.Self).ReportTo("csp"),
		OpenerPolicyReportOnly:   headers.OpenerSameOrigin.ReportTo("csp"),
		EmbedderPolicyReportOnly: headers.EmbedderRequireCORP.ReportTo("else"),
		IntegrityReportOnly:      headers.Integrity{Scripts: true},
		ConnectionsReportOnly:    headers.Connections{Allow: []headers.Source{headers.None}},
	}, true), map[string]string{
		"X-Content-Type-Options":              "nosniff",
		"X-Frame-Options":                     "SAMEORIGIN",
		"X-Xss-Protection":                    "0",
		"Referrer-Policy":                     "no-referrer",
		"Content-Security-Policy":             "default-src 'none'; report-to csp",
		"Content-Security-Policy-Report-Only": "img-src 'none'; report-uri /reports",
		"Strict-Transport-Security":           "max-age=63072000; includeSubDomains; preload",
		"Permissions-Policy":                  `fullscreen=(self "https://a.example"), usb=(), hid=*`,
		"Cross-Origin-Opener-Policy":          "same-origin-allow-popups",
		"Cross-Origin-Embedder-Policy":        "credentialless",
		"Cross-Origin-Resource-Policy":        "same-site",
		"Origin-Agent-Cluster":                "?0",
		"Reporting-Endpoints":                 `csp="/reports", else="https://r.example/x?y=1"`,
		"Cache-Control":                       `private, max-age=60, no-cache="Set-Cookie"`,
		"Integrity-Policy":                    "blocked-destinations=(script style), endpoints=(csp)",
		"Connection-Allowlist":                `(response-origin "https://*.a.example/v1/*");redirects=allow;webrtc=allow;report-to=csp`,
		"X-Robots-Tag":                        "noindex",
		"Nel":                                 "{\"report_to\":\"csp\",\t\"max_age\":60}",

		"Permissions-Policy-Report-Only":           "usb=();report-to=csp, camera=(self);report-to=csp",
		"Cross-Origin-Opener-Policy-Report-Only":   `same-origin; report-to="csp"`,
		"Cross-Origin-Embedder-Policy-Report-Only": `require-corp; report-to="else"`,
		"Integrity-Policy-Report-Only":             "blocked-destinations=(script)",
		"Connection-Allowlist-Report-Only":         "()",
	})
}

// A further CSP is sent in the same header, and every nonce of a response is
// the same.
func TestSeveralCSPs(t *testing.T) {
	p := headers.Policy{
		CSP:               headers.CSP{}.With("script-src", headers.NonceSource),
		MoreCSP:           []headers.CSP{headers.CSP{}.With("upgrade-insecure-requests"), headers.CSP{}.With("script-src", headers.Self, headers.NonceSource)},
		MoreCSPReportOnly: []headers.CSP{headers.CSP{}.With("img-src", headers.None), headers.CSP{}.With("font-src", headers.None)},
	}
	for _, tls := range []bool{true, false} {
		want := map[string]string{
			"Content-Security-Policy":             "script-src 'nonce', upgrade-insecure-requests, script-src 'self' 'nonce'",
			"Content-Security-Policy-Report-Only": "img-src 'none', font-src 'none'",
		}
		if !tls {
			want["Content-Security-Policy"] = "script-src 'nonce', script-src 'self' 'nonce'"
		}
		wantExactly(t, withoutNonce(sent(t, p, tls)), want)
	}
}

// Of several policies, browsers enforce each, so one strict frame-ancestors is
// enough for DENY.
func TestFrameOptionsWithSeveralCSPs(t *testing.T) {
	p := frames(headers.FrameDeny, headers.Any)
	p.MoreCSP = []headers.CSP{headers.CSP{}.With("img-src", headers.Self), headers.CSP{}.With("frame-ancestors", headers.None)}
	must(t, p)
}

func TestReferrerFallbacks(t *testing.T) {
	p := headers.Policy{ReferrerPolicy: headers.ReferrerNone + ", " + headers.ReferrerStrictOriginWhenCrossOrigin}
	wantExactly(t, sent(t, p, true), map[string]string{"Referrer-Policy": "no-referrer, strict-origin-when-cross-origin"})
}

func frames(o headers.FrameOptions, ancestors ...headers.Source) headers.Policy {
	return headers.Policy{FrameOptions: o, CSP: headers.CSP{}.With("frame-ancestors", ancestors...)}
}

// FrameOptions next to a frame-ancestors that allows no more, or next to none
// that browsers enforce.
func TestFrameOptionsThatAgree(t *testing.T) {
	tried := headers.Policy{FrameOptions: headers.FrameDeny, CSPReportOnly: headers.CSP{}.With("frame-ancestors", headers.Any)}
	for _, p := range []headers.Policy{
		frames(headers.FrameDeny, headers.None), frames(headers.FrameSameOrigin, headers.Self),
		frames(headers.FrameSameOrigin, headers.None), frames("", headers.Any), tried,
	} {
		must(t, p)
	}
}

func TestNewRefuses(t *testing.T) {
	type p = headers.Policy
	perm := func(f string, origins ...headers.Source) p {
		return p{Permissions: headers.Permissions{}.With(f, origins...)}
	}
	tests := []struct {
		why    string
		policy p
		field  string
		reason error
		text   string // part of the first error's text
	}{
		{"header injection", p{FrameOptions: "DENY\r\nSet-Cookie: a=b"}, "Policy.FrameOptions", headers.ConfigMalformed, "character"},
		{"a bare LF splits as well for some proxies", p{ReferrerPolicy: "origin\n"}, "Policy.ReferrerPolicy", headers.ConfigMalformed, "character"},
		{"no browser obeys it", p{FrameOptions: "ALLOW-FROM https://a.example"}, "Policy.FrameOptions", headers.ConfigUnknown, `"ALLOW-FROM https://a.example"`},
		{"case matters to some scanners", p{FrameOptions: "deny"}, "Policy.FrameOptions", headers.ConfigUnknown, `"deny"`},
		{"rewrites pages", p{XSSProtection: "1"}, "Policy.XSSProtection", headers.ConfigUnknown, `"1"`},
		{"one value of a list is none", p{ReferrerPolicy: "no-referrer, strict"}, "Policy.ReferrerPolicy", headers.ConfigUnknown, `"strict"`},
		{"an empty value in a list", p{ReferrerPolicy: "no-referrer,"}, "Policy.ReferrerPolicy", headers.ConfigMalformed, "empty item"},
		{"a value twice in a list", p{ReferrerPolicy: "origin, no-referrer, origin"}, "Policy.ReferrerPolicy", headers.ConfigDuplicate, `"origin"`},
		{"a parameter", p{OpenerPolicy: "same-origin; report-to=x"}, "Policy.OpenerPolicy", headers.ConfigUnknown, "report-to"},
		{"belongs to COEP", p{OpenerPolicy: "require-corp"}, "Policy.OpenerPolicy", headers.ConfigUnknown, "require-corp"},
		{"belongs to COOP", p{EmbedderPolicy: "same-origin"}, "Policy.EmbedderPolicy", headers.ConfigUnknown, "same-origin"},
		{"unknown", p{ResourcePolicy: "none"}, "Policy.ResourcePolicy", headers.ConfigUnknown, "none"},
		{"a structured boolean is ?1", p{OriginAgent: "true"}, "Policy.OriginAgent", headers.ConfigUnknown, "true"},
		{"negative age", p{HSTS: headers.HSTS{MaxAge: -time.Second}}, "Policy.HSTS.MaxAge", headers.ConfigNegative, "-1s"},
		{"would be max-age=0, which withdraws", p{HSTS: headers.HSTS{MaxAge: time.Millisecond}}, "Policy.HSTS.MaxAge", headers.ConfigMalformed, "1ms is not a whole number of seconds"},
		{"no age", p{HSTS: headers.HSTS{IncludeSubDomains: true}}, "Policy.HSTS.MaxAge", headers.ConfigMissing, "IncludeSubDomains"},
		{"preload list wants a year", p{HSTS: headers.HSTS{MaxAge: headers.Year - time.Second, IncludeSubDomains: true, Preload: true}}, "Policy.HSTS.Preload", headers.ConfigConflict, `"max-age=31535999; includeSubDomains; preload"`},
		{"preload list wants subdomains", p{HSTS: headers.HSTS{MaxAge: headers.Year, Preload: true}}, "Policy.HSTS.Preload", headers.ConfigConflict, "a year and IncludeSubDomains"},
		{"both wanted and withdrawn", p{HSTS: headers.HSTS{MaxAge: headers.Year, Withdraw: true}}, "Policy.HSTS.Withdraw", headers.ConfigConflict, "MaxAge of 0"},
		{"two answers to one question", p{HSTS: headers.HSTS{Always: true, Secure: func(*http.Request) bool { return true }}}, "Policy.HSTS.Secure", headers.ConfigConflict, "Always"},
		{"features are lower-case", perm("Camera/x"), `Policy.Permissions["camera/x"]`, headers.ConfigMalformed, "the name of a feature"},
		{"smuggles a feature", perm("camera=*, usb"), `Policy.Permissions["camera=*, usb"]`, headers.ConfigMalformed, "the name of a feature"},
		{"an origin has no path", perm("camera", headers.Self, "https://a.example/x"), `Policy.Permissions["camera"][1]`, headers.ConfigMalformed, `"https://a.example/x" is not an origin`},
		{"breaks out of the string", perm("camera", headers.Self, `https://a.example" *`), `Policy.Permissions["camera"][1]`, headers.ConfigMalformed, "is not an origin"},
		{"browsers give a frame no more than the page has", perm("camera", "https://a.example"), `Policy.Permissions["camera"]`, headers.ConfigConflict, "add Self"},
		{"everyone and someone", perm("camera", headers.Any, headers.Self), `Policy.Permissions["camera"][0]`, headers.ConfigConflict, "every origin"},
		{"twice", perm("camera", headers.Self, headers.Self), `Policy.Permissions["camera"][1]`, headers.ConfigDuplicate, "'self'"},
		{"keys are lower-case", p{ReportingEndpoints: []headers.Endpoint{{Name: "CSP", URL: "/r"}}}, "Policy.ReportingEndpoints[0].Name", headers.ConfigMalformed, `"CSP"`},
		{"twice", p{ReportingEndpoints: []headers.Endpoint{{Name: "a", URL: "/r"}, {Name: "a", URL: "/s"}}}, "Policy.ReportingEndpoints[1].Name", headers.ConfigDuplicate, `"a"`},
		{"browsers drop plain HTTP endpoints", p{ReportingEndpoints: []headers.Endpoint{{Name: "a", URL: "http://r.example/"}}}, "Policy.ReportingEndpoints[0].URL", headers.ConfigMalformed, `"http://r.example/" is neither`},
		{"another host", p{ReportingEndpoints: []headers.Endpoint{{Name: "a", URL: "//r.example/"}}}, "Policy.ReportingEndpoints[0].URL", headers.ConfigMalformed, "is neither"},
		{"breaks out of the string", p{ReportingEndpoints: []headers.Endpoint{{Name: "a", URL: `/r", b="/s`}}}, "Policy.ReportingEndpoints[0].URL", headers.ConfigMalformed, "is neither"},
		{"splits the header", p{CacheControl: "no-store; max-age=0"}, "Policy.CacheControl", headers.ConfigMalformed, "character"},
		{"splits the head", p{CacheControl: "no-store\r\nA: b"}, "Policy.CacheControl", headers.ConfigMalformed, "character"},
		{"an empty item", p{CacheControl: "no-store,,"}, "Policy.CacheControl", headers.ConfigMalformed, `"" is not a directive`},
		{"not a header's name", p{Remove: []string{"Via", "Server:"}}, "Policy.Remove[1]", headers.ConfigMalformed, `"Server:" is not the name of a header`},
		{"DENY next to everyone", frames(headers.FrameDeny, headers.Any), "Policy.FrameOptions", headers.ConfigConflict, `frame-ancestors allows "*"`},
		{"DENY next to the own origin", frames(headers.FrameDeny, headers.Self), "Policy.FrameOptions", headers.ConfigConflict, `"'self'"`},
		{"DENY next to a partner", frames(headers.FrameDeny, "https://a.example"), "Policy.FrameOptions", headers.ConfigConflict, `"https://a.example"`},
		{"SAMEORIGIN next to a partner", frames(headers.FrameSameOrigin, headers.Self, "https://a.example"), "Policy.FrameOptions", headers.ConfigConflict, `"https://a.example"`},
		{"the stricter of two policies is still too loose", p{FrameOptions: headers.FrameDeny, CSP: headers.CSP{}.With("frame-ancestors", headers.Any), MoreCSP: []headers.CSP{headers.CSP{}.With("frame-ancestors", headers.Self)}}, "Policy.FrameOptions", headers.ConfigConflict, `"*"`},
		{"a mistake in a further CSP", p{MoreCSP: []headers.CSP{{}, headers.CSP{}.With("img-src", "self")}}, `Policy.MoreCSP[1]["img-src"][0]`, headers.ReasonUnquoted, `"self"`},
		{"a further policy is only reported too", p{MoreCSPReportOnly: []headers.CSP{headers.CSP{}.With("sandbox")}}, `Policy.MoreCSPReportOnly[0]["sandbox"]`, headers.ReasonMisplaced, ""},
		{"set and removed", p{NoSniff: true, Remove: []string{"x-content-type-options"}}, "Policy.Remove[0]", headers.ConfigConflict, `"x-content-type-options"`},
		{"reports would go nowhere", p{CSP: headers.CSP{}.With("report-to", "csp")}, `Policy.CSP["report-to"][0]`, headers.ConfigUnknown, `ReportingEndpoints does not define "csp"`},
		{"ignored, with an error on the console", p{CSPReportOnly: headers.CSP{}.With("sandbox")}, `Policy.CSPReportOnly["sandbox"]`, headers.ReasonMisplaced, ""},
		{"ignored, with an error on the console", p{CSPReportOnly: headers.CSP{}.With("upgrade-insecure-requests")}, `Policy.CSPReportOnly["upgrade-insecure-requests"]`, headers.ReasonMisplaced, ""},
		{"a host called self", p{CSP: headers.CSP{}.With("img-src", headers.Any, "self")}, `Policy.CSP["img-src"][1]`, headers.ReasonUnquoted, `: "self"`},
	}
	for _, tt := range tests {
		mw, err := headers.New(tt.policy)
		if mw != nil {
			t.Errorf("%s: New returned a middleware beside its error", tt.why)
		}
		got := problems(t, err)
		if len(got) == 0 || got[0].Field != tt.field || !errors.Is(got[0], tt.reason) || !strings.Contains(got[0].Error(), tt.text) {
			t.Errorf("%s: got %v, want %s %v with %q", tt.why, err, tt.field, tt.reason, tt.text)
		}
		if !errors.Is(err, tt.reason) {
			t.Errorf("%s: errors.Is does not find the reason", tt.why)
		}
	}
}

func TestNewReportsEverythingAtOnce(t *testing.T) {
	p := headers.Strict()
	p.FrameOptions = "ALLOWALL"
	p.HSTS.MaxAge = -1
	p.CSP = p.CSP.With("img-src", "self").With("imgsrc", headers.Self)
	p.Remove = []string{"a b"}
	_, err := headers.New(p)
	if got := problems(t, err); len(got) != 5 {
		t.Errorf("got %d problems, want 5:\n%v", len(got), err)
	}
}

// New copies the policy, so later changes to the original have no effect.
func TestPolicyIsCopied(t *testing.T) {
	p := headers.Policy{
		ReportingEndpoints:    []headers.Endpoint{{Name: "csp", URL: "/a"}},
		Remove:                []string{"Server"},
		MoreCSP:               []headers.CSP{headers.CSP{}.With("img-src", headers.None)},
		MoreCSPReportOnly:     []headers.CSP{headers.CSP{}.With("img-src", headers.None)},
		Connections:           headers.Connections{Allow: []headers.Source{headers.Self}},
		ConnectionsReportOnly: headers.Connections{Allow: []headers.Source{headers.Self}},
		Extra:                 map[string]string{"X-A": "a"},
	}
	mw := must(t, p)
	change := func(p headers.Policy) {
		p.ReportingEndpoints[0].URL, p.Remove[0], p.Extra["X-A"] = "/b", "Via", "b"
		p.MoreCSP[0], p.MoreCSPReportOnly[0] = headers.CSP{}, headers.CSP{}
		p.Connections.Allow[0], p.ConnectionsReportOnly.Allow[0] = headers.None, headers.None
	}
	before := fmt.Sprintf("%+v", mw.Policy())
	change(p)
	change(mw.Policy())
	if after := fmt.Sprintf("%+v", mw.Policy()); after != before {
		t.Errorf("the policy changed from\n%s to\n%s", before, after)
	}
}

func TestWithdrawnHSTS(t *testing.T) {
	h := sent(t, headers.Policy{HSTS: headers.HSTS{Withdraw: true, IncludeSubDomains: true}}, true)
	wantExactly(t, h, map[string]string{"Strict-Transport-Security": "max-age=0; includeSubDomains"})
}
