package wsadapter

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"time"
)

// library decodes the frames of the client. It also sends pongs and close
// frames, which the pipe receives.
type library struct {
	// next waits for the next message and returns its kind and a reader of it.
	// The message before was read completely.
	next func() (binary bool, r io.Reader, err error)
	// release frees what the library holds. Close the net.Conn first, or
	// release may wait for the client.
	release func() error
}

// binaryMessage is the opcode of a binary message (RFC 6455, section 11.8), and
// the kind of one in each library.
const binaryMessage = 0x2

// Gorilla adapts a connection of github.com/gorilla/websocket. ws is the
// *websocket.Conn that Upgrade has returned for w. If Upgrade got another
// ResponseWriter than w, Gorilla closes ws and returns a closed Conn, whose
// Read says so.
func Gorilla(ws interface {
	NextReader() (messageType int, r io.Reader, err error)
	SetReadLimit(limit int64)
	Close() error
}, w *ResponseWriter) *Conn {
	ws.SetReadLimit(0) // none: the Conn has its own, without the library's close frame
	return w.attach(library{
		next: func() (bool, io.Reader, error) {
			kind, r, err := ws.NextReader()
			return kind == binaryMessage, r, err
		},
		release: ws.Close,
	})
}

// Coder adapts a connection of github.com/coder/websocket. ws is the
// *websocket.Conn that Accept has returned for w; the type parameter is
// inferred. If Accept got another ResponseWriter than w, Coder closes ws and
// returns a closed Conn, whose Read says so.
func Coder[MessageType ~int](ws interface {
	Reader(ctx context.Context) (MessageType, io.Reader, error)
	SetReadLimit(n int64)
	CloseNow() error
}, w *ResponseWriter) *Conn {
	ws.SetReadLimit(-1) // none
	return w.attach(library{
		next: func() (bool, io.Reader, error) {
			// The library would close the connection at the end of a context.
			kind, r, err := ws.Reader(context.Background())
			return kind == binaryMessage, r, err
		},
		release: ws.CloseNow,
	})
}

// errNotWrapped is the error of Read if the caller has mixed up two
// ResponseWriters. Without the net.Conn, no bound could be kept.
var errNotWrapped = errors.New("wsadapter: pass the ResponseWriter of Adapter.Wrap to the library's upgrade")

// attach starts to use the connection of the upgrade.
func (w *ResponseWriter) attach(lib library) *Conn {
	c := w.conn
	if c == nil {
		raw, _ := net.Pipe()
		c = newConn(w.cfg, raw)
		c.lib, c.readErr = lib, errNotWrapped
		_ = c.Abort()
		return c
	}
	c.lib = lib
	if !c.attached.Swap(true) {
		c.timeMu.Lock()
		defer c.timeMu.Unlock()
		c.pinger = time.AfterFunc(c.cfg.PingInterval, c.sendPing)
	}
	return c
}

// closeCode returns the code of a close frame that the library has received.
// Both libraries have an error CloseError with a field Code. Here they have no
// type in common, because this package imports neither.
func closeCode(err error) (code int, ok bool) {
	const abnormal = 1006 // gorilla's code for a connection that ended without a close frame
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() == reflect.Struct && v.Type().Name() == "CloseError" {
			if f := v.FieldByName("Code"); f.IsValid() && f.CanInt() && f.Int() != abnormal {
				return int(f.Int()), true
			}
		}
	}
	return 0, false
}
