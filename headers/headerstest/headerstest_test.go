package headerstest_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/headers/headerstest"
)

// fake is a testing.TB that collects failures.
type fake struct {
	testing.TB
	failures []string
}

func (f *fake) Helper() {}
func (f *fake) Errorf(format string, args ...any) {
	f.failures = append(f.failures, fmt.Sprintf(format, args...))
}

func middleware(t testing.TB, p headers.Policy) *headers.Middleware {
	t.Helper()
	mw, err := headers.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return mw
}

func text(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "text") }

// upgrade writes its own 101, as gorilla/websocket does. The header is what the
// caller adds to it.
func upgrade(head func(*http.Request) http.Header) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "upgrade required", http.StatusUpgradeRequired)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, "no upgrade", http.StatusInternalServerError)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
		head(r).Write(rw)
		rw.WriteString("\r\n")
		rw.Flush()
	}
}

// recovering answers 500 after a panic. If clean is set, it first deletes all
// headers.
func recovering(next http.Handler, clean bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() == nil {
				return
			}
			if clean {
				clear(w.Header())
			}
			http.Error(w, "internal error", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// routes are those of a site in which every response has the headers.
func routes(mw *headers.Middleware) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/{$}":                       text,
		"GET /users/{id}":            text,
		"POST /users":                func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) },
		"GET /files/{path...}":       http.NotFound,
		"other.example/":             text,
		"DELETE other.example/{a}/b": text,
		"/moved":                     http.RedirectHandler("https://elsewhere.example/", http.StatusFound).ServeHTTP,
		"/panics":                    func(http.ResponseWriter, *http.Request) { panic("always") },
		"/ws": upgrade(func(r *http.Request) http.Header {
			h := make(http.Header)
			mw.Apply(h, r)
			return h
		}),
		"/endless": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"/cached": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "no-cache") },
	}
}

func site(mw *headers.Middleware) (http.Handler, []string) {
	mux := http.NewServeMux()
	var patterns []string
	for pattern, h := range routes(mw) {
		mux.HandleFunc(pattern, h)
		patterns = append(patterns, pattern)
	}
	slices.Sort(patterns)
	return mux, patterns
}

func TestEveryIsContent(t *testing.T) {
	nonce := headers.Strict()
	nonce.CSP = nonce.CSP.With("script-src", headers.NonceSource).With("style-src", headers.NonceSource)
	nonce.CacheControl = "no-store"
	proxied := headers.Strict()
	proxied.HSTS.Secure = func(r *http.Request) bool { return r.Header.Get("X-Forwarded-Proto") == "https" }
	for _, p := range []headers.Policy{headers.Strict(), headers.Baseline(), nonce, proxied} {
		mw := middleware(t, p)
		mux, patterns := site(mw)
		headerstest.Every(t, mw.Handler(recovering(mux, false)), p, patterns...)
		headerstest.Every(t, recovering(mw.Handler(mux), false), p, patterns...)
		headerstest.Every(t, mw.Handler(mux), p, patterns...) // a panic ends the connection
	}
}

// Each row is a site with one mistake.
func TestEveryFails(t *testing.T) {
	p := headers.Strict()
	mw := middleware(t, p)
	looser, err := mw.With(func(p *headers.Policy) { p.FrameOptions = "" })
	if err != nil {
		t.Fatal(err)
	}
	route := func(pattern string, h http.Handler) *http.ServeMux {
		mux := http.NewServeMux()
		mux.Handle(pattern, h)
		return mux
	}
	change := func(f func(http.Header)) http.Handler {
		return mw.Handler(route("/a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f(w.Header())
			text(w, r)
		})))
	}
	for _, tt := range []struct {
		why     string
		site    http.Handler
		pattern string
		want    []string // parts of one failure each
		absent  string   // a part of no failure
	}{
		{"no middleware", http.HandlerFunc(text), "/a", []string{`"/a": 200: X-Frame-Options is missing`, `"/a" with an upgrade: 200: X-Frame-Options`, `"/a" with method HEADERSTEST: 200: X-Frame-Options`, `"/headerstest/absent": 200: X-Frame-Options`}, ""},
		{"only the routes are wrapped, not the mux", route("GET /a", mw.Handler(http.HandlerFunc(text))), "GET /a", []string{`"/headerstest/absent": 404: X-Frame-Options is missing`, `"GET /a" with method HEADERSTEST: 405: X-Frame-Options is missing`}, `"GET /a": `},
		{"the recovery deletes the headers", recovering(mw.Handler(route("/a", http.HandlerFunc(text))), true), "/a", []string{`"/a" with a panic: 500: X-Frame-Options is missing`}, `"/a": `},
		{"the 101 is written by hand", mw.Handler(route("/ws", upgrade(func(*http.Request) http.Header { return nil }))), "/ws", []string{`"/ws" with an upgrade: 101: X-Frame-Options is missing`}, `"/ws": `},
		{"a route deletes a header", change(func(h http.Header) { h.Del("X-Frame-Options") }), "/a", []string{`"/a": 200: X-Frame-Options is missing`}, "absent"},
		{"a route has a weaker value", change(func(h http.Header) { h.Set("Content-Security-Policy", "default-src *") }), "/a", []string{`"/a": 200: Content-Security-Policy is "default-src *", want "default-src 'none'`}, "absent"},
		{"a route adds a second policy", change(func(h http.Header) { h.Add("X-Frame-Options", "SAMEORIGIN") }), "/a", []string{`"/a": 200: X-Frame-Options is there 2 times`}, "absent"},
		{"a route without HSTS", change(func(h http.Header) { h.Del("Strict-Transport-Security") }), "/a", []string{"Strict-Transport-Security is missing"}, "absent"},
		{"a route with another policy", mw.Handler(route("/a", looser.Handler(http.HandlerFunc(text)))), "/a", []string{`"/a": 200: X-Frame-Options is missing`}, "absent"},
		{"a wildcard in the middle", route("/a/{id}/b", http.HandlerFunc(text)), "/a/{id}/b", []string{`"/a/{id}/b": 200: X-Frame-Options is missing`}, ""},
		{"not HTTP", route("/a", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				io.WriteString(conn, "hello\r\n\r\n")
				conn.Close()
			}
		})), "/a", []string{`"/a": Get `}, ""},
		{"no pattern", mw.Handler(http.HandlerFunc(text)), "a", []string{`"a" is not a pattern`}, ""},
	} {
		f := &fake{TB: t}
		headerstest.Every(f, tt.site, p, tt.pattern)
		all := strings.Join(f.failures, "\n")
		for _, part := range tt.want {
			if !strings.Contains(all, part) {
				t.Errorf("%s: no failure contains %q:\n%s", tt.why, part, all)
			}
		}
		if tt.absent != "" && strings.Contains(all, tt.absent) {
			t.Errorf("%s: a failure contains %q:\n%s", tt.why, tt.absent, all)
		}
	}
}

