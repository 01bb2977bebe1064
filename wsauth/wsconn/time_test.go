package wsconn_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// pipeWriter is a ResponseWriter whose connection is one end of a net.Pipe,
// which has no buffers and works in the time of synctest.
type pipeWriter struct {
	http.ResponseWriter
	conn net.Conn
}

func (p pipeWriter) WriteHeader(int) {}

func (p pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return p.conn, bufio.NewReadWriter(bufio.NewReader(p.conn), bufio.NewWriter(p.conn)), nil
}

func upgradeRequest() *http.Request {
	r := httptest.NewRequest("GET", "http://relay.test/ws", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	return r
}

// inBubble runs f in the time of synctest with both ends of a connection that
// has the default bounds.
func inBubble(t *testing.T, f func(t *testing.T, conn *wsconn.Conn, peer *client)) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		up, err := wsconn.New(wsconn.Config{})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := up.Accept(pipeWriter{httptest.NewRecorder(), ours}, upgradeRequest())
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		defer conn.Abort()
		f(t, conn, &client{theirs, bufio.NewReader(theirs)})
	})
}

// read starts a Read and returns a channel of its result.
func read(conn *wsconn.Conn) <-chan error {
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

func wantFrame(t *testing.T, c *client, op byte, payload string) {
	t.Helper()
	if gotOp, got, err := c.recv(); err != nil || gotOp != op || got != payload {
		t.Fatalf("opcode %d %q, %v; want opcode %d %q", gotOp, got, err, op, payload)
	}
}

func wantElapsed(t *testing.T, since time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(since); got != want {
		t.Fatalf("after %v, want %v", got, want)
	}
}

// A client that never answers is disconnected ten seconds after the first ping.
func TestSilentPeerIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		start := time.Now()
		end := read(conn)
		wantFrame(t, peer, opPing, "")
		wantElapsed(t, start, 30*time.Second)
		if err := <-end; !errors.Is(err, wsconn.ErrUnresponsive) {
			t.Error(err)
		}
		wantElapsed(t, start, 40*time.Second)
		if _, _, err := peer.recv(); !errors.Is(err, io.EOF) {
			t.Error("the socket is still open:", err)
		}
	})
}

// A client that answers stays connected and gets a ping every thirty seconds.
// Any data is an answer.
func TestPings(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		start := time.Now()
		end := read(conn)
		for i, answer := range [][]byte{frame(opPong, ""), frame(opPong, "other"), frame(opText, "hi"), {0x81}} {
			wantFrame(t, peer, opPing, "")
			wantElapsed(t, start, time.Duration(i+1)*30*time.Second)
			time.Sleep(9 * time.Second)
			peer.Write(answer)
		}
		wantFrame(t, peer, opPing, "")
		if err := <-end; !errors.Is(err, wsconn.ErrUnresponsive) {
			t.Error(err)
		}
		wantElapsed(t, start, 160*time.Second)
	})
}

// The time in which no goroutine reads does not count as silence of the client.
func TestUnreadAnswerIsNotSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		wantFrame(t, peer, opPing, "")
		answered := make(chan struct{})
		go func() {
			peer.Write(append(frame(opPong, ""), frame(opText, "hi")...))
			close(answered)
		}()
		time.Sleep(25 * time.Second)
		msg, err := conn.Read(context.Background())
		if string(msg) != "hi" || err != nil {
			t.Error(string(msg), err)
		}
		<-answered
	})
}

func TestStalledWriteEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		start := time.Now()
		if err := conn.WriteFrame(wsconn.NewFrame([]byte("hello"))); !errors.Is(err, wsconn.ErrStalled) {
			t.Error(err)
		}
		wantElapsed(t, start, 10*time.Second)
		if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error("the socket is still open:", err)
		}
	})
}

// A client that reads a byte every nine seconds makes progress.
func TestSlowWriteGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		read(conn)
		written := make(chan error, 1)
		go func() { written <- conn.WriteFrame(wsconn.NewFrame([]byte("hello"))) }()
		var got []byte
		for b := make([]byte, 1); len(got) < 7; got = append(got, b...) {
			time.Sleep(9 * time.Second)
			if _, err := peer.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		if string(got) != "\x81\x05hello" {
			t.Errorf("%q", got)
		}
		// The ping that became due meanwhile has waited for the end of the
		// frame.
		wantFrame(t, peer, opPing, "")
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}

// A pong does not interrupt a frame, and the connection does not end while the
// pong waits.
func TestPongWaitsForFrame(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		read(conn)
		go conn.WriteFrame(wsconn.NewFrame([]byte("hello")))
		peer.Read(make([]byte, 3))
		peer.Write(frame(opPing, "one"))
		peer.Write(frame(opPing, "two"))
		time.Sleep(8 * time.Second)
		rest := make([]byte, 4)
		if _, err := io.ReadFull(peer, rest); string(rest) != "ello" {
			t.Fatalf("%q %v", rest, err)
		}
		wantFrame(t, peer, opPong, "two")
	})
}

func TestCloseGrace(t *testing.T) {
	for _, behaviour := range []string{"reads the close frame", "does not even read"} {
		t.Run(behaviour, func(t *testing.T) {
			inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
				start := time.Now()
				end := read(conn)
				if behaviour == "reads the close frame" {
					go peer.recv()
				}
				conn.Close(1001, "")
				wantElapsed(t, start, time.Second)
				if err := <-end; !errors.Is(err, wsconn.ErrClosed) {
					t.Error(err)
				}
			})
		})
	}
}

// The end of a context ends the reading, not the connection, which can still be
// closed in order.
func TestReadContext(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		go func() {
			for {
				switch op, _, err := peer.recv(); {
				case err != nil:
					return
				case op == opPing:
					peer.Write(frame(opPong, ""))
				case op == opClose:
					peer.Write(frame(opClose, closing(1001, "")))
				}
			}
		}()
		if _, err := conn.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if _, err := conn.Read(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("reading went on:", err)
		}
		if err := conn.WriteFrame(wsconn.NewFrame(nil)); err != nil {
			t.Error(err)
		}
		start := time.Now()
		if err := conn.Close(1001, ""); err != nil {
			t.Error(err)
		}
		wantElapsed(t, start, 0)
	})
}
