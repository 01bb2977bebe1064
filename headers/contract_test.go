package headers_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen; only its 101 matters.

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/headers"

	"nhooyr.io/websocket"
)

var modified = time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)

// recovering answers 500 after a panic.
func recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// site has a path for every kind of response.
func site(t *testing.T, mw *headers.Middleware, upstream string) http.Handler {
	mux := http.NewServeMux()
	text := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "text") }
	mux.HandleFunc("/page", text)
	mux.HandleFunc("GET /get", text)
	mux.Handle("/moved", http.RedirectHandler("/page", http.StatusMovedPermanently))
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "a.txt", modified, strings.NewReader("0123456789"))
	})
	mux.HandleFunc("/limited", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		http.Error(w, "slow down", http.StatusTooManyRequests)
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4)); err != nil {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		}
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("boom") })
	mux.Handle("/quick", http.TimeoutHandler(http.HandlerFunc(text), time.Minute, "late"))
	mux.Handle("/late", http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}), time.Millisecond, "late"))
	mux.HandleFunc("/flushed", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "a")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("Flush: %v", err)
		}
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err == nil {
			c.CloseNow()
		}
	})
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(res *http.Response) error { mw.Strip(res.Header); return nil }
	mux.Handle("/proxied", proxy)
	down := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "127.0.0.1:0"})
	down.ErrorLog = log.New(io.Discard, "", 0)
	mux.Handle("/down", down)
	return recovering(mux)
}

// careless returns the URL of an upstream server with its own policy.
func careless(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src *")
		w.Header().Set("X-Frame-Options", "SAMEORIGIN")
		io.WriteString(w, "upstream")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// contract lists requests whose responses must carry every header.
var contract = []struct {
	status       int
	method, path string
	header       http.Header
	body         string
}{
	{200, "GET", "/page", nil, ""},
	{200, "HEAD", "/page", nil, ""},
	{200, "GET", "/file", nil, ""},
	{200, "GET", "/flushed", nil, ""},
	{200, "GET", "/quick", nil, ""},
	{200, "GET", "/proxied", nil, ""},
	{206, "GET", "/file", http.Header{"Range": {"bytes=2-4"}}, ""},
	{206, "GET", "/file", http.Header{"Range": {"bytes=0-1,4-5"}}, ""},
	{301, "GET", "/moved", nil, ""},
	{304, "GET", "/file", http.Header{"If-Modified-Since": {modified.Format(http.TimeFormat)}}, ""},
	{404, "GET", "/absent", nil, ""},
	{405, "POST", "/get", nil, "x"},
	{412, "GET", "/file", http.Header{"If-Unmodified-Since": {modified.AddDate(-1, 0, 0).Format(http.TimeFormat)}}, ""},
	{413, "POST", "/upload", nil, "too large"},
	{416, "GET", "/file", http.Header{"Range": {"bytes=90-"}}, ""},
	{429, "GET", "/limited", nil, ""},
	{500, "GET", "/panic", nil, ""},
	{502, "GET", "/down", nil, ""},
	{503, "GET", "/late", nil, ""},
}

func TestContract(t *testing.T) {
	p := headers.Strict()
	p.HSTS.Always = true
	mw := must(t, p)
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			s := httptest.NewUnstartedServer(mw.Handler(site(t, mw, careless(t))))
			s.EnableHTTP2 = version == "HTTP/2.0"
			s.StartTLS()
			defer s.Close()
			client := s.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			for _, c := range contract {
				req, err := http.NewRequest(c.method, s.URL+c.path, strings.NewReader(c.body))
				if err != nil {
					t.Fatal(err)
				}
				for name, v := range c.header {
					req.Header[name] = v
				}
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				// Closing the body sooner would cancel the request in HTTP/2.
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != c.status || res.Proto != version {
					t.Errorf("%s %s: got %s %s, want %d", c.method, c.path, res.Proto, res.Status, c.status)
				}
				wantPolicy(t, fmt.Sprintf("%s %s (%d)", c.method, c.path, c.status), res.Header, p)
			}
		})
	}
}

// wantPolicy requires every header of the policy, once, with its value.
func wantPolicy(t *testing.T, where string, got http.Header, p headers.Policy) {
	t.Helper()
	for name, want := range sent(t, p, true) {
		if vs := got[name]; len(vs) != 1 || vs[0] != want[0] {
			t.Errorf("%s: %s: got %q, want %q", where, name, vs, want)
		}
	}
}

