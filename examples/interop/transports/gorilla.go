package transports

import (
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// AcceptGorilla upgrades a request with github.com/gorilla/websocket. If it
// returns an error, it has answered the request.
func AcceptGorilla(w http.ResponseWriter, r *http.Request, cfg Config) (*Conn, error) {
	upgrader := websocket.Upgrader{
		CheckOrigin: func(r *http.Request) bool { return cfg.Origins.Check(r) == nil },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, _ error) {
			http.Error(w, http.StatusText(status), status)
		},
	}
	captor := &captor{ResponseWriter: w}
	ws, err := upgrader.Upgrade(captor, r, w.Header()) // the library writes its own 101, without w's headers
	if err != nil {
		return nil, err
	}
	return newConn(gorilla{ws, captor.raw}, captor.raw, cfg), nil
}

type gorilla struct {
	ws  *websocket.Conn
	raw net.Conn
}

func (g gorilla) next() (bool, io.Reader, error) {
	kind, r, err := g.ws.NextReader()
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
		err = &wsconn.CloseError{Code: closed.Code}
		if closed.Code == websocket.CloseAbnormalClosure {
			err = io.ErrUnexpectedEOF // this library's error for a connection without a close frame
		}
	}
	return kind == websocket.BinaryMessage, r, err
}

func (g gorilla) send(text []byte, deadline time.Time) error {
	_ = g.ws.SetWriteDeadline(deadline)
	return g.ws.WriteMessage(websocket.TextMessage, text)
}

// farewell sends the close frame and reads until the peer's, because the
// library's Close does neither. After an interrupted Read, the library reads
// nothing more. Then farewell cannot recognise the answer, and the end takes
// the whole CloseGrace.
func (g gorilla) farewell(code int, reason string, reading lock) {
	_ = g.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Time{})
	reading.Lock()
	defer reading.Unlock()
	for {
		_, _, err := g.ws.NextReader()
		if _, answered := errors.AsType[*websocket.CloseError](err); answered {
			return
		}
		if err != nil {
			_, _ = io.Copy(io.Discard, g.raw) // after an error, the library reads nothing more
			return
		}
	}
}

func (g gorilla) release() {}
