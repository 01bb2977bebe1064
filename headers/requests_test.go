package headers_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/headers"
)

func TestConnections(t *testing.T) {
	type c = headers.Connections
	for _, tt := range []struct {
		why   string
		value c
		want  string // the header, or "!" and a part of the error
	}{
		{"the origin of the page", c{Allow: []headers.Source{headers.Self}}, "(response-origin)"},
		{"no connection", c{Allow: []headers.Source{headers.None}}, "()"},
		{"patterns of hosts, schemes and paths", c{Allow: []headers.Source{"https://*.a.example:8443", "http{s}?://a.example/v:n/*", "wss://b.example.:tld", "*://c.example"}}, `("https://*.a.example:8443" "http{s}?://a.example/v:n/*" "wss://b.example.:tld" "*://c.example")`},
		{"redirects", c{Allow: []headers.Source{headers.Self}, Redirects: true}, "(response-origin);redirects=allow"},

		{"a flag alone sends nothing", c{WebRTC: true}, "!Policy.Connections.Allow is required"},
		{"an endpoint alone sends nothing", c{ReportTo: "csp"}, "!Policy.Connections.Allow is required"},
		{"browsers would drop 'none'", c{Allow: []headers.Source{headers.None, headers.Self}}, "!Policy.Connections.Allow[0] contradicts"},
		{"twice", c{Allow: []headers.Source{headers.Self, headers.Self}}, "!Policy.Connections.Allow[1] is given twice"},
		{"a host of a CSP is no URL pattern", c{Allow: []headers.Source{"a.example"}}, "!Policy.Connections.Allow[0] is malformed"},
		{"a path needs a base", c{Allow: []headers.Source{"/v1"}}, "!Policy.Connections.Allow[0] is malformed"},
		{"a star alone is no URL pattern", c{Allow: []headers.Source{headers.Any}}, "!Policy.Connections.Allow[0] is malformed"},
		{"Chromium refuses regular expressions", c{Allow: []headers.Source{"https://a.([a-z]+)"}}, "!Policy.Connections.Allow[0] is malformed"},
		{"breaks out of the string", c{Allow: []headers.Source{`https://a.example" "*://*`}}, "!Policy.Connections.Allow[0] is malformed"},
		{"breaks out of the header", c{Allow: []headers.Source{"https://a.example/\r\nA: b"}}, "!Policy.Connections.Allow[0] is malformed"},
		{"a name that no header defines", c{Allow: []headers.Source{headers.Self}, ReportTo: "else"}, "!Policy.Connections.ReportTo is not one of the choices"},
	} {
		mw, err := headers.New(headers.Policy{Connections: tt.value})
		if part, refused := strings.CutPrefix(tt.want, "!"); refused {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %s", tt.why, err, part)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		h := make(http.Header)
		mw.Apply(h, httptest.NewRequest("GET", "/", nil))
		if got := h.Get("Connection-Allowlist"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.why, got, tt.want)
		}
	}
}

