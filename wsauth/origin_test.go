package wsauth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
)

func TestOrigins(t *testing.T) {
	always := func(scheme string) func(*http.Request) string {
		return func(*http.Request) string { return scheme }
	}
	site := wsauth.Origins{Scheme: always("https")}
	list := wsauth.Origins{Allow: []string{"https://a.test", "http://b.test:8080", "https://[2001:db8::1]"}}
	for _, row := range []struct {
		name    string
		origins wsauth.Origins
		host    string
		sent    []string
		ok      bool
	}{
		{"no browser", site, "site.test", nil, true},
		{"own page", site, "site.test", []string{"https://site.test"}, true},
		{"own page, default port written", site, "site.test", []string{"https://site.test:443"}, true},
		{"own page, default port in Host", site, "site.test:443", []string{"https://site.test"}, true},
		{"own page, capitals", site, "Site.Test", []string{"https://site.test"}, true},
		{"own page on a port", site, "site.test:3000", []string{"https://site.test:3000"}, true},
		{"own page on ::1", site, "[::1]:3000", []string{"https://[::1]:3000"}, true},
		{"plain TLS decides the scheme", wsauth.Origins{}, "site.test", []string{"http://site.test"}, true},
		{"plain TLS decides the scheme, other", wsauth.Origins{}, "site.test", []string{"https://site.test"}, false},
		{"other scheme", site, "site.test", []string{"http://site.test"}, false},
		{"other port", site, "site.test", []string{"https://site.test:8443"}, false},
		{"prefix", site, "site.test", []string{"https://evil-site.test"}, false},
		{"suffix", site, "site.test", []string{"https://site.test.evil"}, false},
		{"subdomain", site, "site.test", []string{"https://x.site.test"}, false},
		{"trailing dot", site, "site.test", []string{"https://site.test."}, false},
		{"null", site, "site.test", []string{"null"}, false},
		{"null for a host named null", site, "null", []string{"null"}, false},
		{"empty", site, "site.test", []string{""}, false},
		{"two", site, "site.test", []string{"https://site.test", "https://evil.test"}, false},
		{"a list in one", site, "site.test", []string{"https://site.test, https://evil.test"}, false},
		{"user name", site, "site.test", []string{"https://x@site.test"}, false},
		{"path", site, "site.test", []string{"https://site.test/"}, false},
		{"no scheme", site, "site.test", []string{"site.test"}, false},
		{"bad port", site, "site.test", []string{"https://site.test:99999"}, false},
		{"empty port", site, "site.test", []string{"https://site.test:"}, false},
		{"backslash", site, "site.test", []string{`https:\\site.test`}, false},
		{"a sign that lower case makes a k of", site, "k.test", []string{"https://\u212a.test"}, false},
		{"Host is nonsense too", site, "a b", []string{"https://a b"}, false},
		{"on the list", list, "site.test", []string{"https://a.test"}, true},
		{"on the list, with port", list, "site.test", []string{"http://b.test:8080"}, true},
		{"on the list, an address", list, "site.test", []string{"https://[2001:db8::1]:443"}, true},
		{"listed host, other port", list, "site.test", []string{"http://b.test"}, false},
		{"own page where there is a list", list, "site.test", []string{"http://site.test"}, false},
		{"development", wsauth.Origins{InsecureSkipOriginCheck: true}, "site.test", []string{"null"}, true},
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.Host = row.host
		r.Header["Origin"] = row.sent
		if row.sent == nil {
			r.Header.Del("Origin")
		}
		err := row.origins.Check(r)
		if (err == nil) != row.ok {
			t.Errorf("%s: %v", row.name, err)
		}
		if foreign, ok := errors.AsType[*wsauth.OriginError](err); err != nil && (!ok || len(foreign.Want) == 0) {
			t.Errorf("%s: untyped %v", row.name, err)
		}
	}
}

// An item that matches no page is reported, and the report does not hold it.
func TestOriginsValidate(t *testing.T) {
	for _, row := range []struct {
		item string
		ok   bool
		why  string
	}{
		{"https://a.test", true, ""},
		{"http://[::1]:3000", true, ""},
		{"*", false, "there are no patterns"},
		{"null", false, "any sandbox has it"},
		{"a.test", false, "no scheme"},
		{"https://*.test", false, "there are no patterns"},
		{"https://a.test/", false, "a path"},
		{"", false, "nothing"},
	} {
		err := wsauth.Origins{Allow: []string{"https://b.test", row.item}}.Validate()
		if (err == nil) != row.ok {
			t.Errorf("%q: %v: %s", row.item, err, row.why)
		}
		if err != nil && (!errors.Is(err, wsauth.ConfigMalformed) || !strings.HasPrefix(err.Error(), "wsauth: Origins.Allow[1] is malformed: write scheme://host")) {
			t.Errorf("%q: %v", row.item, err)
		}
	}
}

func FuzzOrigin(f *testing.F) {
	for _, seed := range []string{"https://a.test", "https://a.test:443", "null", "http://[::1]", "https://a.test:443@evil", "HTTPS://A.TEST"} {
		f.Add(seed)
	}
	site := wsauth.Origins{Allow: []string{"https://a.test"}}
	f.Fuzz(func(t *testing.T, sent string) {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.Header["Origin"] = []string{sent}
		plain := strings.TrimSuffix(strings.ToLower(sent), ":443")
		if err := site.Check(r); err == nil && strings.TrimLeft(strings.TrimPrefix(strings.ToLower(sent), "https://a.test"), ":0") != "443" && plain != "https://a.test" {
			t.Fatalf("admitted %q", sent)
		}
	})
}
