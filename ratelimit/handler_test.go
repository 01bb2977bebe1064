package ratelimit_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// upgrade hijacks the connection, answers 101, and sends the connection to
// conns.
func upgrade(t *testing.T, conns chan<- net.Conn) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		conns <- c
	})
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = nil
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// dial opens a new connection and returns the answer to one request on it.
func dial(t *testing.T, s *httptest.Server) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: relay.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return &http.Response{}
	}
	return resp
}

func TestHandler(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Window: time.Hour})
	conns := make(chan net.Conn, 10)
	s := serve(t, l.Handler(upgrade(t, conns)))
	for i := range 10 {
		if got := dial(t, s).StatusCode; got != 101 {
			t.Fatalf("connection %d: %d", i+1, got)
		}
	}
	resp := dial(t, s)
	body, _ := io.ReadAll(resp.Body)
	wait, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	if resp.StatusCode != 429 || wait < 3000 || wait > 3960 || string(body) != "Too Many Requests\n" {
		t.Errorf("11th: %d, Retry-After %d, %q", resp.StatusCode, wait, body)
	}
	if got := resp.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("11th: Content-Type %q", got)
	}

	c := <-conns
	c.Close()
	c.Close() // libraries close twice; only the first may count
	if got := dial(t, s).StatusCode; got != 101 {
		t.Errorf("after one was closed: %d", got)
	}
	if got := dial(t, s).StatusCode; got != 429 {
		t.Errorf("after one was closed and its place taken: %d", got)
	}
	for range 10 {
		(<-conns).Close()
	}
	if got := l.Stats().Open; got != 0 {
		t.Errorf("%d slots held after all were closed", got)
	}
}

// TestSlotIsFreed runs handlers that do not keep the connection. No slot may
// stay held, and each attempt must still count.
func TestSlotIsFreed(t *testing.T) {
	for why, next := range map[string]http.HandlerFunc{
		"returns without writing": func(http.ResponseWriter, *http.Request) {},
		"answers an error":        func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadRequest) },
		"panics before hijacking": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"panics after hijacking": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Hijacker).Hijack()
			panic(http.ErrAbortHandler)
		},
		"exits after hijacking": func(w http.ResponseWriter, _ *http.Request) {
			http.NewResponseController(w).Hijack()
			runtime.Goexit()
		},
		"hijacks and closes": func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			c.Close()
		},
		"hijacks twice": func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			if _, _, err := w.(http.Hijacker).Hijack(); err == nil {
				panic("hijacked twice")
			}
			c.Close()
		},
	} {
		t.Run(why, func(t *testing.T) {
			l := newLimiter(t, ratelimit.Config{Limit: 1, MaxAttempts: 3})
			done := make(chan struct{}, 4)
			h := l.Handler(next)
			s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { done <- struct{}{} }()
				h.ServeHTTP(w, r)
			}))
			var last int
			for range 4 {
				last = dial(t, s).StatusCode
				<-done
			}
			if got := l.Stats().Open; got != 0 {
				t.Errorf("%d slots held", got)
			}
			if last != 429 {
				t.Errorf("fourth of three attempts: %d", last)
			}
		})
	}
}

// TestForgottenConnection drops a connection without closing it. The garbage
// collector closes the connection, and its slot must be released too.
func TestForgottenConnection(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Hijacker).Hijack()
	}))
	hijacked := make(chan struct{})
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		close(hijacked)
	}))
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		dial(t, s)
	}()
	<-hijacked
	for range 1000 {
		if runtime.GC(); l.Stats().Open == 0 {
			<-answered
			return
		}
	}
	t.Errorf("%d slots held by connections that are gone", l.Stats().Open)
}

func TestHTTP2(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1})
	entered, leave := make(chan bool), make(chan struct{})
	s := httptest.NewUnstartedServer(l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, hijacker := w.(http.Hijacker)
		entered <- hijacker || r.ProtoMajor != 2
		<-leave
	})))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()

	answer := make(chan int)
	go func() {
		resp, err := s.Client().Get(s.URL)
		if err != nil {
			answer <- 0
			return
		}
		resp.Body.Close()
		answer <- resp.StatusCode
	}()
	if <-entered {
		t.Error("the handler gets a Hijacker")
	}
	resp, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 429 {
		t.Errorf("while the first is served: %d", resp.StatusCode)
	}
	leave <- struct{}{}
	if got := <-answer; got != 200 || l.Stats().Open != 0 {
		t.Errorf("first: %d, %d slots held afterwards", got, l.Stats().Open)
	}
}

// plainWriter hides all optional interfaces, as some middleware does.
type plainWriter struct{ http.ResponseWriter }

// liar has a method Hijack that always fails.
type liar struct{ http.ResponseWriter }

func (liar) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, http.ErrNotSupported }

