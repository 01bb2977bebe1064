package wsconn_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// patience is how long a test waits before it fails. No test measures a
// duration.
const patience = time.Minute

const (
	opText, opBinary, opClose, opPing, opPong = 0x1, 0x2, 0x8, 0x9, 0xA
)

const handshake = "GET /ws HTTP/1.1\r\nHost: relay.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// secure makes serve end TLS, behind [wsconn.Listener]. TestOverTLS sets it.
var secure bool

// server runs a handler for each connection and counts the open sockets. Like a
// rate limiter, it counts in the Close of the connection that Hijack returned.
type server struct {
	*httptest.Server
	sockets, handlers atomic.Int64
}

func serve(t testing.TB, cfg wsconn.Config, handle func(*wsconn.Conn)) *server {
	t.Helper()
	up, err := wsconn.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handlers.Add(1)
		defer s.handlers.Add(-1)
		conn, err := up.Accept(&counter{ResponseWriter: w, open: &s.sockets}, r)
		if err != nil {
			t.Error(err)
			return
		}
		handle(conn)
	}))
	if secure {
		s.Listener = wsconn.Listener(s.Listener)
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		s.Server.Close()
		eventually(t, "every handler to return", func() bool { return s.handlers.Load() == 0 })
		eventually(t, "every socket to be closed through its wrapper", func() bool { return s.sockets.Load() == 0 })
	})
	return s
}

// serveTLS runs a handler for each connection of a server that ends TLS without
// counting, so that a Conn has the TLS connection itself. If change is not nil,
// it is called before the start.
func serveTLS(t testing.TB, cfg wsconn.Config, change func(*httptest.Server), handle func(*wsconn.Conn)) *httptest.Server {
	t.Helper()
	up, err := wsconn.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		handle(conn)
	}))
	if change != nil {
		change(s)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// dialTLS opens a connection to a server that ends TLS.
func dialTLS(t testing.TB, s *httptest.Server) *client {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return hello(t, conn)
}

type counter struct {
	http.ResponseWriter
	open *atomic.Int64
}

func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *counter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	c.open.Add(1)
	return &counted{Conn: conn, open: c.open}, rw, nil
}

type counted struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

func (c *counted) NetConn() net.Conn { return c.Conn }

func (c *counted) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported // over TLS
}

func (c *counted) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// eventually waits for a condition that gives no signal.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// leakCheck fails the test if goroutines or descriptors remain after it.
func leakCheck(t testing.TB) {
	t.Helper()
	goroutines, descriptors := runtime.NumGoroutine(), openFiles()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		eventually(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
		eventually(t, "descriptors to be closed", func() bool { return openFiles() <= descriptors })
	})
}

func openFiles() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// within fails the test if f does not return.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		t.Fatalf("%s does not end:\n%s", what, buf[:runtime.Stack(buf, true)])
	}
}

// client is a WebSocket client that can violate the protocol.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (s *server) dial(t testing.TB) *client {
	t.Helper()
	c, _ := s.dialWith(t, "")
	return c
}

func (s *server) dialWith(t testing.TB, lines string) (*client, http.Header) {
	t.Helper()
	return helloWith(t, s.connect(t), lines)
}

// connect opens a connection, with TLS if the server ends it.
func (s *server) connect(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(s.URL, "https://") {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// tcp returns the TCP connection, below TLS if there is any.
func (c *client) tcp() *net.TCPConn {
	if tls, ok := c.Conn.(*tls.Conn); ok {
		return tls.NetConn().(*net.TCPConn)
	}
	return c.Conn.(*net.TCPConn)
}

func hello(t testing.TB, conn net.Conn) *client {
	t.Helper()
	c, _ := helloWith(t, conn, "")
	return c
}

// helloWith sends more lines in the header, and returns that of the answer.
func helloWith(t testing.TB, conn net.Conn, lines string) (*client, http.Header) {
	t.Helper()
	if _, err := io.WriteString(conn, strings.TrimSuffix(handshake, "\r\n")+lines+"\r\n"); err != nil {
		t.Fatal(err)
	}
	c := &client{conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return c, resp.Header
}

// frame encodes a whole frame of a client, masked with zeros.
func frame(op byte, payload string) []byte {
	b := header(op, uint64(len(payload)))
	return append(b, payload...)
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

func (c *client) send(t testing.TB, op byte, payload string) {
	t.Helper()
	if _, err := c.Write(frame(op, payload)); err != nil {
		t.Error(err)
	}
}

// recv reads one frame of any kind, which is not compressed.
func (c *client) recv() (op byte, payload string, err error) {
	op, payload, err = c.recvAny()
	if err == nil && op&rsv1 != 0 {
		err = errors.New("a compressed frame")
	}
	return op, payload, err
}

// rsv1 in an opcode marks a compressed message.
const rsv1 = 0x40

func (c *client) recvAny() (op byte, payload string, err error) {
	var h [2]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return 0, "", err
	}
	if h[0]&0x30 != 0 || h[0]&0x80 == 0 || h[1]&0x80 != 0 {
		return 0, "", errors.New("not a whole unmasked frame: interleaved writes?")
	}
	n := uint64(h[1])
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(c.r, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(c.r, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, "", err
	}
	p := make([]byte, n)
	_, err = io.ReadFull(c.r, p)
	return h[0] & (0xf | rsv1), string(p), err
}

// wantClose reads until the close frame, compares it, and checks that no data
// follows. It closes its half of the connection, so that the server need not
// wait for the end of CloseGrace.
func (c *client) wantClose(t testing.TB, code int, reason string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for {
		op, payload, err := c.recv()
		if err != nil {
			t.Errorf("no close frame: %v", err)
			return
		}
		if op != opClose {
			continue
		}
		if want := closing(code, reason); payload != want {
			t.Errorf("close frame %q, want %q", payload, want)
		}
		break
	}
	_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	if op, payload, err := c.recv(); err == nil {
		t.Errorf("after the close frame: opcode %d %q", op, payload)
	}
}

func closing(code int, reason string) string {
	if code == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}