func TestContractUpgrade(t *testing.T) {
	p := headers.Strict()
	mw := must(t, p)
	s := httptest.NewTLSServer(mw.Handler(site(t, mw, careless(t))))
	defer s.Close()
	c, res, err := websocket.Dial(t.Context(), s.URL+"/ws", &websocket.DialOptions{HTTPClient: s.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("got %s", res.Status)
	}
	wantPolicy(t, "the 101 of nhooyr.io/websocket", res.Header, p)
}

// A handler that writes its own 101, as gorilla/websocket does, gets the
// headers from Apply, and has none without it.
func TestHandWrittenHead(t *testing.T) {
	p := headers.Strict()
	mw := must(t, p)
	for _, applied := range []bool{true, false} {
		s := httptest.NewTLSServer(mw.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			head := make(http.Header)
			if applied {
				mw.Apply(head, r)
			}
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n")
			head.Write(rw)
			rw.WriteString("\r\n")
			rw.Flush()
		})))
		res := exchange(t, s, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", true)
		if applied {
			wantPolicy(t, "a hand-written 101 with Apply", res.Header, p)
		} else if res.Header.Get("X-Frame-Options") != "" {
			t.Error("a hand-written 101 has the headers without Apply: the documentation is wrong")
		}
		s.Close()
	}
}

// exchange sends the text unchanged and reads one response.
func exchange(t *testing.T, s *httptest.Server, text string, secure bool) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if secure {
		conn = tls.Client(conn, &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"})
	}
	io.WriteString(conn, text)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// The rows are the responses that the documentation of the package lists as out
// of reach. If one of them begins to carry the headers, shorten that list.
func TestOutOfReach(t *testing.T) {
	mw := must(t, headers.Strict())
	s := httptest.NewUnstartedServer(http.TimeoutHandler(mw.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	})), time.Millisecond, "late"))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.MaxHeaderBytes = 1 << 10
	s.StartTLS()
	defer s.Close()
	for _, tt := range []struct {
		why, text string
		secure    bool
		status    int
	}{
		{"a request that cannot be read", "GET / HTTP/1.1\r\n\r\n", true, 400},
		{"plain HTTP on a TLS port", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, 400},
		{"a head that is too long", "GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("a", 8<<10) + "\r\n\r\n", true, 431},
		{"an unknown transfer coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: zip\r\n\r\n", true, 501},
		{"TimeoutHandler outside", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, 503},
	} {
		res := exchange(t, s, tt.text, tt.secure)
		if res.StatusCode != tt.status || res.Header.Get("X-Frame-Options") != "" {
			t.Errorf("%s: got %s with X-Frame-Options %q, want a bare %d", tt.why, res.Status, res.Header.Get("X-Frame-Options"), tt.status)
		}
	}
}

// A response that is written in time passes through TimeoutHandler with its
// headers.
func TestInsideTimeoutHandler(t *testing.T) {
	p := headers.Strict()
	h := http.TimeoutHandler(must(t, p).Handler(http.NotFoundHandler()), time.Minute, "late")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "https://relay.example/", nil))
	wantPolicy(t, "404 inside TimeoutHandler", w.Header(), p)
}

// A proxy may also set the headers only in ModifyResponse.
func TestModifyResponse(t *testing.T) {
	p := headers.Strict()
	p.HSTS.Always = true
	mw := must(t, p)
	target, err := url.Parse(careless(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(res *http.Response) error { mw.Apply(res.Header, res.Request); return nil }
	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	wantPolicy(t, "ModifyResponse", w.Header(), p)
}

// Cache-Control is the only header of a policy that the standard library
// deletes. It does so if ServeContent fails.
func TestServeContentDropsCacheControl(t *testing.T) {
	p := headers.Baseline()
	p.CacheControl = "public, max-age=60"
	h := must(t, p).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "a.txt", modified, strings.NewReader("0123456789"))
	}))
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "https://relay.example/", nil)
	r.Header.Set("Range", "bytes=90-")
	h.ServeHTTP(w, r)
	if got := w.Header().Get("Cache-Control"); w.Code != http.StatusRequestedRangeNotSatisfiable || got != "" {
		t.Errorf("got %d with Cache-Control %q: the documentation is wrong", w.Code, got)
	}
	wantPolicy(t, "416", w.Header(), headers.Baseline())
}
