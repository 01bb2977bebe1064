package headers_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"html/template"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/relayguard/relayguard/headers"
)

func must(t testing.TB, p headers.Policy) *headers.Middleware {
	t.Helper()
	mw, err := headers.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return mw
}

// nine returns a policy of nine headers with fixed values.
func nine() headers.Policy {
	p := headers.Strict()
	p.HSTS, p.OriginAgent = headers.HSTS{}, ""
	return p
}

// A handler that changes the values of a header must not change another header
// or another response.
func TestValuesAreNeverShared(t *testing.T) {
	for _, p := range []headers.Policy{headers.Strict(), withNonce()} {
		mw := must(t, p)
		req := httptest.NewRequest("GET", "https://relay.example/", nil)
		want := make(http.Header)
		mw.Apply(want, req)
		want = want.Clone()

		first := make(http.Header)
		mw.Apply(first, req)
		for name := range first {
			before := first.Clone()
			first[name][0] = "changed"
			_ = append(first[name], "grown", "grown")
			for other := range first {
				if other != name && !slices.Equal(first[other], before[other]) {
					t.Errorf("changing %s changed %s", name, other)
				}
			}
		}
		second := make(http.Header)
		mw.Apply(second, req)
		for name := range want {
			if strings.Contains(want[name][0], "'nonce-") {
				continue
			}
			if !slices.Equal(second[name], want[name]) {
				t.Errorf("%s: got %q in the next response, want %q", name, second[name], want[name])
			}
		}
		if strings.Contains(second.Get("Content-Security-Policy"), "changed") {
			t.Error("the CSP of one response reached the next")
		}
	}
}

func TestOneAllocation(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy headers.Policy
	}{{"nine fixed headers", nine()}, {"all of Strict", headers.Strict()}} {
		h := must(t, tt.policy).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		w := &writer{make(http.Header)}
		r := httptest.NewRequest("GET", "https://relay.example/", nil)
		h.ServeHTTP(w, r)
		if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); n > 1 {
			t.Errorf("%s: %v allocations a request, want 1", tt.name, n)
		}
	}
}

// writer is a ResponseWriter without cost.
type writer struct{ h http.Header }

func (w *writer) Header() http.Header         { return w.h }
func (w *writer) Write(b []byte) (int, error) { return len(b), nil }
func (w *writer) WriteHeader(int)             {}

// The handler gets the original ResponseWriter, with its Hijacker, Flusher and
// ReaderFrom.
func TestWriterIsNotWrapped(t *testing.T) {
	var got http.ResponseWriter
	w := httptest.NewRecorder()
	must(t, headers.Strict()).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { got = w })).
		ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if got != http.ResponseWriter(w) {
		t.Errorf("the handler got a %T", got)
	}
}

func TestTLSMustBeProven(t *testing.T) {
	p := headers.Strict()
	p.CSP = p.CSP.With("upgrade-insecure-requests")
	always := p
	always.HSTS.Always = true
	noAge := headers.Policy{CSP: headers.CSP{}.With("upgrade-insecure-requests"), HSTS: headers.HSTS{Always: true}}
	forged := http.Header{"X-Forwarded-Proto": {"https"}, "Forwarded": {"proto=https"}}
	tests := []struct {
		why           string
		policy        headers.Policy
		tls           bool
		hsts, upgrade bool
	}{
		{"plain HTTP, whatever a header claims", p, false, false, false},
		{"TLS", p, true, true, true},
		{"a proxy ends TLS", always, false, true, true},
		{"Always without an age speaks for the CSP alone", noAge, false, false, true},
		{"upgrade-insecure-requests alone leaves no empty header", headers.Policy{CSP: noAge.CSP}, false, false, false},
	}
	for _, tt := range tests {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = forged
		if tt.tls {
			r.TLS = &tls.ConnectionState{}
		}
		h := make(http.Header)
		must(t, tt.policy).Apply(h, r)
		if got := h.Get("Strict-Transport-Security") != ""; got != tt.hsts {
			t.Errorf("%s: HSTS sent: %t", tt.why, got)
		}
		csp, sent := h["Content-Security-Policy"]
		if got := strings.Contains(strings.Join(csp, ""), "upgrade-insecure-requests"); got != tt.upgrade {
			t.Errorf("%s: upgrade-insecure-requests sent: %t", tt.why, got)
		}
		if sent && csp[0] == "" {
			t.Errorf("%s: an empty CSP was sent", tt.why)
		}
	}
}

