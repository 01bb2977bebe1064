// Package frameworks_test runs the middleware of headers and ratelimit under
// the routers that Go programs use, on real listeners, up to the end of a
// WebSocket connection.
//
// With each router, the headers wrap everything, and the limiter wraps the
// WebSocket's route only. The WebSocket's handler must get the limiter's
// ResponseWriter, because the limiter learns from it when the connection ends.
package frameworks_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// middleware is the type of both packages' Handler methods.
type middleware = func(http.Handler) http.Handler

// site builds a site.
type site = func(secure *headers.Middleware, limit middleware, page, ws http.Handler) http.Handler

// frameworks build the same site, which has a page and a WebSocket.
var frameworks = []struct {
	name string
	site site
}{
	{"net/http", func(secure *headers.Middleware, limit middleware, page, ws http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("GET /{$}", page)
		mux.Handle("GET /ws", limit(ws))
		return secure.Handler(mux)
	}},
	{"chi", func(secure *headers.Middleware, limit middleware, page, ws http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Use(secure.Handler)
		r.Method("GET", "/", page)
		r.With(limit).Method("GET", "/ws", ws)
		return r
	}},
	{"gin, around the engine", func(secure *headers.Middleware, limit middleware, page, ws http.Handler) http.Handler {
		r := gin.New()
		r.GET("/", gin.WrapH(page))
		r.GET("/ws", gin.WrapH(limit(ws)))
		return secure.Handler(r)
	}},
	{"gin, as its own middleware", func(secure *headers.Middleware, limit middleware, page, ws http.Handler) http.Handler {
		r := gin.New()
		r.Use(func(c *gin.Context) { secure.Apply(c.Writer.Header(), c.Request) })
		r.GET("/", gin.WrapH(page))
		// Use would not work: gin's handlers write to c.Writer, not to the
		// ResponseWriter that a middleware passes on.
		r.GET("/ws", gin.WrapH(limit(ws)))
		return r
	}},
	{"echo, around the handler", func(secure *headers.Middleware, limit middleware, page, ws http.Handler) http.Handler {
		e := echo.New()
		e.Use(echo.WrapMiddleware(secure.Handler))
		e.GET("/", echo.WrapHandler(page))
		e.GET("/ws", echo.WrapHandler(limit(ws)))
		return e
	}},
	{"echo, as its own middleware", func(secure *headers.Middleware, limit middleware, page, ws http.Handler) http.Handler {
		e := echo.New()
		e.Use(echo.WrapMiddleware(secure.Handler))
		e.GET("/", echo.WrapHandler(page))
		e.GET("/ws", echo.WrapHandler(ws), echo.WrapMiddleware(limit))
		return e
	}},
}

func TestFrameworks(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	tokens, err := jwtauth.New(jwtauth.Config{
		Keys:     []jwtauth.Key{{Secret: []byte(strings.Repeat("k9!Zq", 8))}},
		Subjects: []string{"pi-1"}, SubjectClaim: "device",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range frameworks {
		for _, transport := range transports.Transports {
			t.Run(tt.name+", "+transport.Name, func(t *testing.T) { conversation(t, tt.site, transport, tokens) })
		}
	}
}

// conversation opens and closes connections at the limit.
func conversation(t *testing.T, site site, transport transports.Transport, tokens *jwtauth.Verifier) {
	secure, err := headers.New(headers.Strict())
	if err != nil {
		t.Fatal(err)
	}
	limiter, err := ratelimit.New(ratelimit.Config{Limit: 2, Window: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{}, 8)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") })
	s := httptest.NewServer(site(secure, limiter.Handler, page, echoes(t, transport, tokens, ended)))
	defer s.Close()
	c := client{t, s, secure}

	c.get("/", 200)
	c.get("/missing", 404)
	if transport.Name == "gorilla" {
		c.get("/ws", 400)
	} else {
		c.get("/ws", 426)
	}
	if n := limiter.Stats().Open; n != 0 {
		t.Fatalf("a failed upgrade holds %d slots", n)
	}

	first, second := c.dial(101), c.dial(101)
	if n := limiter.Stats().Open; n != 2 {
		t.Fatalf("two connections hold %d slots", n)
	}
	c.dial(429)
	publish(t, first, tokens)
	publish(t, second, tokens)

	first.Close(websocket.StatusNormalClosure, "")
	<-ended
	if n := limiter.Stats().Open; n != 1 {
		t.Fatalf("after one of two was closed, %d slots are held", n)
	}
	third := c.dial(101)
	c.dial(429)

	// One connection ends with a close frame, the other without.
	second.Close(websocket.StatusNormalClosure, "")
	third.CloseNow()
	<-ended
	<-ended
	if n := limiter.Stats().Open; n != 0 {
		t.Errorf("after all were closed, %d slots are held", n)
	}
	c.get("/", 200)
}

// echoes returns a handler that sends a publisher's messages back to it and
// reports the end of each connection.
func echoes(t *testing.T, transport transports.Transport, v wsauth.Verifier, ended chan<- struct{}) http.Handler {
	accept, err := transport.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: v})
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := accept(w, r)
		if err != nil {
			return
		}
		session := gate.Attach(conn, wsauth.Peer{})
		defer func() {
			session.Close(1000, "")
			ended <- struct{}{}
		}()
		ctx := context.Background()
		for {
			msg, err := session.Next(ctx)
			if err != nil {
				return
			}
			if err := session.Authorize(wsauth.Publish); err != nil {
				t.Error(err)
				return
			}
			if err := session.Reply(ctx, msg); err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// publish authenticates on the connection, publishes a message and checks that
// it comes back.
func publish(t *testing.T, c *websocket.Conn, signer *jwtauth.Verifier) {
	t.Helper()
	token, err := signer.Sign(wsauth.ClaimSet{Subject: "pi-1", Scope: []string{wsauth.Publish}, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	hello, err := json.Marshal(map[string]string{"token": token})
	if err != nil {
		t.Fatal(err)
	}
	const word = `{"text":"I wake"}`
	for _, tt := range []struct{ say, want string }{
		{string(hello), `"authenticated"`},
		{word, word},
	} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(tt.say)); err != nil {
			t.Fatal(err)
		}
		_, got, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(got), tt.want) {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// client sends requests to one site, and checks the headers of every answer.
type client struct {
	t      *testing.T
	s      *httptest.Server
	secure *headers.Middleware
}

func (c client) get(path string, status int) {
	c.t.Helper()
	res, err := c.s.Client().Get(c.s.URL + path)
	if err != nil {
		c.t.Fatal(err)
	}
	res.Body.Close()
	c.check(res, status)
}

func (c client) dial(status int) *websocket.Conn {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), relay.Patience)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, c.s.URL+"/ws", nil)
	if res == nil {
		c.t.Fatal(err)
	}
	c.check(res, status)
	if err == nil {
		c.t.Cleanup(func() { conn.CloseNow() })
	}
	return conn
}

func (c client) check(res *http.Response, status int) {
	c.t.Helper()
	if res.StatusCode != status {
		c.t.Fatalf("%s: got %s, want %d", res.Request.URL.Path, res.Status, status)
	}
	want := make(http.Header)
	c.secure.Apply(want, res.Request)
	for name := range want {
		if got := res.Header[name]; len(got) != 1 || got[0] != want[name][0] {
			c.t.Errorf("%s: %d: %s: got %q, want %q", res.Request.URL.Path, status, name, got, want[name])
		}
	}
	if status == http.StatusTooManyRequests {
		if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || s <= 0 {
			c.t.Errorf("429 with Retry-After %q", res.Header.Get("Retry-After"))
		}
	}
}
