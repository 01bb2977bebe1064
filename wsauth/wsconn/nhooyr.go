package wsconn

//lint:file-ignore SA1019 nhooyr.io/websocket continues as github.com/coder/websocket. Only this file uses it.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"unicode/utf8"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// library decodes frames with nhooyr.io/websocket. Its Close, Ping and Write
// are not used. The frames that it sends by itself, pongs and close frames, go
// through a pipe.
type library struct {
	ws   *websocket.Conn
	pipe *pipe
	read *bufio.Reader // the library's; it may have read more than it has returned
}

// newLibrary completes a handshake that check has accepted, and sets c.raw.
func newLibrary(c *Conn, w http.ResponseWriter, r *http.Request) (*library, error) {
	lib := &library{pipe: &pipe{c: c}}
	var err error
	lib.ws, err = websocket.Accept(&hijacker{ResponseWriter: w, lib: lib}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // check has verified the origin
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, err
	}
	lib.ws.SetReadLimit(-1) // Conn has its own limit, without the library's close frame
	return lib, nil
}

// attach makes the library continue a connection that was parked between two
// messages. The library makes a server's connection only in Accept, so it gets
// a handshake once more. Its request is valid, and its answer goes nowhere.
// This costs less than a hundredth of a millisecond, once for each parking, and
// needs no knowledge of the library's inside.
func attach(c *Conn) (*library, error) { return newLibrary(c, nowhere{}, again) }

// again is only read.
var again = &http.Request{
	Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	},
}

// nowhere is the ResponseWriter of a handshake that was made before.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// idle reports whether the library has returned everything that it has read.
func (l *library) idle() bool { return l == nil || l.read.Buffered() == 0 }

// detach ends the library, and leaves the connection open.
func (l *library) detach() {
	if l != nil {
		l.pipe.detached = true
		l.release()
	}
}

// next waits for the next message and returns its kind and a reader of it.
func (l *library) next() (binary bool, r io.Reader, err error) {
	kind, r, err := l.ws.Reader(context.Background())
	if err != nil {
		// A reason that is not UTF-8 was answered as a violation, see pipe.
		if closed, ok := errors.AsType[websocket.CloseError](err); ok && utf8.ValidString(closed.Reason) {
			err = &CloseError{Code: int(closed.Code)}
		}
		return false, nil, err
	}
	return kind == websocket.MessageBinary, r, nil
}

// release ends the goroutine of the library. Close the net.Conn first, or
// release waits for the client.
func (l *library) release() {
	if l != nil {
		_ = l.ws.CloseNow()
	}
}

// hijacker is the ResponseWriter that the library gets. It keeps the net.Conn.
type hijacker struct {
	http.ResponseWriter
	lib *library
}

// Hijack returns a pipe and two small buffers, which every connection keeps.
// The library reads frame headers through one, and writes control frames of at
// most 127 bytes through the other.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	p := h.lib.pipe
	if p.c.raw == nil { // the first time
		raw, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
		if err != nil {
			return nil, nil, err
		}
		p.c.raw = raw
		if n := buffered.Reader.Buffered(); n > 0 {
			early, _ := buffered.Reader.Peek(n)
			p.c.early = bytes.NewReader(bytes.Clone(early))
		}
	}
	p.Conn = p.c.raw
	h.lib.read = bufio.NewReaderSize(p, 128)
	return p, bufio.NewReadWriter(h.lib.read, bufio.NewWriterSize(p, 256)), nil
}

// WriteHeaderNow sends the 101 if the server is gin, whose WriteHeader only
// stores the status. The writer of gin may be below those of other middleware.
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
	c        *Conn
	detached bool // the connection goes on without the library
}

func (p *pipe) Read(b []byte) (int, error) { return p.c.readRaw(b) }

// Write receives the control frames of the library, each in one piece. It does
// not wait until another frame is written, because the library would end the
// connection after five seconds.
func (p *pipe) Write(b []byte) (int, error) {
	switch {
	case len(b) < 2 || len(b) != 2+int(b[1]):
		return 0, errors.New("wsconn: not a whole control frame")
	case b[0] == wsframe.Pong:
		p.c.sendPong(b)
	case b[0] == wsframe.Close:
		code := 0
		if len(b) >= 4 {
			code = int(b[2])<<8 | int(b[3])
		}
		// The library answers a close frame with the reason of the client,
		// which it does not check (RFC 6455, sections 5.5.1 and 8.1).
		if !utf8.Valid(b[min(4, len(b)):]) {
			code = 1007
		}
		p.c.refused = true
		p.c.shut(code, "") // the reason of the library may quote the client
	}
	return len(b), nil
}

// Close is called by the library after a close frame or after an error.
func (p *pipe) Close() error {
	if p.detached {
		return nil
	}
	return p.c.libraryGone()
}
