// Package bench_test measures the packages beside their peers: ratios within one run, never times of one machine.
package bench_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/relayguard/relayguard/headers"
	"github.com/unrolled/secure"
)

// writer is a ResponseWriter that costs nothing. Its header is filled again and again, so that the growth of a map, which
// both pay alike, does not hide what they do.
type writer struct{ h http.Header }

func (w *writer) Header() http.Header         { return w.h }
func (w *writer) Write(b []byte) (int, error) { return len(b), nil }
func (w *writer) WriteHeader(int)             {}

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// nine is what both can send.
func nine() headers.Policy {
	p := headers.Strict()
	p.HSTS, p.OriginAgent = headers.HSTS{}, ""
	return p
}

func peer() http.Handler {
	p := nine()
	return secure.New(secure.Options{
		ContentTypeNosniff:        true,
		CustomFrameOptionsValue:   string(p.FrameOptions),
		CustomBrowserXssValue:     string(p.XSSProtection),
		ReferrerPolicy:            string(p.ReferrerPolicy),
		ContentSecurityPolicy:     p.CSP.String(),
		PermissionsPolicy:         p.Permissions.String(),
		CrossOriginOpenerPolicy:   string(p.OpenerPolicy),
		CrossOriginEmbedderPolicy: string(p.EmbedderPolicy),
		CrossOriginResourcePolicy: string(p.ResourcePolicy),
	}).Handler(nothing)
}

func ours(tb testing.TB) http.Handler {
	mw, err := headers.New(nine())
	if err != nil {
		tb.Fatal(err)
	}
	return mw.Handler(nothing)
}

// The two send the same, or the comparison is worth nothing.
func TestHeadersPeerSendsTheSame(t *testing.T) {
	a, b := httptest.NewRecorder(), httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	ours(t).ServeHTTP(a, r)
	peer().ServeHTTP(b, r)
	if len(a.Header()) != 9 || len(b.Header()) != 9 {
		t.Errorf("got %d and %d headers, want 9 of each", len(a.Header()), len(b.Header()))
	}
	for name := range a.Header() {
		if a.Header().Get(name) != b.Header().Get(name) {
			t.Errorf("%s: %q here, %q there", name, a.Header().Get(name), b.Header().Get(name))
		}
	}
}

// BenchmarkHeaders ends with the ratio that the package promises.
func BenchmarkHeaders(b *testing.B) {
	r := httptest.NewRequest("GET", "/", nil)
	run := func(h http.Handler, cost *float64) func(*testing.B) {
		return func(b *testing.B) {
			w := &writer{make(http.Header, 16)}
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
			*cost = float64(b.Elapsed()) / float64(b.N)
		}
	}
	var here, there float64
	b.Run("relayguard", run(ours(b), &here))
	b.Run("unrolled/secure", run(peer(), &there))
	b.Logf("unrolled/secure takes %.1f times as long", there/here)
}
