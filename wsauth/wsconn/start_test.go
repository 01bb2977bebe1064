package wsconn_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// started connects a client and returns both ends.
func started(t testing.TB, cfg wsconn.Config) (*wsconn.Conn, *client) {
	t.Helper()
	conns, over := make(chan *wsconn.Conn, 1), make(chan struct{})
	s := serve(t, cfg, func(c *wsconn.Conn) {
		conns <- c
		<-over
		c.Abort()
	})
	t.Cleanup(func() { close(over) })
	peer := s.dial(t)
	return <-conns, peer
}

func numbered(i, size int) *wsconn.Frame {
	return wsconn.NewFrame(fmt.Appendf(nil, "%06d%s", i, strings.Repeat("x", size)))
}

// post calls StartFrame and waits until the frame is written. It reports
// whether it had to wait.
func post(t testing.TB, conn *wsconn.Conn, f *wsconn.Frame) (waited bool, err error) {
	t.Helper()
	done := make(chan error, 1)
	sent, err := conn.StartFrame(f, func(err error) { done <- err })
	if sent || err != nil {
		return false, err
	}
	within(t, "a started frame", func() { err = <-done })
	return true, err
}

// A client that reads in intervals gets every frame completely and in order,
// with answers, pings and pongs between them.
func TestStartFrame(t *testing.T) {
	leakCheck(t)
	const frames = 400
	conn, peer := started(t, wsconn.Config{SendBuffer: 16 << 10, PingInterval: time.Millisecond, PongTimeout: time.Hour})
	go func() {
		for { // answers the pings of the client
			if _, err := conn.Read(context.Background()); err != nil {
				return
			}
		}
	}()
	replies := make(chan struct{})
	go func() {
		defer close(replies)
		for range 50 {
			_ = conn.Write(t.Context(), []byte("reply"))
		}
	}()
	waits := make(chan int)
	go func() {
		n := 0
		for i := range frames {
			waited, err := post(t, conn, numbered(i, i*37%40_000))
			if err != nil {
				t.Errorf("frame %d: %v", i, err)
			}
			if waited {
				n++
			}
		}
		waits <- n
	}()
	next, answered := 0, 0
	for next < frames || answered < 50 {
		op, payload, err := peer.recv()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case op != opText:
		case payload == "reply":
			answered++
		case payload != fmt.Sprintf("%06d%s", next, strings.Repeat("x", next*37%40_000)):
			t.Fatalf("frame %d is %.10q…", next, payload)
		default:
			next++
			if next%50 == 0 {
				peer.Write(frame(opPing, "x"))
			}
		}
	}
	<-replies
	if n := <-waits; n == 0 || n == frames {
		t.Errorf("%d of %d frames had to wait: the other way was not shown", n, frames)
	}
}

// A client that reads nothing loses its connection and affects no other.
func TestStartFrameStalls(t *testing.T) {
	leakCheck(t)
	conn, _ := started(t, wsconn.Config{SendBuffer: 16 << 10, WriteTimeout: 50 * time.Millisecond})
	f := numbered(0, 30_000)
	for range 10_000 {
		waited, err := post(t, conn, f)
		if err == nil {
			continue
		}
		if !waited || !errors.Is(err, wsconn.ErrStalled) {
			t.Errorf("waited %t: %v", waited, err)
		}
		if _, err := post(t, conn, f); !errors.Is(err, wsconn.ErrClosed) {
			t.Errorf("afterwards: %v", err)
		}
		if _, err := conn.Read(t.Context()); !errors.Is(err, wsconn.ErrStalled) {
			t.Errorf("reading does not say why: %v", err)
		}
		return
	}
	t.Error("it took everything")
}

// The deadline of a write that had to wait does not apply to later writes.
func TestStartFrameAfterDeadline(t *testing.T) {
	conn, peer := started(t, wsconn.Config{SendBuffer: 16 << 10, WriteTimeout: 2 * time.Second})
	f := numbered(0, 30_000)
	sent := 0
	for waited := false; !waited; sent++ {
		done := make(chan error, 1)
		ok, err := conn.StartFrame(f, func(err error) { done <- err })
		if err != nil {
			t.Fatal(err)
		}
		if waited = !ok; waited {
			all := int64((sent + 1) * f.Len())
			go func() { _, _ = io.CopyN(io.Discard, peer.r, all) }()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	timer := time.NewTimer(2100 * time.Millisecond)
	<-timer.C // after the deadline of the first write, which must not apply to the next
	if _, err := post(t, conn, wsconn.NewFrame([]byte("later"))); err != nil {
		t.Error(err)
	}
}

func TestStartFrameOverTLS(t *testing.T) {
	leakCheck(t)
	s := serveTLS(t, orderly, nil, func(conn *wsconn.Conn) {
		for i := range 10 {
			if waited, err := post(t, conn, numbered(i, 100)); !waited || err != nil {
				t.Errorf("waited %t, %v: bytes went past the encryption?", waited, err)
			}
		}
		_, _ = conn.Read(context.Background()) // waits for the answer to the next frame
		_ = conn.Close(1000, "")
	})
	peer := dialTLS(t, s)
	for i := range 10 {
		if _, payload, err := peer.recv(); err != nil || !strings.HasPrefix(payload, fmt.Sprintf("%06d", i)) {
			t.Fatalf("frame %d: %.10q %v", i, payload, err)
		}
	}
	peer.Write(frame(opText, "thanks"))
	peer.wantClose(t, 1000, "")
}

func TestStartFrameAllocatesNothing(t *testing.T) {
	conn, peer := started(t, wsconn.Config{})
	go io.Copy(io.Discard, peer)
	f, done := numbered(0, 10), func(error) {}
	n := testing.AllocsPerRun(100, func() {
		if _, err := conn.StartFrame(f, done); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A close frame follows a frame that has begun. Inside the frame, the client
// would read it as a part of the message.
func TestCloseWaitsForBegunFrame(t *testing.T) {
	// With one processor, the goroutine of Close runs before the rest of the
	// frame.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	conn, peer := started(t, wsconn.Config{SendBuffer: 16 << 10, CloseGrace: patience})
	f := numbered(0, 3_000_000)
	done := make(chan error, 1)
	if sent, err := conn.StartFrame(f, func(err error) { done <- err }); sent || err != nil {
		t.Fatal(sent, err)
	}
	go conn.Close(1001, "server stopping")
	_, payload, err := peer.recv()
	if err != nil || len(payload) != 3_000_006 {
		t.Fatalf("%d bytes, %v", len(payload), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	peer.wantClose(t, 1001, "server stopping")
}

// bomb is a connection whose Read always panics.
type bomb struct{ net.Conn }

func (bomb) Read([]byte) (int, error) { panic("reading") }

type bombWriter struct{ http.ResponseWriter }

func (w bombWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w bombWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	return bomb{conn}, rw, err
}

// After a panic in Read, the connection can be closed, because Close does not
// read.
func TestPanicWhileReading(t *testing.T) {
	leakCheck(t)
	up, err := wsconn.New(wsconn.Config{})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan any, 1)
	s := &server{Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Accept(bombWriter{w}, r)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			p := recover()
			_ = conn.Close(1011, "")
			over <- p
		}()
		_, _ = conn.Read(r.Context())
	}))}
	defer s.Close()
	peer := s.dial(t)
	if p := <-over; p != "reading" {
		t.Error("recovered", p)
	}
	if _, err := peer.Read(make([]byte, 1)); err == nil {
		t.Error("the socket is still open")
	}
}
