package transports_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// grace is the default CloseGrace of every transport.
const grace = time.Second

// onEach runs a test on every transport under every server.
func onEach(t *testing.T, cfg wsadapter.Config, f func(t *testing.T, s stage)) {
	for _, server := range transports.Servers {
		for _, transport := range transports.Transports {
			t.Run(server.Name+", "+transport.Name, func(t *testing.T) {
				up, err := transport.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				f(t, stage{server, up})
			})
		}
	}
}

// stage is one transport under one server.
type stage struct {
	server transports.Server
	up     transports.Accept
}

// handler upgrades every request and passes the connection on.
func (s stage) handler(t *testing.T, accepted chan<- transports.Conn) http.Handler {
	return s.server.Serve(behindMiddleware(func(w http.ResponseWriter, r *http.Request) {
		conn, err := s.up(w, r)
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}))
}

// inBubble runs f with both ends of a connection that an HTTP server has
// accepted. The connection is a pipe and the time is fake, so the test can
// compare a bound to the nanosecond. The test fails if a goroutine is left.
func (s stage) inBubble(t *testing.T, f func(t *testing.T, conn transports.Conn, p *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		l := &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conns <- ours
		accepted := make(chan transports.Conn, 1)
		server := &http.Server{Handler: s.handler(t, accepted)}
		go server.Serve(l)
		defer server.Close()
		defer theirs.Close()
		p := hello(t, theirs)
		conn := <-accepted
		defer conn.Abort()
		f(t, conn, p)
	})
}

// behindMiddleware sets a header and wraps the ResponseWriter, as middlewares
// do.
func behindMiddleware(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next(wrapper{w}, r)
	})
}

type wrapper struct{ inner http.ResponseWriter }

func (w wrapper) Header() http.Header         { return w.inner.Header() }
func (w wrapper) Write(b []byte) (int, error) { return w.inner.Write(b) }
func (w wrapper) WriteHeader(status int)      { w.inner.WriteHeader(status) }
func (w wrapper) Unwrap() http.ResponseWriter { return w.inner }

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	close(l.closed)
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

const (
	opText, opBinary, opClose, opPing, opPong = 0x1, 0x2, 0x8, 0x9, 0xA
)

const handshake = "GET /ws HTTP/1.1\r\nHost: relay.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// peer is a client that writes and reads raw frames, so it can misbehave.
type peer struct {
	net.Conn
	r *bufio.Reader
}

func hello(t testing.TB, conn net.Conn) *peer {
	t.Helper()
	p := &peer{conn, bufio.NewReader(conn)}
	if _, err := io.WriteString(conn, handshake+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Error("the middleware's header is not in the 101")
	}
	return p
}

// frame returns a whole client frame, masked with zeros.
func frame(op byte, payload string) []byte {
	return wire.AppendFrame(nil, 0x80|op, []byte(payload), [4]byte{})
}

func header(op byte, length uint64) []byte {
	return wire.AppendHeader(nil, 0x80|op, length, [4]byte{})
}

// fragments returns a message in two frames.
func fragments(one, two string) []byte {
	b := append(frame(opText, one), frame(0, two)...)
	b[0] &^= 0x80
	return b
}

func closing(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// answer is a frame that the server sent.
type answer struct {
	op      byte
	payload string
}

func (p *peer) recv() (answer, error) {
	var h [2]byte
	if _, err := io.ReadFull(p.r, h[:]); err != nil {
		return answer{}, err
	}
	if h[0]&0xf0 != 0x80 || h[1]&0x80 != 0 {
		return answer{}, errors.New("not a whole unmasked frame: interleaved writes?")
	}
	n, extended := int(h[1]), 0
	switch n {
	case 126:
		extended = 2
	case 127:
		extended = 8
	}
	if extended > 0 {
		b := make([]byte, extended)
		if _, err := io.ReadFull(p.r, b); err != nil {
			return answer{}, err
		}
		n = 0
		for _, digit := range b {
			n = n<<8 | int(digit)
		}
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(p.r, payload)
	return answer{h[0] & 0xf, string(payload)}, err
}

// converse sends bytes and at the same time reads to the end of the connection.
// If asked to, it answers the server's close frame. It returns all frames of
// the server.
func (p *peer) converse(t testing.TB, send []byte, answers bool) []answer {
	t.Helper()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = p.Write(send)
	}()
	var got []answer
	for {
		a, err := p.recv()
		if err != nil {
			<-sent
			return got
		}
		got = append(got, a)
		if a.op == opClose && answers {
			<-sent
			_, _ = p.Write(frame(opClose, a.payload))
		}
	}
}
