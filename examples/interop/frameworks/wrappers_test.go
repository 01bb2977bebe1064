package frameworks_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	nhooyr "nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// wrapper is what any middleware does: it hides all but Unwrap.
type wrapper struct{ inner http.ResponseWriter }

func (w wrapper) Header() http.Header         { return w.inner.Header() }
func (w wrapper) Write(b []byte) (int, error) { return w.inner.Write(b) }
func (w wrapper) WriteHeader(status int)      { w.inner.WriteHeader(status) }
func (w wrapper) Unwrap() http.ResponseWriter { return w.inner }

func wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrapper{w}, r) })
}

// wrappings go around the handler of an upgrade, the limiter inside or outside
// of others.
var wrappings = []struct {
	name  string
	wrap  func(limit, secure func(http.Handler) http.Handler, h http.Handler) http.Handler
	slots int
	bare  bool // the handler gets a writer with Unwrap alone
}{
	{"nothing", func(_, _ func(http.Handler) http.Handler, h http.Handler) http.Handler { return h }, 0, false},
	{"headers", func(_, secure func(http.Handler) http.Handler, h http.Handler) http.Handler { return secure(h) }, 0, false},
	{"limiter", func(limit, _ func(http.Handler) http.Handler, h http.Handler) http.Handler { return limit(h) }, 1, false},
	{"limiter in limiter", func(limit, _ func(http.Handler) http.Handler, h http.Handler) http.Handler { return limit(limit(h)) }, 2, false},
	{"limiter in middleware", func(limit, secure func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return secure(wrap(limit(h)))
	}, 1, false},
	{"middleware in limiter", func(limit, secure func(http.Handler) http.Handler, h http.Handler) http.Handler {
		return limit(wrap(secure(h)))
	}, 1, true},
}

// ways upgrade a request, say "hi" and return what they read.
var ways = []struct {
	name  string
	bare  bool // copes with a writer that has Unwrap alone
	serve func(t *testing.T, w http.ResponseWriter, r *http.Request) (heard []byte, err error)
}{
	{"wsconn", true, adapted(transports.WSConn)},
	{"coder", true, adapted(transports.Coder)},
	{"gorilla", true, adapted(transports.Gorilla)},
	{"coder alone", false, func(t *testing.T, w http.ResponseWriter, r *http.Request) ([]byte, error) {
		c, err := coder.Accept(w, r, nil)
		if err != nil {
			return nil, err
		}
		defer c.CloseNow()
		if err := c.Write(t.Context(), coder.MessageText, []byte("hi")); err != nil {
			return nil, err
		}
		_, heard, err := c.Read(t.Context())
		return heard, err
	}},
	{"nhooyr alone", false, func(t *testing.T, w http.ResponseWriter, r *http.Request) ([]byte, error) {
		c, err := nhooyr.Accept(w, r, nil)
		if err != nil {
			return nil, err
		}
		defer c.CloseNow()
		if err := c.Write(t.Context(), nhooyr.MessageText, []byte("hi")); err != nil {
			return nil, err
		}
		_, heard, err := c.Read(t.Context())
		return heard, err
	}},
	{"gorilla alone", false, func(t *testing.T, w http.ResponseWriter, r *http.Request) ([]byte, error) {
		c, err := (&gorilla.Upgrader{}).Upgrade(w, r, w.Header())
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if err := c.WriteMessage(gorilla.TextMessage, []byte("hi")); err != nil {
			return nil, err
		}
		_, heard, err := c.ReadMessage()
		return heard, err
	}},
}

// adapted is a way through one of the connections of package wsauth.
func adapted(transport func(wsadapter.Config) (transports.Accept, error)) func(*testing.T, http.ResponseWriter, *http.Request) ([]byte, error) {
	return func(_ *testing.T, w http.ResponseWriter, r *http.Request) ([]byte, error) {
		up, err := transport(wsadapter.Config{})
		if err != nil {
			return nil, err
		}
		c, err := up(w, r)
		if err != nil {
			return nil, err
		}
		defer c.Abort()
		if err := c.Write(context.Background(), []byte("hi")); err != nil {
			return nil, err
		}
		return c.Read(context.Background())
	}
}

