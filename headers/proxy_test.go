package headers_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/headers"
)

// hints is an upstream server that sends 1xx responses, and its own policy.
func hints(t *testing.T) *url.URL {
	early := func(w http.ResponseWriter, link string) {
		w.Header().Set("Link", link)
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/plain", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "text") })
	mux.HandleFunc("/one", func(w http.ResponseWriter, _ *http.Request) {
		early(w, "</a.css>; rel=preload")
		io.WriteString(w, "text")
	})
	mux.HandleFunc("/two", func(w http.ResponseWriter, _ *http.Request) {
		early(w, "</a.css>; rel=preload")
		early(w, "</b.css>; rel=preload")
		w.WriteHeader(http.StatusNotFound)
	})
	mux.HandleFunc("/processing", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body) // reading sends 100 Continue
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, _ *http.Request) {
		early(w, "</a.css>; rel=preload")
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		rw.Flush()
	})
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) {
		early(w, "</a.css>; rel=preload")
		panic(http.ErrAbortHandler)
	})
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src *")
		w.Header().Set("X-Frame-Options", "SAMEORIGIN")
		w.Header().Set("X-Upstream", "1")
		mux.ServeHTTP(w, r)
	})
	s := httptest.NewServer(own)
	t.Cleanup(s.Close)
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// The headers must be on the final response, each of them once, whatever the
// upstream server has sent before it.
func TestProxiedInformationalResponses(t *testing.T) {
	p := withNonce()
	p.HSTS.Always = true
	mw := must(t, p)
	target := hints(t)
	proxy := func(modify func(*http.Response) error) *httputil.ReverseProxy {
		return &httputil.ReverseProxy{
			Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
			ModifyResponse: modify,
			ErrorLog:       log.New(io.Discard, "", 0),
		}
	}
	strip := func(res *http.Response) error { mw.Strip(res.Header); return nil }
	apply := func(res *http.Response) error { mw.Apply(res.Header, res.Request); return nil }
	applied := proxy(apply)
	applied.ErrorHandler = func(w http.ResponseWriter, r *http.Request, _ error) {
		mw.Apply(w.Header(), r)
		w.WriteHeader(http.StatusBadGateway)
	}
	route := func(h http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", h)
		return mux
	}
	stripped, direct := mw.Handler(proxy(strip)), applied
	for _, site := range []struct {
		name  string
		h     http.Handler
		outer bool // a header that others have set is kept
	}{
		{"the proxy itself", mw.Handler(proxy(strip)), true},
		{"the proxy below a mux", mw.Handler(route(mw.Handler(proxy(strip)))), true},
		{"the proxy in a function", mw.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { stripped.ServeHTTP(w, r) })), true},
		{"the proxy itself, with Apply instead of Strip", mw.Handler(proxy(apply)), true},
		{"a proxy that cannot be reached", mw.Handler(route(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mw.Strip(w.Header())
			direct.ServeHTTP(w, r)
		}))), false},
		{"Apply alone", applied, false},
	} {
		outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("X-Request-Id", "7")
			w.Header().Add("Set-Cookie", "a=1")
			w.Header().Add("Set-Cookie", "b=2")
			site.h.ServeHTTP(w, r)
		})
		for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
			s := httptest.NewUnstartedServer(outer)
			s.EnableHTTP2 = version == "HTTP/2.0"
			s.StartTLS()
			for _, tt := range []struct {
				path   string
				status int
				early  string // the 1xx that the client gets
				body   string
			}{
				{"/plain", 200, "", ""},
				{"/one", 200, "103", ""},
				{"/two", 404, "103 103", ""},
				{"/processing", 204, "102", ""},
				{"/upload", 200, "100", "words"},
				{"/gone", 502, "103", ""},
			} {
				where := fmt.Sprintf("%s, %s %s", site.name, version, tt.path)
				var early []string
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
						early = append(early, fmt.Sprint(code))
						return nil
					},
				})
				req, err := http.NewRequestWithContext(ctx, "POST", s.URL+tt.path, strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				if tt.body != "" {
					req.Header.Set("Expect", "100-continue")
				}
				res, err := s.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != tt.status || res.Proto != version || tt.body != "" && string(got) != tt.body {
					t.Errorf("%s: got %s %s %q, want %d", where, res.Proto, res.Status, got, tt.status)
				}
				if tt.body == "" && strings.Join(early, " ") != tt.early {
					t.Errorf("%s: the client got %q before, want %s", where, early, tt.early)
				}
				for name, values := range withoutNonce(sent(t, p, true)) {
					if got := withoutNonce(res.Header)[name]; !slices.Equal(got, values) {
						t.Errorf("%s: %s: got %q, want %q", where, name, got, values)
					}
				}
				if tt.status != 502 && res.Header.Get("X-Upstream") != "1" {
					t.Errorf("%s: the headers of the upstream server are lost", where)
				}
				if id, cookies := res.Header["X-Request-Id"], res.Header["Set-Cookie"]; site.outer && (len(id) != 1 || len(cookies) != 2) {
					t.Errorf("%s: X-Request-Id %q, Set-Cookie %q: the headers of others are lost", where, id, cookies)
				}
			}
			s.Close()
		}
	}
}

// withoutNonce returns the headers with NonceSource instead of the nonce, which
// is the same in all policies of a response.
func withoutNonce(h http.Header) http.Header {
	h = h.Clone()
	_, nonce, _ := strings.Cut(h.Get("Content-Security-Policy"), "'nonce-")
	nonce, _, _ = strings.Cut(nonce, "'")
	for _, values := range h {
		for i, v := range values {
			values[i] = strings.ReplaceAll(v, "'nonce-"+nonce+"'", headers.NonceSource)
		}
	}
	return h
}

// A proxied WebSocket has the headers on its 101, also after a 1xx.
func TestProxiedUpgradeAfterEarlyHints(t *testing.T) {
	p := headers.Strict()
	mw := must(t, p)
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(hints(t)) },
		ModifyResponse: func(res *http.Response) error { mw.Strip(res.Header); return nil },
	}
	s := httptest.NewTLSServer(mw.Handler(proxy))
	defer s.Close()
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), s.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	r := bufio.NewReader(conn)
	for _, status := range []int{103, 101} {
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != status {
			t.Fatalf("got %v, %v, want %d", res, err, status)
		}
		if status == 101 {
			wantPolicy(t, "a proxied 101", res.Header, p)
		}
	}
}
