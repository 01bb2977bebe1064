package wsadapter_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

const (
	opContinuation, opText, opBinary = 0x0, 0x1, 0x2
	opClose, opPing, opPong          = 0x8, 0x9, 0xA
)

// frame encodes a whole frame of a client, masked with zeros.
func frame(op byte, payload string) []byte {
	return append(header(op, uint64(len(payload))), payload...)
}

func header(op byte, length uint64) []byte {
	b := []byte{0x80 | op}
	switch {
	case length <= 125:
		b = append(b, 0x80|byte(length))
	case length <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), length)
	}
	return append(b, 0, 0, 0, 0)
}

// part encodes a fragment that is not the last one.
func part(op byte, payload string) []byte {
	b := frame(op, payload)
	b[0] &^= 0x80
	return b
}

func closing(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// client is a WebSocket client that can violate the protocol.
type client struct {
	net.Conn
	r *bufio.Reader
}

// recv reads one frame.
func (c *client) recv() (op byte, payload string, err error) {
	var h [2]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return 0, "", err
	}
	if h[0]&0xf0 != 0x80 || h[1]&0x80 != 0 {
		return 0, "", errors.New("not a whole unmasked frame: interleaved writes?")
	}
	n, err := length(c.r, h[1])
	p := make([]byte, n)
	if err == nil {
		_, err = io.ReadFull(c.r, p)
	}
	return h[0] & 0xf, string(p), err
}

func length(r io.Reader, b byte) (uint64, error) {
	var extended [8]byte
	from := 8
	switch b & 0x7f {
	case 126:
		from = 6
	case 127:
		from = 0
	default:
		extended[7] = b & 0x7f
	}
	_, err := io.ReadFull(r, extended[from:])
	return binary.BigEndian.Uint64(extended[:]), err
}

func (c *client) want(t *testing.T, op byte, payload string) {
	t.Helper()
	if gotOp, got, err := c.recv(); err != nil || gotOp != op || got != payload {
		t.Errorf("opcode %d %.200q, %v; want opcode %d %.200q", gotOp, got, err, op, payload)
	}
}

func (c *client) wantEnd(t *testing.T) {
	t.Helper()
	if op, got, err := c.recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("opcode %d %q, %v; want the end of the connection", op, got, err)
	}
}

// library decodes frames as the libraries do: it answers pings and close frames
// itself, and an error lasts.
type library struct {
	net.Conn
	r     *bufio.Reader
	left  uint64
	final bool
	err   error
}

// CloseError has the name and the field of the libraries' errors.
type CloseError struct{ Code int }

func (*CloseError) Error() string { return "closed by the client, who said so" }

func (l *library) frame() (op byte) {
	for l.err == nil {
		var h [2]byte
		if _, l.err = io.ReadFull(l.r, h[:]); l.err != nil {
			break
		}
		op = h[0] & 0xf
		if h[0]&0x70 != 0 || h[1]&0x80 == 0 || op > 2 && op < 8 {
			_, l.err = l.Write(append([]byte{0x88, 2 + 4}, closing(1002, "text")...))
			l.err = errors.New("text of the client")
			break
		}
		l.left, l.err = length(l.r, h[1])
		_, _ = l.r.Discard(4)
		if op < opClose {
			l.final = h[0]&0x80 != 0
			return op
		}
		p := make([]byte, l.left)
		_, l.err = io.ReadFull(l.r, p)
		l.left = 0
		switch {
		case l.err != nil:
		case op == opPing:
			_, l.err = l.Write(append([]byte{0x80 | opPong, byte(len(p))}, p...))
		case op == opClose:
			_, _ = l.Write(append([]byte{0x80 | opClose, byte(len(p))}, p...))
			closed := &CloseError{1005}
			if len(p) >= 2 {
				closed.Code = int(binary.BigEndian.Uint16(p))
			}
			l.err = closed
		}
	}
	return 0
}

func (l *library) Read(b []byte) (int, error) {
	for l.left == 0 && l.err == nil {
		if l.final {
			return 0, io.EOF
		}
		l.frame()
	}
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.r.Read(b[:min(l.left, uint64(len(b)))])
	l.left -= uint64(n)
	l.err = err
	return n, err
}

func (l *library) SetReadLimit(int64) {}

// gorilla and coder have the methods of a connection of these libraries.
type (
	gorilla     struct{ *library }
	coder       struct{ *library }
	messageType int
)

func (g gorilla) NextReader() (int, io.Reader, error) {
	op := g.frame()
	if errors.Is(g.err, io.EOF) {
		return 0, nil, &CloseError{1006}
	}
	return int(op), g.library, g.err
}

func (c coder) Reader(context.Context) (messageType, io.Reader, error) {
	op := c.frame()
	if c.err != nil {
		c.Close() // as a library may do
		return 0, nil, fmt.Errorf("wrapped: %w", c.err)
	}
	return messageType(op), c.library, c.err
}

func (c coder) CloseNow() error { return c.Close() }

// hijackable is a ResponseWriter whose connection is conn. early has arrived
// already.
type hijackable struct {
	http.ResponseWriter
	conn  net.Conn
	early string
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	r := bufio.NewReader(io.MultiReader(&once{h.early}, h.conn))
	_, _ = r.Peek(len(h.early))
	return h.conn, bufio.NewReadWriter(r, bufio.NewWriter(h.conn)), nil
}

// once returns its text in one Read.
type once struct{ text string }

func (o *once) Read(b []byte) (int, error) {
	n := copy(b, o.text)
	o.text = o.text[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// forms are the two kinds of connection that this package adapts.
var forms = []struct {
	name  string
	adapt func(rw *wsadapter.ResponseWriter, l *library) *wsadapter.Conn
}{
	{"gorilla", func(rw *wsadapter.ResponseWriter, l *library) *wsadapter.Conn {
		return wsadapter.Gorilla(gorilla{l}, rw)
	}},
	{"coder", func(rw *wsadapter.ResponseWriter, l *library) *wsadapter.Conn {
		return wsadapter.Coder(coder{l}, rw)
	}},
}

// upgrade hijacks rw as a library does.
func upgrade(t testing.TB, rw *wsadapter.ResponseWriter) *library {
	t.Helper()
	conn, brw, err := rw.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Time{})
	return &library{Conn: conn, r: brw.Reader}
}

// inBubble runs f in the time of synctest with both ends of a connection, for
// each form. early is what the client has sent with the handshake.
func inBubble(t *testing.T, cfg wsadapter.Config, early string, f func(t *testing.T, conn *wsadapter.Conn, peer *client)) {
	t.Helper()
	adapter, err := wsadapter.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				rw := adapter.Wrap(hijackable{httptest.NewRecorder(), ours, early})
				conn := form.adapt(rw, upgrade(t, rw))
				defer theirs.Close()
				defer conn.Abort()
				f(t, conn, &client{theirs, bufio.NewReader(theirs)})
			})
		})
	}
}

// read reads until an error, and returns a channel of it.
func read(conn *wsadapter.Conn) <-chan error {
	end := make(chan error, 1)
	go func() {
		for {
			if _, err := conn.Read(context.Background()); err != nil {
				end <- err
				return
			}
		}
	}()
	return end
}

func wantElapsed(t *testing.T, since time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(since); got != want {
		t.Fatalf("after %v, want %v", got, want)
	}
}

// closable notes its Close.
type closable struct {
	net.Conn
	closed bool
}

func (c *closable) Close() error {
	c.closed = true
	return nil
}