// TestWrappers runs every wrapper with every way to upgrade under every server:
// what one of them hides, another needs.
func TestWrappers(t *testing.T) {
	for _, server := range transports.Servers {
		for _, wrapping := range wrappings {
			for _, way := range ways {
				if wrapping.bare && !way.bare {
					continue // these libraries look no further than the writer itself
				}
				t.Run(server.Name+", "+wrapping.name+", "+way.name, func(t *testing.T) {
					limiter, secure := guards(t)
					type outcome struct {
						heard string
						err   error
						open  int
					}
					ended := make(chan outcome, 1)
					h := wrapping.wrap(limiter.Handler, secure.Handler, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("X-Before", "set")
						heard, err := way.serve(t, w, r)
						ended <- outcome{string(heard), err, limiter.Stats().Open}
					}))
					s := httptest.NewServer(server.Serve(h))
					defer s.Close()
					ctx, cancel := context.WithTimeout(t.Context(), relay.Patience)
					defer cancel()
					c, res, err := coder.Dial(ctx, s.URL+"/ws", nil)
					if err != nil {
						t.Fatal(err)
					}
					defer c.CloseNow()
					if res.Header.Get("X-Before") != "set" {
						t.Errorf("a header that was set before is not in the 101: %v", res.Header)
					}
					if _, b, err := c.Read(ctx); string(b) != "hi" || err != nil {
						t.Fatalf("read %q, %v", b, err)
					}
					if got := limiter.Stats().Open; got != wrapping.slots {
						t.Errorf("%d slots are held, want %d", got, wrapping.slots)
					}
					if err := c.Write(ctx, coder.MessageText, []byte("ho")); err != nil {
						t.Error(err)
					}
					if got := <-ended; got.heard != "ho" || got.err != nil || got.open != 0 {
						t.Errorf("the handler ended with %q, %v and %d slots", got.heard, got.err, got.open)
					}
				})
			}
		}
	}
}

func guards(t *testing.T) (*ratelimit.Limiter, *headers.Middleware) {
	limiter, err := ratelimit.New(ratelimit.Config{})
	if err != nil {
		t.Fatal(err)
	}
	secure, err := headers.New(headers.Strict())
	if err != nil {
		t.Fatal(err)
	}
	return limiter, secure
}

// TestHalfClosed passes a connection of which one half is closed through
// httputil.ReverseProxy under every server and wrapper.
func TestHalfClosed(t *testing.T) {
	late := make(chan string, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "upgrade")
		w.Header().Set("Upgrade", "u")
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "hello")
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(rw)
		late <- string(b)
	}))
	defer backend.Close()
	u, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range transports.Servers {
		for _, wrapping := range wrappings {
			t.Run(server.Name+", "+wrapping.name, func(t *testing.T) {
				limiter, secure := guards(t)
				s := httptest.NewServer(server.Serve(wrapping.wrap(limiter.Handler, secure.Handler, httputil.NewSingleHostReverseProxy(u))))
				defer s.Close()
				c, err := net.Dial("tcp", s.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(relay.Patience))
				io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: u\r\n\r\n")
				br := bufio.NewReader(c)
				res, err := http.ReadResponse(br, nil)
				if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
					t.Fatal(res, err)
				}
				if got, err := io.ReadAll(br); string(got) != "hello" || err != nil {
					t.Errorf("until the half-close: %q, %v", got, err)
				}
				io.WriteString(c, "late")
				c.(*net.TCPConn).CloseWrite()
				if got := <-late; got != "late" {
					t.Errorf("after the half-close, %q arrives", got)
				}
			})
		}
	}
}