// unwrapper has the method Unwrap, as middleware should.
type unwrapper struct{ http.ResponseWriter }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func TestWithoutHijacker(t *testing.T) {
	for _, test := range []struct {
		writer  http.ResponseWriter
		claimed bool
		why     string
	}{
		{httptest.NewRecorder(), false, "a recorder"},
		{plainWriter{httptest.NewRecorder()}, false, "nothing to unwrap"},
		{unwrapper{plainWriter{liar{httptest.NewRecorder()}}}, false, "hidden below"},
		{unwrapper{liar{httptest.NewRecorder()}}, true, "found by unwrapping, and fails"},
	} {
		l := newLimiter(t, ratelimit.Config{})
		l.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h, ok := w.(http.Hijacker)
			if ok != test.claimed {
				t.Errorf("%s: Hijacker %v", test.why, ok)
			}
			if !ok && w != test.writer {
				t.Errorf("%s: wrapped for nothing", test.why)
			}
			if ok {
				if _, _, err := h.Hijack(); err == nil {
					t.Errorf("%s: hijacked", test.why)
				}
			}
			if l.Stats().Open != 1 {
				t.Errorf("%s: nothing held meanwhile", test.why)
			}
		})).ServeHTTP(test.writer, httptest.NewRequest("GET", "/", nil))
		if l.Stats().Open != 0 {
			t.Errorf("%s: slot held", test.why)
		}
	}
}

// TestWriter checks that the wrapped ResponseWriter and connection can do
// everything that the original ones can.
func TestWriter(t *testing.T) {
	outer, inner := newLimiter(t, ratelimit.Config{}), newLimiter(t, ratelimit.Config{})
	conns := make(chan net.Conn, 1)
	s := serve(t, outer.Handler(inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
			t.Errorf("deadlines do not reach the connection: %v", err)
		}
		if r.URL.Path == "/flush" {
			io.WriteString(w, "now")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
		}
		conns <- c
	}))))

	resp, err := http.Get(s.URL + "/flush")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 3)); err != nil {
		t.Errorf("nothing was flushed: %v", err)
	}
	resp.Body.Close()

	go http.Get(s.URL)
	c := <-conns
	under := c
	for {
		n, ok := under.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		under = n.NetConn()
	}
	if _, ok := under.(*net.TCPConn); !ok || under == c {
		t.Errorf("NetConn leads to %T", under)
	}
	c.Close()
	if _, err := under.Write([]byte("x")); err == nil {
		t.Error("Close left the connection open")
	}
	s.Close()
	if a, b := outer.Stats().Open, inner.Stats().Open; a != 0 || b != 0 {
		t.Errorf("%d and %d slots held", a, b)
	}
}

func TestFlushError(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	l.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).Flush(); err == nil {
			t.Error("flushed what cannot be flushed")
		}
	})).ServeHTTP(liar{plainWriter{httptest.NewRecorder()}}, httptest.NewRequest("GET", "/", nil))
}

func TestClientIP(t *testing.T) {
	for _, test := range []struct {
		remote, want, why string
	}{
		{"192.0.2.1:1234", "192.0.2.1/32", "the port is no part of the key"},
		{"[2001:db8::1%eth0]:80", "2001:db8::/64", "nor is the zone"},
		{"@", "invalid Prefix", "a unix socket"},
		{"192.0.2.1", "invalid Prefix", "rewritten by middleware into what RemoteAddr is not"},
	} {
		var got netip.Prefix
		l := newLimiter(t, ratelimit.Config{Observe: func(_ *http.Request, d ratelimit.Decision) { got = d.Client }})
		h := l.Handler(http.NotFoundHandler())
		r := httptest.NewRequest("GET", "/ws?x=1", nil)
		r.RemoteAddr = test.remote
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		h.ServeHTTP(httptest.NewRecorder(), r)
		if got.String() != test.want {
			t.Errorf("%s: counted as %v, want %s", test.why, got, test.want)
		}
	}
}

// TestZeroKey has a Key func that does not look whether the header is there.
// The requests without it must not be one client, which any of them could
// exhaust.
func TestZeroKey(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Limit: 1, Count: ratelimit.CountRequests, Key: func(r *http.Request) (ratelimit.Key, bool) {
		return ratelimit.Key{ID: r.Header.Get("X-API-Key")}, true
	}})
	h := l.Handler(http.NotFoundHandler())
	for _, test := range []struct {
		remote string
		want   int
	}{{"192.0.2.1:1", 404}, {"192.0.2.1:2", 429}, {"198.51.100.7:1", 404}} {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.RemoteAddr = test.remote
		if h.ServeHTTP(w, r); w.Code != test.want {
			t.Errorf("%s: %d, want %d", test.remote, w.Code, test.want)
		}
	}
}
