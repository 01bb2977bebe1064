// Package bench_test compares the packages with other libraries, each
// configured as its documentation recommends. It reports ratios within one run,
// because times are those of one machine. The tests check that the libraries do
// the same work.
package bench_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/unrolled/secure"

	"github.com/relayguard/relayguard/headers"
)

// writer is a ResponseWriter that does almost no work. Its header map is
// reused, so that the growth of the map, which takes all libraries the same
// time, does not hide the differences.
type writer struct{ h http.Header }

func newWriter() *writer { return &writer{make(http.Header, 16)} }

func (w *writer) Header() http.Header         { return w.h }
func (w *writer) Write(b []byte) (int, error) { return len(b), nil }
func (w *writer) WriteHeader(int)             {}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// nine is the set of headers that both libraries can send, without HSTS.
func nine() headers.Policy {
	p := headers.Strict()
	p.HSTS, p.OriginAgent = headers.HSTS{}, ""
	return p
}

// shop is the policy of a site with third parties, as far as both libraries can
// send it. The services in examples/services/thirdparties and beside this
// package send all of it.
func shop() headers.Policy {
	const provider = "https://js.stripe.com"
	p := headers.Strict()
	p.CSP = p.CSP.Add("script-src", provider).Add("frame-src", provider, "https://hooks.stripe.com").
		Add("connect-src", "https://api.stripe.com").Add("form-action", headers.Self)
	p.CSPReportOnly = headers.CSP{}.With("require-trusted-types-for", "'script'")
	p.Permissions = p.Permissions.With("payment", headers.Self, provider)
	p.OpenerPolicy, p.EmbedderPolicy, p.OriginAgent = headers.OpenerSameOriginAllowPopups, "", ""
	p.Extra = map[string]string{"X-Permitted-Cross-Domain-Policies": "none"}
	p.HSTS.Secure = func(r *http.Request) bool { return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" }
	return p
}

// sets are policies, each with the other library's options for the same
// headers.
var sets = []struct {
	name   string
	count  int
	policy headers.Policy
	peer   secure.Options
}{
	{"six", 6, headers.Baseline(), secure.Options{
		ContentTypeNosniff:    true,
		FrameDeny:             true,
		BrowserXssFilter:      true,
		ReferrerPolicy:        string(headers.Baseline().ReferrerPolicy),
		ContentSecurityPolicy: headers.Baseline().CSP.String(),
		STSSeconds:            int64(headers.Baseline().HSTS.MaxAge.Seconds()),
		STSIncludeSubdomains:  headers.Baseline().HSTS.IncludeSubDomains,
	}},
	{"nine", 9, nine(), secure.Options{
		ContentTypeNosniff:        true,
		FrameDeny:                 true,
		BrowserXssFilter:          true,
		ReferrerPolicy:            string(nine().ReferrerPolicy),
		ContentSecurityPolicy:     nine().CSP.String(),
		PermissionsPolicy:         nine().Permissions.String(),
		CrossOriginOpenerPolicy:   string(nine().OpenerPolicy),
		CrossOriginEmbedderPolicy: string(nine().EmbedderPolicy),
		CrossOriginResourcePolicy: string(nine().ResourcePolicy),
	}},
	{"third parties", 11, shop(), secure.Options{
		ContentTypeNosniff:              true,
		FrameDeny:                       true,
		BrowserXssFilter:                true,
		ReferrerPolicy:                  string(shop().ReferrerPolicy),
		ContentSecurityPolicy:           shop().CSP.String(),
		ContentSecurityPolicyReportOnly: shop().CSPReportOnly.String(),
		PermissionsPolicy:               shop().Permissions.String(),
		CrossOriginOpenerPolicy:         string(shop().OpenerPolicy),
		CrossOriginResourcePolicy:       string(shop().ResourcePolicy),
		XPermittedCrossDomainPolicies:   "none",
		STSSeconds:                      int64(shop().HSTS.MaxAge.Seconds()),
		STSIncludeSubdomains:            true,
		SSLProxyHeaders:                 map[string]string{"X-Forwarded-Proto": "https"},
	}},
}

func middleware(tb testing.TB, p headers.Policy) http.Handler {
	mw, err := headers.New(p)
	if err != nil {
		tb.Fatal(err)
	}
	return mw.Handler(nothing)
}

// Both libraries send the same headers. Otherwise the comparison would mean
// nothing.
func TestHeadersPeerSendsTheSame(t *testing.T) {
	for _, set := range sets {
		a, b := httptest.NewRecorder(), httptest.NewRecorder()
		r := httptest.NewRequest("GET", "https://relay.example/", nil)
		middleware(t, set.policy).ServeHTTP(a, r)
		secure.New(set.peer).Handler(nothing).ServeHTTP(b, r)
		if len(a.Header()) != set.count || len(b.Header()) != set.count {
			t.Errorf("%s: %d headers here, %d there", set.name, len(a.Header()), len(b.Header()))
		}
		for name := range a.Header() {
			if a.Header().Get(name) != b.Header().Get(name) {
				t.Errorf("%s: %s: %q here, %q there", set.name, name, a.Header().Get(name), b.Header().Get(name))
			}
		}
	}
}

func TestHeadersAllocations(t *testing.T) {
	for _, set := range sets {
		h, w := middleware(t, set.policy), newWriter()
		r := httptest.NewRequest("GET", "https://relay.example/", nil)
		if n := testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, r) }); n != 1 {
			t.Errorf("%s: %v allocations, want 1", set.name, n)
		}
	}
}

func BenchmarkHeaders(b *testing.B) {
	r := httptest.NewRequest("GET", "https://relay.example/", nil)
	serve := func(name string, h http.Handler) contender {
		w := newWriter()
		return contender{name, func(n int) {
			for range n {
				h.ServeHTTP(w, r)
			}
		}}
	}
	for _, set := range sets {
		b.Run(set.name, func(b *testing.B) {
			compare(b, 2000,
				serve("relayguard", middleware(b, set.policy)),
				serve("unrolled/secure", secure.New(set.peer).Handler(nothing)))
		})
	}
}