// Each header that names an endpoint needs its definition.
func TestReportToMustBeDefined(t *testing.T) {
	policies := map[string]func(name string) headers.Policy{
		"Policy.OpenerPolicy": func(name string) headers.Policy {
			return headers.Policy{OpenerPolicy: headers.OpenerSameOrigin.ReportTo(name)}
		},
		"Policy.OpenerPolicyReportOnly": func(name string) headers.Policy {
			return headers.Policy{OpenerPolicyReportOnly: headers.OpenerSameOrigin.ReportTo(name)}
		},
		"Policy.EmbedderPolicy": func(name string) headers.Policy {
			return headers.Policy{EmbedderPolicy: headers.EmbedderRequireCORP.ReportTo(name)}
		},
		"Policy.EmbedderPolicyReportOnly": func(name string) headers.Policy {
			return headers.Policy{EmbedderPolicyReportOnly: headers.EmbedderRequireCORP.ReportTo(name)}
		},
		"Policy.Permissions": func(name string) headers.Policy {
			return headers.Policy{Permissions: headers.Permissions{}.With("usb").ReportTo(name)}
		},
		"Policy.PermissionsReportOnly": func(name string) headers.Policy {
			return headers.Policy{PermissionsReportOnly: headers.Permissions{}.ReportTo(name).With("usb").Without("hid")}
		},
		"Policy.Integrity.ReportTo": func(name string) headers.Policy {
			return headers.Policy{Integrity: headers.Integrity{Scripts: true, ReportTo: name}}
		},
		"Policy.IntegrityReportOnly.ReportTo": func(name string) headers.Policy {
			return headers.Policy{IntegrityReportOnly: headers.Integrity{Styles: true, ReportTo: name}}
		},
		"Policy.ConnectionsReportOnly.ReportTo": func(name string) headers.Policy {
			return headers.Policy{ConnectionsReportOnly: headers.Connections{Allow: []headers.Source{headers.Self}, ReportTo: name}}
		},
		`Policy.MoreCSP[0]["report-to"][0]`: func(name string) headers.Policy {
			return headers.Policy{MoreCSP: []headers.CSP{headers.CSP{}.With("report-to", headers.Source(name))}}
		},
	}
	for field, policy := range policies {
		for _, name := range []string{"csp", `a"; x="`, "a);b=c", "a\r\nB: c"} {
			_, err := headers.New(policy(name))
			got := problems(t, err)
			if len(got) == 0 || got[len(got)-1].Field != field && got[0].Field != field {
				t.Errorf("%s: endpoint %q: got %v", field, name, err)
			}
		}
		p := policy("csp")
		p.ReportingEndpoints = []headers.Endpoint{{Name: "csp", URL: "/csp"}}
		must(t, p)
	}
}

// A name of an endpoint alone sends no Integrity-Policy.
func TestIntegrityNeedsAKind(t *testing.T) {
	p := headers.Policy{
		Integrity:          headers.Integrity{ReportTo: "csp"},
		ReportingEndpoints: []headers.Endpoint{{Name: "csp", URL: "/csp"}},
	}
	_, err := headers.New(p)
	if got := problems(t, err); len(got) != 1 || got[0].Field != "Policy.Integrity.Scripts" || !errors.Is(err, headers.ConfigMissing) {
		t.Errorf("got %v", err)
	}
}

func TestExtraRefuses(t *testing.T) {
	for _, tt := range []struct {
		why, name, value string
		reason           headers.ConfigReason
		text             string
	}{
		{"has a field of its own", "content-security-policy", "default-src *", headers.ConfigConflict, "the header has the field CSP"},
		{"has a field that is empty", "Integrity-Policy-Report-Only", "x", headers.ConfigConflict, "the field IntegrityReportOnly"},
		{"net/http frames the response with it", "Content-Length", "0", headers.ConfigConflict, "differs between responses"},
		{"net/http manages connections", "connection", "close", headers.ConfigConflict, "differs between responses"},
		{"every client would get it", "Set-Cookie", "session=1", headers.ConfigConflict, "differs between responses"},
		{"not a name", "X A", "b", headers.ConfigMalformed, `"X A" is not the name of a header`},
		{"a name with a colon", "X-A:", "b", headers.ConfigMalformed, "is not the name of a header"},
		{"no name", "", "b", headers.ConfigMalformed, "is not the name of a header"},
		{"splits the head", "X-A", "b\r\nSet-Cookie: c=d", headers.ConfigMalformed, "character"},
		{"ends the head for some proxies", "X-A", "b\n", headers.ConfigMalformed, "character"},
		{"space that a proxy would trim", "X-A", " b", headers.ConfigMalformed, "character"},
		{"not ASCII", "X-A", "caf\u00e9", headers.ConfigMalformed, "character"},
		{"an empty value is not an absent header", "X-A", "", headers.ConfigMissing, "use Remove"},
	} {
		_, err := headers.New(headers.Policy{Extra: map[string]string{tt.name: tt.value}})
		got := problems(t, err)
		if len(got) != 1 || !strings.HasPrefix(got[0].Field, "Policy.Extra[") || !errors.Is(err, tt.reason) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", tt.why, err, tt.reason, tt.text)
		}
	}
	_, err := headers.New(headers.Policy{Extra: map[string]string{"X-A": "1", "x-a": "2"}})
	if got := problems(t, err); len(got) != 1 || got[0].Field != `Policy.Extra["x-a"]` || !errors.Is(err, headers.ConfigDuplicate) {
		t.Errorf("two spellings of one name: got %v", err)
	}
	_, err = headers.New(headers.Policy{Extra: map[string]string{"X-A": "1"}, Remove: []string{"x-a"}})
	if got := problems(t, err); len(got) != 1 || got[0].Field != "Policy.Remove[0]" {
		t.Errorf("set and removed: got %v", err)
	}
}

