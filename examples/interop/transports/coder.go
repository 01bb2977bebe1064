package transports

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// AcceptCoder upgrades a request with github.com/coder/websocket. If it returns
// an error, it has answered the request.
func AcceptCoder(w http.ResponseWriter, r *http.Request, cfg Config) (*Conn, error) {
	if err := cfg.Origins.Check(r); err != nil {
		http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
		return nil, err
	}
	captor := &captor{ResponseWriter: w}
	ws, err := websocket.Accept(captor, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // cfg.Origins has checked the origin; the library's patterns match hosts only
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	return newConn(coder{ws}, captor.raw, cfg), nil
}

type coder struct{ ws *websocket.Conn }

func (c coder) next() (bool, io.Reader, error) {
	kind, r, err := c.ws.Reader(context.Background())
	if closed, ok := errors.AsType[websocket.CloseError](err); ok {
		err = &wsconn.CloseError{Code: int(closed.Code)}
	}
	return kind == websocket.MessageBinary, r, err
}

func (c coder) send(text []byte, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, text)
}

// farewell needs no lock, because the library has one between its Close and its
// readers.
func (c coder) farewell(code int, reason string, _ lock) {
	_ = c.ws.Close(websocket.StatusCode(code), reason)
}

func (c coder) release() { _ = c.ws.CloseNow() }
