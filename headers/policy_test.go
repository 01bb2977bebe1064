package headers_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/headers"
)

// sent returns what a policy puts on a response to a request that came over TLS, or not.
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

// problems lists the errors that New joined.
func problems(t *testing.T, err error) []*headers.Error {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T is not a joined error", err)
	}
	var all []*headers.Error
	for _, e := range joined.Unwrap() {
		var he *headers.Error
		if !errors.As(e, &he) {
			t.Fatalf("%T is not an *Error", e)
		}
		all = append(all, he)
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

// A zero policy sends nothing, so whoever forgets to choose one sees it at once in every tool.
func TestZeroPolicySendsNothing(t *testing.T) {
	wantExactly(t, sent(t, headers.Policy{}, true), nil)
}

func TestEveryField(t *testing.T) {
	wantExactly(t, sent(t, headers.Policy{
		NoSniff:            true,
		FrameOptions:       headers.FrameSameOrigin,
		XSSProtection:      headers.XSSOff,
		ReferrerPolicy:     headers.NoReferrer,
		CSP:                headers.CSP{}.With("default-src", headers.None).With("report-to", "csp"),
		CSPReportOnly:      headers.CSP{}.With("img-src", headers.None).With("report-uri", "/reports"),
		HSTS:               headers.HSTS{MaxAge: 2 * headers.Year, IncludeSubDomains: true, Preload: true},
		Permissions:        headers.Permissions{}.With("fullscreen", headers.Self, "https://a.example").With("usb").With("hid", headers.Any),
		OpenerPolicy:       headers.OpenerSameOriginAllowPopups,
		EmbedderPolicy:     headers.EmbedderCredentialless,
		ResourcePolicy:     headers.ResourceSameSite,
		OriginAgent:        headers.SiteKeyed,
		ReportingEndpoints: []headers.Endpoint{{Name: "csp", URL: "/reports"}, {Name: "else", URL: "https://r.example/x?y=1"}},
		CacheControl:       `private, max-age=60, no-cache="Set-Cookie"`,
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
	})
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
		reason headers.Reason
	}{
		{"header injection", p{FrameOptions: "DENY\r\nSet-Cookie: a=b"}, "X-Frame-Options", headers.ReasonCharacter},
		{"a bare LF splits as well for some proxies", p{ReferrerPolicy: "origin\n"}, "Referrer-Policy", headers.ReasonCharacter},
		{"no browser obeys it", p{FrameOptions: "ALLOW-FROM https://a.example"}, "X-Frame-Options", headers.ReasonValue},
		{"case matters to some scanners", p{FrameOptions: "deny"}, "X-Frame-Options", headers.ReasonValue},
		{"rewrites pages", p{XSSProtection: "1"}, "X-Xss-Protection", headers.ReasonValue},
		{"a list hides the value that counts", p{ReferrerPolicy: "origin, no-referrer"}, "Referrer-Policy", headers.ReasonValue},
		{"a parameter", p{OpenerPolicy: "same-origin; report-to=x"}, "Cross-Origin-Opener-Policy", headers.ReasonValue},
		{"belongs to COEP", p{OpenerPolicy: "require-corp"}, "Cross-Origin-Opener-Policy", headers.ReasonValue},
		{"belongs to COOP", p{EmbedderPolicy: "same-origin"}, "Cross-Origin-Embedder-Policy", headers.ReasonValue},
		{"unknown", p{ResourcePolicy: "none"}, "Cross-Origin-Resource-Policy", headers.ReasonValue},
		{"a structured boolean is ?1", p{OriginAgent: "true"}, "Origin-Agent-Cluster", headers.ReasonValue},
		{"negative age", p{HSTS: headers.HSTS{MaxAge: -time.Second}}, "Strict-Transport-Security", headers.ReasonAge},
		{"would be max-age=0, which withdraws", p{HSTS: headers.HSTS{MaxAge: time.Millisecond}}, "Strict-Transport-Security", headers.ReasonAge},
		{"no age", p{HSTS: headers.HSTS{IncludeSubDomains: true}}, "Strict-Transport-Security", headers.ReasonAge},
		{"preload list wants a year", p{HSTS: headers.HSTS{MaxAge: headers.Year - time.Second, IncludeSubDomains: true, Preload: true}}, "Strict-Transport-Security", headers.ReasonPreload},
		{"preload list wants subdomains", p{HSTS: headers.HSTS{MaxAge: headers.Year, Preload: true}}, "Strict-Transport-Security", headers.ReasonPreload},
		{"both wanted and withdrawn", p{HSTS: headers.HSTS{MaxAge: headers.Year, Withdraw: true}}, "Strict-Transport-Security", headers.ReasonConflict},
		{"features are lower-case", perm("Camera/x"), "Permissions-Policy", headers.ReasonName},
		{"smuggles a feature", perm("camera=*, usb"), "Permissions-Policy", headers.ReasonName},
		{"an origin has no path", perm("camera", "https://a.example/x"), "Permissions-Policy", headers.ReasonSource},
		{"breaks out of the string", perm("camera", `https://a.example" *`), "Permissions-Policy", headers.ReasonSource},
		{"everyone and someone", perm("camera", headers.Any, headers.Self), "Permissions-Policy", headers.ReasonConflict},
		{"twice", perm("camera", headers.Self, headers.Self), "Permissions-Policy", headers.ReasonDuplicate},
		{"keys are lower-case", p{ReportingEndpoints: []headers.Endpoint{{Name: "CSP", URL: "/r"}}}, "Reporting-Endpoints", headers.ReasonName},
		{"twice", p{ReportingEndpoints: []headers.Endpoint{{Name: "a", URL: "/r"}, {Name: "a", URL: "/s"}}}, "Reporting-Endpoints", headers.ReasonDuplicate},
		{"browsers drop plain HTTP endpoints", p{ReportingEndpoints: []headers.Endpoint{{Name: "a", URL: "http://r.example/"}}}, "Reporting-Endpoints", headers.ReasonURL},
		{"another host", p{ReportingEndpoints: []headers.Endpoint{{Name: "a", URL: "//r.example/"}}}, "Reporting-Endpoints", headers.ReasonURL},
		{"breaks out of the string", p{ReportingEndpoints: []headers.Endpoint{{Name: "a", URL: `/r", b="/s`}}}, "Reporting-Endpoints", headers.ReasonURL},
		{"splits the header", p{CacheControl: "no-store; max-age=0"}, "Cache-Control", headers.ReasonCharacter},
		{"splits the head", p{CacheControl: "no-store\r\nA: b"}, "Cache-Control", headers.ReasonCharacter},
		{"an empty item", p{CacheControl: "no-store,,"}, "Cache-Control", headers.ReasonValue},
		{"not a header's name", p{Remove: []string{"Server:"}}, "Remove", headers.ReasonName},
		{"set and removed", p{NoSniff: true, Remove: []string{"x-content-type-options"}}, "Remove", headers.ReasonConflict},
		{"reports would go nowhere", p{CSP: headers.CSP{}.With("report-to", "csp")}, "Content-Security-Policy", headers.ReasonNoEndpoint},
		{"ignored, with an error on the console", p{CSPReportOnly: headers.CSP{}.With("sandbox")}, "Content-Security-Policy-Report-Only", headers.ReasonMisplaced},
		{"ignored, with an error on the console", p{CSPReportOnly: headers.CSP{}.With("upgrade-insecure-requests")}, "Content-Security-Policy-Report-Only", headers.ReasonMisplaced},
	}
	for _, tt := range tests {
		mw, err := headers.New(tt.policy)
		if mw != nil {
			t.Errorf("%s: New returned a middleware beside its error", tt.why)
		}
		got := problems(t, err)
		if len(got) == 0 || got[0].Field != tt.field || got[0].Reason != tt.reason {
			t.Errorf("%s: got %v, want %s: %s", tt.why, err, tt.field, tt.reason)
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

// New copies what it is given: a Policy that is changed afterwards changes nothing.
func TestPolicyIsCopied(t *testing.T) {
	p := headers.Policy{ReportingEndpoints: []headers.Endpoint{{Name: "csp", URL: "/a"}}, Remove: []string{"Server"}}
	mw, err := headers.New(p)
	if err != nil {
		t.Fatal(err)
	}
	p.ReportingEndpoints[0].URL, p.Remove[0] = "/b", "Via"
	mw.Policy().ReportingEndpoints[0].URL, mw.Policy().Remove[0] = "/c", "Age"
	if got := mw.Policy(); got.ReportingEndpoints[0].URL != "/a" || got.Remove[0] != "Server" {
		t.Errorf("the policy changed to %v, %v", got.ReportingEndpoints, got.Remove)
	}
}

func TestWithdrawnHSTS(t *testing.T) {
	h := sent(t, headers.Policy{HSTS: headers.HSTS{Withdraw: true, IncludeSubDomains: true}}, true)
	wantExactly(t, h, map[string]string{"Strict-Transport-Security": "max-age=0; includeSubDomains"})
}
