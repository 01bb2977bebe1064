package wsadapter_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// A client that never answers is disconnected ten seconds after the first ping.
func TestSilentClientIsDropped(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		start := time.Now()
		end := read(conn)
		peer.want(t, opPing, "")
		wantElapsed(t, start, 30*time.Second)
		if err := <-end; !errors.Is(err, wsadapter.ErrUnresponsive) {
			t.Error(err)
		}
		wantElapsed(t, start, 40*time.Second)
		peer.wantEnd(t)
	})
}

// A client that answers stays connected and gets a ping every thirty seconds.
// Any data is an answer.
func TestPings(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		start := time.Now()
		end := read(conn)
		for i, answer := range [][]byte{frame(opPong, ""), frame(opPong, "other"), frame(opText, "hi"), {0x81}} {
			peer.want(t, opPing, "")
			wantElapsed(t, start, time.Duration(i+1)*30*time.Second)
			time.Sleep(9 * time.Second)
			peer.Write(answer)
		}
		peer.want(t, opPing, "")
		if err := <-end; !errors.Is(err, wsadapter.ErrUnresponsive) {
			t.Error(err)
		}
		wantElapsed(t, start, 160*time.Second)
	})
}

// The answers to the server's own pings cost nothing, however often it asks.
func TestAnswersAreNoFlood(t *testing.T) {
	inBubble(t, wsadapter.Config{PingInterval: 50 * time.Millisecond}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		end := read(conn)
		for range 1000 {
			peer.want(t, opPing, "")
			peer.Write(frame(opPong, ""))
		}
		conn.Abort()
		if err := <-end; errors.Is(err, wsadapter.ErrFlooded) {
			t.Error(err)
		}
	})
}

// The time in which no goroutine reads does not count as silence of the client.
func TestUnreadAnswerIsNotSilence(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		peer.want(t, opPing, "")
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			peer.Write(append(frame(opPong, ""), frame(opText, "hi")...))
		}()
		time.Sleep(25 * time.Second)
		if msg, err := conn.Read(t.Context()); string(msg) != "hi" || err != nil {
			t.Error(string(msg), err)
		}
		<-answered
	})
}

func TestStalledWriteEnds(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		start := time.Now()
		end := read(conn)
		if err := conn.Write(t.Context(), []byte("hello")); !errors.Is(err, wsadapter.ErrStalled) {
			t.Error(err)
		}
		if err := <-end; !errors.Is(err, wsadapter.ErrStalled) {
			t.Error(err)
		}
		wantElapsed(t, start, 10*time.Second)
		peer.wantEnd(t)
	})
}

// A client that reads a byte every nine seconds makes progress. The ping that
// became due meanwhile waits for the end of the frame.
func TestSlowWriteGoesOn(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		read(conn)
		written := make(chan error, 1)
		go func() { written <- conn.Write(t.Context(), []byte("hello")) }()
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
		peer.want(t, opPing, "")
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}

// Whatever the client does, Close returns within the grace, and a blocked Read
// and Write return too. The close frame is the only one, and its reason has at
// most 123 bytes.
func TestCloseIsBounded(t *testing.T) {
	reason := strings.Repeat("é", 70)
	for _, row := range []struct {
		name  string
		send  []byte
		reads bool
		takes time.Duration
	}{
		{"answers", frame(opClose, closing(1001, "")), true, 0},
		{"answers after much", append(bytes.Repeat(frame(opText, "late"), 1000), frame(opClose, "")...), true, 0},
		{"says nothing", nil, true, time.Second},
		{"does not read", nil, false, time.Second},
		{"stalls inside a frame", header(opText, 1<<40), true, time.Second},
		{"stalls inside a header", header(opText, 1<<40)[:3], true, time.Second},
		{"stalls inside its close frame", header(opClose, 2), true, time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
				end := read(conn)
				answered := make(chan struct{})
				go func() {
					defer close(answered)
					if row.reads {
						peer.want(t, opClose, closing(1001, strings.Repeat("é", 61)))
						go peer.Write(row.send)
						peer.wantEnd(t)
					}
				}()
				time.Sleep(time.Millisecond)
				start := time.Now()
				conn.Close(1001, reason)
				wantElapsed(t, start, row.takes)
				if err := <-end; !errors.Is(err, wsadapter.ErrClosed) {
					t.Error(err)
				}
				if err := conn.Write(t.Context(), []byte("late")); !errors.Is(err, wsadapter.ErrClosed) {
					t.Error(err)
				}
				conn.Close(1000, "again")
				<-answered
			})
		})
	}
}

// The end of a context ends the reading, not the connection, which can still be
// closed in order.
func TestReadContext(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for range 2 {
			if _, err := conn.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		go conn.Write(t.Context(), []byte("too late"))
		peer.want(t, opText, "too late")
		start := time.Now()
		go func() {
			peer.want(t, opClose, closing(1001, ""))
			time.Sleep(time.Second / 2)
			peer.Write(frame(opClose, closing(1001, "")))
		}()
		if err := conn.Close(1001, ""); err != nil {
			t.Error(err)
		}
		wantElapsed(t, start, time.Second/2)
	})
}

// The time for the answer to a close frame does not end with that for a pong,
// and nothing is sent after a close frame.
func TestCloseBesidePings(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		end := read(conn)
		peer.want(t, opPing, "")
		time.Sleep(8500 * time.Millisecond)
		go conn.Write(t.Context(), []byte("hi"))
		synctest.Wait() // it waits for the client, and so does the pong
		peer.Write(frame(opPing, "are you there"))
		closed := make(chan struct{})
		go func() { conn.Close(1001, ""); close(closed) }()
		synctest.Wait()
		peer.want(t, opText, "hi")
		peer.want(t, opClose, closing(1001, ""))
		time.Sleep(time.Second - 1)
		select {
		case <-closed:
			t.Error("closed before the grace was over")
		default:
		}
		ended := make(chan struct{})
		go func() { peer.wantEnd(t); close(ended) }()
		conn.Write(t.Context(), []byte("late")) // which would send the pong
		peer.Write(frame(opClose, ""))
		<-ended
		<-closed
		if err := <-end; !errors.Is(err, wsadapter.ErrClosed) {
			t.Error(err)
		}
	})
}

// A client that floods after a close frame costs hardly anything until the
// grace is over.
func TestFloodAfterClose(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		go io.Copy(io.Discard, peer)
		sent := make(chan int)
		go func() {
			total := 0
			for b := bytes.Repeat(frame(opText, "x"), 100); ; {
				n, err := peer.Write(b)
				if total += n; err != nil {
					sent <- total
					return
				}
			}
		}()
		start := time.Now()
		conn.Close(1001, "")
		wantElapsed(t, start, time.Second)
		if total := <-sent; total < 200<<10 || total > 2<<20 {
			t.Errorf("read %d bytes after the close frame", total)
		}
	})
}

// Abort sends no close frame.
func TestAbort(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		start := time.Now()
		end := read(conn)
		conn.Abort()
		if err := <-end; !errors.Is(err, wsadapter.ErrClosed) {
			t.Error(err)
		}
		peer.wantEnd(t)
		conn.Close(1000, "")
		wantElapsed(t, start, 0)
	})
}
