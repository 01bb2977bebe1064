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
