package wsconn

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen and lives on as github.com/coder/websocket. This file is the only one that knows it.

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"nhooyr.io/websocket"
)

// library is what is used of nhooyr.io/websocket once a connection is up: it takes frames apart. Its Close, its Ping
// and its Write are not used; the frames that it sends by itself, pongs and close frames, pass through a pipe.
type library struct{ ws *websocket.Conn }

// newLibrary completes the handshake, which must have been checked, and sets c.raw.
func newLibrary(c *Conn, w http.ResponseWriter, r *http.Request) (library, error) {
	ws, err := websocket.Accept(&hijacker{ResponseWriter: w, conn: c}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // Origins has looked at it
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return library{}, err
	}
	ws.SetReadLimit(-1) // Conn counts by itself: the library closes with a text of its own
	return library{ws}, nil
}

// next waits for the next message and says what it is.
func (l library) next() (binary bool, r io.Reader, err error) {
	kind, r, err := l.ws.Reader(context.Background())
	if err != nil {
		if closed, ok := errors.AsType[websocket.CloseError](err); ok {
			err = &CloseError{Code: int(closed.Code)}
		}
		return false, nil, err
	}
	return kind == websocket.MessageBinary, r, nil
}

// release ends the library's goroutine. The net.Conn must be closed, or this would wait for the peer.
func (l library) release() { _ = l.ws.CloseNow() }

// hijacker stands between the library and the ResponseWriter and keeps the net.Conn.
type hijacker struct {
	http.ResponseWriter
	conn *Conn
}

// Hijack gives the library a pipe and buffers that are small, because every connection keeps them: it reads frame
// headers through one and writes control frames, at most 127 bytes, through the other.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn.raw = raw
	if n := buffered.Reader.Buffered(); n > 0 {
		early, _ := buffered.Reader.Peek(n)
		h.conn.early = append([]byte(nil), early...)
	}
	p := &pipe{Conn: raw, c: h.conn}
	return p, bufio.NewReadWriter(bufio.NewReaderSize(p, 128), bufio.NewWriterSize(p, 256)), nil
}

// WriteHeaderNow serves gin, whose WriteHeader only takes note: without it the 101 would never be sent. Gin's writer may
// stand below those of other middleware.
func (h *hijacker) WriteHeaderNow() {
	for w := h.ResponseWriter; ; {
		if now, ok := w.(interface{ WriteHeaderNow() }); ok {
			now.WriteHeaderNow()
			return
		}
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = outer.Unwrap()
	}
}

// pipe is the net.Conn as the library sees it.
type pipe struct {
	net.Conn
	c *Conn
}

func (p *pipe) Read(b []byte) (int, error) { return p.c.readRaw(b) }

// Write receives the control frames that the library sends by itself, each in one piece. It does not wait for a frame
// of ours that is under way: the library would end the connection after five seconds.
func (p *pipe) Write(b []byte) (int, error) {
	switch {
	case len(b) < 2 || len(b) != 2+int(b[1]):
		return 0, errors.New("wsconn: not a whole control frame")
	case b[0] == headPong:
		p.c.sendPong(b)
	case b[0] == headClose:
		code := 0
		if len(b) >= 4 {
			code = int(b[2])<<8 | int(b[3])
		}
		p.c.refused = true
		p.c.shut(code, "") // without the library's reason, which may quote the peer
	}
	return len(b), nil
}

// Close is called by the library after a close frame was received, or when it has given up.
func (p *pipe) Close() error { return p.c.libraryGone() }
