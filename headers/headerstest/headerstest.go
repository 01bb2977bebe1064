// Package headerstest fails a test if a response of a handler lacks a header of
// a policy.
//
//	func TestHeaders(t *testing.T) {
//		patterns := slices.Collect(maps.Keys(routes))
//		headerstest.Every(t, site(), policy(), patterns...)
//	}
//
// The caller passes the patterns, because http.ServeMux has no function that
// lists its own. Register the routes from a map or a list, and pass its
// patterns, so that a new route cannot be forgotten. Routers that list their
// routes, such as chi with Walk and gin with Routes, give the patterns
// themselves.
package headerstest

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relayguard/relayguard/headers"
)

// Every asks the handler for each pattern, and fails the test for each response
// that lacks a header of the policy, has it twice, or has another value. The
// policy is that of the outermost middleware.
//
// A pattern is one of http.ServeMux, such as "POST example.com/files/{name}".
// Its wildcards are replaced by the word "x"; write a path instead if the
// handler needs another value. Each pattern is asked with its method, with the
// handshake of a WebSocket, with a method that no route has (405), and with a
// handler that panics when it begins to answer. Every asks for a path that no
// route has (404) as well. It follows no redirect and sends no body.
//
// Every runs the handlers. Give it a handler whose stores are those of a test.
// A server on the loopback interface receives the requests over HTTP/1.1 and
// marks them as requests over TLS. The handler that panics is called without a
// server, because a server gives no response to a panic. If no middleware
// recovers the panic, there is no response and no failure.
//
// Every does not check Cache-Control, which handlers may replace and
// http.ServeContent deletes. Nor does it see whether the handler knows the
// pattern.
func Every(t testing.TB, h http.Handler, p headers.Policy, patterns ...string) {
	t.Helper()
	check(t, h, p, append(slices.Clone(patterns), "/headerstest/absent"))
}

// Routes is [Every] for patterns alone, without the path that no route has. Use
// it for routes with a policy of their own; see [headers.Middleware.With].
func Routes(t testing.TB, h http.Handler, p headers.Policy, patterns ...string) {
	t.Helper()
	check(t, h, p, patterns)
}

// noMethod is a method that no route has, so asking with it changes nothing.
const noMethod = "HEADERSTEST"

// patience is the time within which a response must begin. It bounds a handler
// that never answers.
const patience = 30 * time.Second

func check(t testing.TB, h http.Handler, p headers.Policy, patterns []string) {
	t.Helper()
	mw, err := headers.New(p)
	if err != nil {
		t.Errorf("headerstest: %v", err)
		return
	}
	asked := &watcher{Handler: h, mw: mw}
	server := httptest.NewUnstartedServer(asked)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	defer server.Close()
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Transport.(*http.Transport).DisableKeepAlives = true

	for _, pattern := range patterns {
		r, ok := request(pattern)
		if !ok {
			t.Errorf("headerstest: %q is not a pattern", pattern)
			continue
		}
		r.URL.Scheme, r.URL.Host = "http", server.Listener.Addr().String()
		upgrade, other := r.Clone(t.Context()), r.Clone(t.Context())
		upgrade.Header = handshake()
		other.Method = noMethod
		for _, ask := range []struct {
			how string
			r   *http.Request
		}{{"", r}, {" with an upgrade", upgrade}, {" with method " + noMethod, other}} {
			v := new(visit)
			asked.now.Store(v)
			res, err := do(t.Context(), client, ask.r)
			want, panicked := v.seen()
			switch {
			case err == nil:
				compare(t, pattern, ask.how, res.StatusCode, res.Header, want)
			case !panicked:
				t.Errorf("headerstest: %q%s: %v", pattern, ask.how, err)
			}
		}
		panics(t, h, mw, pattern, r)
	}
}

// do returns a response without its body, which may have no end.
func do(ctx context.Context, client *http.Client, r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	res, err := client.Do(r.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	res.Body.Close()
	return res, nil
}

// watcher is the handler under test.
type watcher struct {
	http.Handler
	mw  *headers.Middleware
	now atomic.Pointer[visit]
}

// visit is what is known of one request: what the policy sends to it, and
// whether the handler ended with a panic.
type visit struct {
	mu       sync.Mutex
	want     http.Header
	panicked bool
}

func (w *watcher) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	v := w.now.Load()
	r.TLS = &tls.ConnectionState{HandshakeComplete: true}
	v.update(func() { v.want = want(w.mw, r) })
	defer func() {
		if cause := recover(); cause != nil {
			v.update(func() { v.panicked = true })
			panic(cause)
		}
	}()
	w.Handler.ServeHTTP(rw, r)
}