func TestWith(t *testing.T) {
	base := headers.Strict()
	base.CacheControl = "no-store"
	mw := must(t, base)
	route, err := mw.With(func(p *headers.Policy) {
		// Replaced, removed, removed from TLS responses, and added.
		p.CacheControl = "public, max-age=60"
		p.EmbedderPolicy = ""
		p.HSTS = headers.HSTS{}
		p.CSPReportOnly = headers.CSP{}.With("img-src", headers.None)
		p.CSP = p.CSP.With("img-src", headers.Self, "data:").Without("object-src")
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "https://relay.example/", nil)
	mw.Handler(route.Handler(http.NotFoundHandler())).ServeHTTP(w, r)
	for name, want := range map[string]string{
		"Cache-Control":                       "public, max-age=60",
		"Cross-Origin-Embedder-Policy":        "",
		"Strict-Transport-Security":           "",
		"Content-Security-Policy-Report-Only": "img-src 'none'",
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
			"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Frame-Options": "DENY",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := sent(t, mw.Policy(), true).Get("Cache-Control"); got != "no-store" {
		t.Errorf("the original middleware now sends Cache-Control %q", got)
	}
	if _, err := mw.With(func(p *headers.Policy) { p.FrameOptions = "?" }); err == nil {
		t.Error("With accepts what New refuses")
	}
	// A header that a route removed stays removed in a route derived from it.
	deeper, err := route.With(func(p *headers.Policy) { p.NoSniff = false })
	if err != nil {
		t.Fatal(err)
	}
	w = httptest.NewRecorder()
	mw.Handler(deeper.Handler(http.NotFoundHandler())).ServeHTTP(w, r)
	if _, ok := w.Header()["Cross-Origin-Embedder-Policy"]; ok {
		t.Error("a route of a route sends what its parent removed")
	}
}

func TestRemoveAndStrip(t *testing.T) {
	mw := must(t, headers.Policy{NoSniff: true, HSTS: headers.HSTS{MaxAge: headers.Year}, Remove: []string{"x-powered-by", "Server"}})
	upstream := func() http.Header {
		return http.Header{
			"X-Powered-By": {"PHP/5"}, "Server": {"x/1"}, "X-Content-Type-Options": {"sniff", "nosniff"},
			"Strict-Transport-Security": {"max-age=1"}, "Etag": {`"1"`},
		}
	}
	h := upstream()
	mw.Apply(h, httptest.NewRequest("GET", "/", nil))
	wantExactly(t, h, map[string]string{
		"X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "max-age=1", "Etag": `"1"`,
	})
	h = upstream()
	mw.Strip(h)
	wantExactly(t, h, map[string]string{"Etag": `"1"`})
}

func withNonce() headers.Policy {
	p := headers.Strict()
	p.CSP = p.CSP.With("script-src", headers.NonceSource, headers.StrictDynamic).With("style-src", headers.Self, headers.NonceSource)
	p.CSPReportOnly = headers.CSP{}.With("script-src", headers.NonceSource).With("report-uri", "/csp?'nonce'")
	return p
}

func TestNonce(t *testing.T) {
	page := template.Must(template.New("").Parse(`<script {{.}}>1</script>`))
	var inContext string
	h := must(t, withNonce()).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inContext = headers.Nonce(r.Context())
		page.Execute(w, headers.NonceAttr(r.Context()))
	}))
	seen := make(map[string]bool)
	for range 64 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		nonce := inContext
		if len(nonce) != 22 || seen[nonce] || strings.Trim(nonce, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Fatalf("nonce %q: want 128 fresh bits in URL-safe base64", nonce)
		}
		seen[nonce] = true
		if want := `<script nonce="` + nonce + `">1</script>`; w.Body.String() != want {
			t.Errorf("got %s, want %s", w.Body, want)
		}
		want := "script-src 'nonce-" + nonce + "' 'strict-dynamic'; style-src 'self' 'nonce-" + nonce + "'; "
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, want) {
			t.Errorf("%q does not contain %q", csp, want)
		}
		want = "script-src 'nonce-" + nonce + "'; report-uri /csp?'nonce'"
		if got := w.Header().Get("Content-Security-Policy-Report-Only"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Two middlewares of one response must use the same nonce. Otherwise the page
// could satisfy only one of their policies.
func TestNonceOfNestedMiddleware(t *testing.T) {
	outer := must(t, headers.Policy{CSPReportOnly: headers.CSP{}.With("script-src", headers.NonceSource)})
	inner := must(t, headers.Policy{CSP: headers.CSP{}.With("script-src", headers.NonceSource)})
	w := httptest.NewRecorder()
	var nonce string
	outer.Handler(inner.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		nonce = headers.Nonce(r.Context())
	}))).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for _, name := range []string{"Content-Security-Policy", "Content-Security-Policy-Report-Only"} {
		if got, want := w.Header().Get(name), "script-src 'nonce-"+nonce+"'"; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestWithoutNonce(t *testing.T) {
	if n, a := headers.Nonce(context.Background()), headers.NonceAttr(context.Background()); n != "" || a != "" {
		t.Errorf("got %q, %q without a middleware", n, a)
	}
	// Without Handler, Apply sends a new nonce, and never an empty one or the
	// placeholder.
	mw := must(t, withNonce())
	one, two := make(http.Header), make(http.Header)
	r := httptest.NewRequest("GET", "/", nil)
	mw.Apply(one, r)
	mw.Apply(two, r)
	a, b := one.Get("Content-Security-Policy"), two.Get("Content-Security-Policy")
	if a == b || strings.Contains(a, "'nonce'") || strings.Contains(a, "'nonce-'") {
		t.Errorf("got %q, then %q", a, b)
	}
	// A policy without NonceSource does not change the request.
	var same bool
	must(t, headers.Strict()).Handler(http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) { same = got == r })).
		ServeHTTP(httptest.NewRecorder(), r)
	if !same {
		t.Error("the request was copied")
	}
}

func TestConcurrentUse(t *testing.T) {
	h := must(t, withNonce()).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, vs := range w.Header() {
			vs[0] += headers.Nonce(r.Context())
		}
	}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "https://relay.example/", bytes.NewReader(nil)))
				if got := w.Header().Get("X-Frame-Options"); len(got) != len("DENY")+22 {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	wg.Wait()
}