// A nonce that is the same text in the policy and in the response would hide a
// response without one.
func TestEverySeesNonces(t *testing.T) {
	p := headers.Policy{CSP: headers.CSP{}.With("script-src", headers.NonceSource)}
	for _, csp := range []string{"script-src 'nonce'", "script-src 'nonce-'", "script-src 'nonce-short'", "script-src"} {
		f := &fake{TB: t}
		headerstest.Routes(f, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Security-Policy", csp)
		}), p, "/")
		if len(f.failures) == 0 {
			t.Errorf("%q passes", csp)
		}
	}
}

func TestRoutesAskNoOtherPath(t *testing.T) {
	p := headers.Baseline()
	mw := middleware(t, p)
	mux := http.NewServeMux()
	mux.Handle("/a", mw.Handler(http.HandlerFunc(text)))
	headerstest.Routes(t, mux, p, "/a")
	f := &fake{TB: t}
	headerstest.Routes(f, mux, headers.Strict(), "/a")
	if len(f.failures) == 0 {
		t.Error("Routes accepts another policy")
	}
}

func TestPolicyIsRefused(t *testing.T) {
	f := &fake{TB: t}
	headerstest.Every(f, http.NotFoundHandler(), headers.Policy{FrameOptions: "?"}, "/")
	if len(f.failures) != 1 || !strings.Contains(f.failures[0], "Policy.FrameOptions") {
		t.Errorf("got %q", f.failures)
	}
}

// Requests have the method, the host and the path of their pattern.
func TestRequests(t *testing.T) {
	for _, tt := range []struct{ pattern, want string }{
		{"/", "GET 127.0.0.1 /"},
		{"/{$}", "GET 127.0.0.1 /"},
		{"POST /a/{id}/b/{rest...}", "POST 127.0.0.1 /a/x/b/x"},
		{"DELETE\t /a", ""},
		{"PUT   a.example/{x}", "PUT a.example /x"},
		{"/a%2Fb?c=d", "GET 127.0.0.1 /a%2Fb?c=d"},
		{"get /a", ""},
		{"", ""},
		{"GET", ""},
		{"{host}/a", ""},
		{"/%zz", ""},
	} {
		var got []string
		f := &fake{TB: t}
		headerstest.Routes(f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := strings.Cut(r.Host, ":")
			if r.TLS == nil {
				t.Error("plain HTTP")
			}
			got = append(got, fmt.Sprintf("%s %s %s", r.Method, host, r.URL.RequestURI()))
		}), headers.Policy{}, tt.pattern)
		if tt.want == "" {
			if len(got) > 0 || len(f.failures) != 1 {
				t.Errorf("%q: got %q and %q, want a failure", tt.pattern, got, f.failures)
			}
			continue
		}
		other := "HEADERSTEST" + tt.want[strings.Index(tt.want, " "):]
		if len(got) != 4 || got[0] != tt.want || got[1] != tt.want || got[2] != other || !strings.HasPrefix(got[3], tt.want[:3]) {
			t.Errorf("%q: got %q, want %q", tt.pattern, got, tt.want)
		}
	}
}

// A request for a pattern can be sent.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{"/", "GET /{a}/{b...}", "POST a.example/{$}", "{", "/{{}}", "X //y", "/\x00", "GET a b/c", "A /%2f/{b}/../"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		r, ok := headerstest.Request(pattern)
		if !ok {
			return
		}
		if strings.ContainsAny(r.Method+r.Host, " \t\r\n") || !strings.HasPrefix(r.URL.Path, "/") {
			t.Fatalf("%q becomes %s %s %s", pattern, r.Method, r.Host, r.URL)
		}
		if err := r.Clone(t.Context()).Write(io.Discard); err != nil && r.Host != "" {
			t.Fatalf("%q: %v", pattern, err)
		}
	})
}