func (v *visit) update(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

func (v *visit) seen() (want http.Header, panicked bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.want, v.panicked
}

// want returns the headers of the policy for the request, without
// Cache-Control.
func want(mw *headers.Middleware, r *http.Request) http.Header {
	h := make(http.Header)
	mw.Apply(h, r)
	h.Del("Cache-Control")
	return h
}

// handshake returns the headers of RFC 6455, section 4.1.
func handshake() http.Header {
	return http.Header{
		"Connection":            {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
}

var (
	wildcard = regexp.MustCompile(`\{[^{}]*\}`)
	aMethod  = regexp.MustCompile(`^[A-Z]+$`)
	aHost    = regexp.MustCompile(`^[A-Za-z0-9.:_\[\]-]*$`)
)

// request returns a request that the pattern matches.
func request(pattern string) (*http.Request, bool) {
	method, rest, ok := strings.Cut(pattern, " ")
	if !ok {
		method, rest = http.MethodGet, pattern
	}
	rest = strings.TrimLeft(rest, " \t")
	host, path, ok := strings.Cut(rest, "/")
	if !ok || !aMethod.MatchString(method) {
		return nil, false
	}
	path = strings.ReplaceAll("/"+path, "{$}", "")
	path = wildcard.ReplaceAllString(path, "x")
	u, err := url.ParseRequestURI(path)
	if err != nil || !aHost.MatchString(host) {
		return nil, false
	}
	return &http.Request{Method: method, URL: u, Host: host, Header: make(http.Header)}, true
}

// panics calls the handler with a ResponseWriter that panics once, when the
// handler begins to answer.
func panics(t testing.TB, h http.Handler, mw *headers.Middleware, pattern string, r *http.Request) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	inner := httptest.NewRequestWithContext(ctx, r.Method, r.URL.RequestURI(), nil)
	inner.Host = r.Host
	inner.TLS = &tls.ConnectionState{HandshakeComplete: true}
	w := &bomb{ResponseRecorder: httptest.NewRecorder(), armed: true}
	defer func() {
		t.Helper()
		if recover() == nil && !w.armed {
			res := w.Result()
			compare(t, pattern, " with a panic", res.StatusCode, res.Header, want(mw, inner))
		}
	}()
	h.ServeHTTP(w, inner)
}

// bomb is a ResponseWriter whose first use for an answer panics.
type bomb struct {
	*httptest.ResponseRecorder
	armed bool
}

func (b *bomb) explode() {
	if b.armed {
		b.armed = false
		panic("headerstest: a panic in the handler")
	}
}

func (b *bomb) WriteHeader(status int) {
	b.explode()
	b.ResponseRecorder.WriteHeader(status)
}

func (b *bomb) Write(p []byte) (int, error) {
	b.explode()
	return b.ResponseRecorder.Write(p)
}

func (b *bomb) WriteString(s string) (int, error) { return b.Write([]byte(s)) }

func (b *bomb) Flush() {
	b.explode()
	b.ResponseRecorder.Flush()
}

var nonce = regexp.MustCompile(`'nonce-[A-Za-z0-9_-]{22}'`)

func compare(t testing.TB, pattern, how string, status int, got, want http.Header) {
	t.Helper()
	// No header contains the NUL that replaces a nonce.
	same := func(a, b string) bool { return nonce.ReplaceAllString(a, "\x00") == nonce.ReplaceAllString(b, "\x00") }
	for name, values := range want {
		switch g := got[name]; {
		case len(g) == 0:
			t.Errorf("headerstest: %q%s: %d: %s is missing", pattern, how, status, name)
		case len(g) > 1:
			t.Errorf("headerstest: %q%s: %d: %s is there %d times", pattern, how, status, name, len(g))
		case !same(g[0], values[0]):
			t.Errorf("headerstest: %q%s: %d: %s is %q, want %q", pattern, how, status, name, g[0], values[0])
		}
	}
}