// A route may replace and delete an extra header, and Strip knows it.
func TestExtraInRoutes(t *testing.T) {
	mw := must(t, headers.Policy{Extra: map[string]string{"X-Robots-Tag": "noindex", "X-A": "1"}})
	route, err := mw.With(func(p *headers.Policy) {
		delete(p.Extra, "X-A")
		p.Extra["X-Robots-Tag"] = "all"
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	mw.Handler(route.Handler(nothing)).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	wantExactly(t, w.Header(), map[string]string{"X-Robots-Tag": "all"})
	h := http.Header{"X-Robots-Tag": {"x"}, "X-A": {"y"}}
	mw.Strip(h)
	wantExactly(t, h, nil)
	if got := mw.Policy().Extra["X-A"]; got != "1" {
		t.Errorf("With changed the original policy: X-A is %q", got)
	}
}

// HSTS.Secure decides alone, per request.
func TestSecureByRequest(t *testing.T) {
	p := headers.Policy{
		CSP: headers.CSP{}.With("img-src", headers.Self).With("upgrade-insecure-requests"),
		HSTS: headers.HSTS{MaxAge: headers.Year, Secure: func(r *http.Request) bool {
			return r.Header.Get("X-Forwarded-Proto") == "https"
		}},
	}
	for _, tt := range []struct {
		why, target, proto string
		want               bool
	}{
		{"the proxy ended TLS", "http://a.example/", "https", true},
		{"the proxy got plain HTTP", "http://a.example/", "http", false},
		{"TLS between proxy and server proves nothing about the browser", "https://a.example/", "http", false},
	} {
		r := httptest.NewRequest("GET", tt.target, nil)
		r.Header.Set("X-Forwarded-Proto", tt.proto)
		h := make(http.Header)
		must(t, p).Apply(h, r)
		upgraded := strings.Contains(h.Get("Content-Security-Policy"), "upgrade-insecure-requests")
		if got := h.Get("Strict-Transport-Security") != ""; got != tt.want || upgraded != tt.want {
			t.Errorf("%s: HSTS %t, upgrade %t, want %t", tt.why, got, upgraded, tt.want)
		}
	}
}

// Whatever New accepts is one line of printable characters, and ends no string
// of the header before its end.
func FuzzValues(f *testing.F) {
	f.Add("X-A", "a\tb", "https://*.a.example/{x}?/*", "csp", "no-referrer, origin")
	f.Add("nel", `{"a":"b"}`, `https://a.example" "*`, `a"; b="`, "origin,,origin")
	f.Add("Set-Cookie", "a\r\nb", "*://a", "csp;redirects=allow", "same-origin\n")
	f.Fuzz(func(t *testing.T, name, value, pattern, endpoint, referrer string) {
		for _, p := range []headers.Policy{
			{Extra: map[string]string{name: value}},
			{Connections: headers.Connections{Allow: []headers.Source{headers.Source(pattern)}, ReportTo: endpoint}},
			{OpenerPolicy: headers.OpenerSameOrigin.ReportTo(endpoint), Integrity: headers.Integrity{Scripts: true, ReportTo: endpoint}},
			{Permissions: headers.Permissions{}.With(name, headers.Self, headers.Source(pattern)).ReportTo(endpoint)},
			{ReferrerPolicy: headers.ReferrerPolicy(referrer)},
		} {
			p.ReportingEndpoints = []headers.Endpoint{{Name: endpoint, URL: "/reports"}}
			mw, err := headers.New(p)
			if err != nil {
				continue
			}
			h := make(http.Header)
			mw.Apply(h, httptest.NewRequest("GET", "/", nil))
			for name, values := range h {
				if len(values) != 1 || strings.ContainsFunc(values[0], func(r rune) bool { return r != '\t' && (r < ' ' || r > '~') }) {
					t.Fatalf("%s: %q", name, values)
				}
				if len(p.Extra) == 0 && strings.Count(values[0], `"`)%2 != 0 {
					t.Fatalf("%s: %q has half a string", name, values)
				}
			}
		}
	})
}
