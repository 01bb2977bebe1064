package transports

import (
	"context"
	"net/http"

	coder "github.com/coder/websocket"
	"github.com/gin-gonic/gin"
	gorilla "github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// Conn is [wsauth.Conn] with its optional methods and binary messages. Every
// transport has all of them.
type Conn interface {
	wsauth.Conn
	SetReadLimit(n int64)
	ReadMessage(ctx context.Context) (data []byte, binary bool, err error)
	WriteBinary(ctx context.Context, data []byte) error
}

// Accept upgrades a request of a page of the same origin. If it returns an
// error, it has answered the request.
type Accept func(http.ResponseWriter, *http.Request) (Conn, error)

// Transport is a way to accept WebSocket connections.
type Transport struct {
	Name string
	New  func(wsadapter.Config) (Accept, error)
}

// Transports are all ways, with the same bounds.
var Transports = []Transport{{"wsconn", WSConn}, {"coder", Coder}, {"gorilla", Gorilla}}

// WSConn accepts with package wsconn.
func WSConn(cfg wsadapter.Config) (Accept, error) {
	up, err := wsconn.New(wsconn.Config{
		WriteTimeout: cfg.WriteTimeout, CloseGrace: cfg.CloseGrace,
		PingInterval: cfg.PingInterval, PongTimeout: cfg.PongTimeout, ReadLimit: cfg.ReadLimit,
	})
	return func(w http.ResponseWriter, r *http.Request) (Conn, error) { return up.Accept(w, r) }, err
}

// Coder accepts with github.com/coder/websocket.
func Coder(cfg wsadapter.Config) (Accept, error) {
	adapter, err := wsadapter.New(cfg)
	return func(w http.ResponseWriter, r *http.Request) (Conn, error) {
		if err := (wsauth.Origins{}).Check(r); err != nil {
			http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
			return nil, err
		}
		rw := adapter.Wrap(w)
		ws, err := coder.Accept(rw, r, &coder.AcceptOptions{
			InsecureSkipVerify: true, // Origins has checked the origin; the library's patterns match hosts only
			CompressionMode:    coder.CompressionDisabled,
		})
		if err != nil {
			return nil, err
		}
		return wsadapter.Coder(ws, rw), nil
	}, err
}

// Gorilla accepts with github.com/gorilla/websocket.
func Gorilla(cfg wsadapter.Config) (Accept, error) {
	adapter, err := wsadapter.New(cfg)
	upgrader := gorilla.Upgrader{
		CheckOrigin: func(r *http.Request) bool { return (wsauth.Origins{}).Check(r) == nil },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, _ error) {
			http.Error(w, http.StatusText(status), status)
		},
	}
	return func(w http.ResponseWriter, r *http.Request) (Conn, error) {
		rw := adapter.Wrap(w)
		ws, err := upgrader.Upgrade(rw, r, w.Header()) // the library writes its own 101, without w's headers
		if err != nil {
			return nil, err
		}
		return wsadapter.Gorilla(ws, rw), nil
	}, err
}

// Server serves a handler at every path.
type Server struct {
	Name  string
	Serve func(http.Handler) http.Handler
}

// Servers are the HTTP servers of Go programs.
var Servers = []Server{
	{"net/http", func(h http.Handler) http.Handler { return h }},
	{"gin", func(h http.Handler) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		e := gin.New()
		e.Use(gin.Recovery())
		e.GET("/*path", gin.WrapH(h))
		return e
	}},
	{"echo", func(h http.Handler) http.Handler {
		e := echo.New()
		e.GET("/*", echo.WrapHandler(h))
		return e
	}},
}
