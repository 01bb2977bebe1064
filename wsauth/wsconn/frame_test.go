package wsconn_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// Each encoding of the length, at both sides of each limit.
func TestFrameLengths(t *testing.T) {
	lengths := []int{0, 1, 125, 126, 65535, 65536, 1 << 20}
	s := serve(t, brief, func(c *wsconn.Conn) {
		for _, n := range lengths {
			text := bytes.Repeat([]byte("x"), n)
			f := wsconn.NewFrame(text)
			for i := range text {
				text[i] = 'y' // the frame has a copy
			}
			if err := c.WriteFrame(f); err != nil {
				t.Error(err)
			}
		}
		c.Close(1000, "")
	})
	c := s.dial(t)
	for _, n := range lengths {
		if op, payload, err := c.recv(); err != nil || op != opText || payload != strings.Repeat("x", n) {
			t.Fatalf("length %d: opcode %d, %d bytes, %v", n, op, len(payload), err)
		}
	}
}

// Many writers, pongs and a close run in parallel. The client receives whole
// frames, and the last one is the only close frame.
func TestFramesDoNotInterleave(t *testing.T) {
	leakCheck(t)
	s := serve(t, orderly, func(c *wsconn.Conn) {
		var wg sync.WaitGroup
		for _, size := range []int{10, 1000, 100_000} {
			f := wsconn.NewFrame(bytes.Repeat([]byte("x"), size))
			wg.Go(func() {
				for c.WriteFrame(f) == nil {
				}
			})
		}
		for range 50 {
			if _, err := c.Read(context.Background()); err != nil {
				t.Error(err)
				break
			}
		}
		c.Close(1001, "")
		wg.Wait()
	})
	c := s.dial(t)
	go func() {
		for range 50 {
			c.Write(frame(opPing, "are you there"))
			c.Write(frame(opText, "{}"))
		}
	}()
	c.wantClose(t, 1001, "")
}

// sink is a connection that discards every write. Its deadlines do nothing,
// because those of a net.Pipe allocate and those of a socket do not.
type sink struct{ net.Conn }

func (sink) Write(p []byte) (int, error)      { return len(p), nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }

func sinkConn(t testing.TB, offers ...string) *wsconn.Conn {
	t.Helper()
	up, err := wsconn.New(wsconn.Config{Compress: always})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	r := upgradeRequest()
	r.Header["Sec-Websocket-Extensions"] = offers
	conn, err := up.Accept(pipeWriter{httptest.NewRecorder(), sink{ours}}, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Abort(); theirs.Close() })
	return conn
}

func TestWriteFrameAllocatesNothing(t *testing.T) {
	conn, f := sinkConn(t), wsconn.NewFrame([]byte("hello"))
	if n := testing.AllocsPerRun(100, func() { _ = conn.WriteFrame(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The cost of a message compared with that of a bare write to the same kind of
// socket.
func BenchmarkWrite(b *testing.B) {
	f := wsconn.NewFrame(bytes.Repeat([]byte("x"), 150))
	b.Run("bare", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		go func() {
			if c, err := ln.Accept(); err == nil {
				io.Copy(io.Discard, c)
			}
		}()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		wire := make([]byte, f.Len())
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Write(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("frame", func(b *testing.B) {
		conn, peer := started(b, wsconn.Config{})
		go io.Copy(io.Discard, peer)
		b.ReportAllocs()
		for b.Loop() {
			if err := conn.WriteFrame(f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("started frame", func(b *testing.B) {
		conn, peer := started(b, wsconn.Config{})
		go io.Copy(io.Discard, peer)
		out := make(chan error, 1)
		done := func(err error) { out <- err }
		b.ReportAllocs()
		for b.Loop() {
			if sent, err := conn.StartFrame(f, done); err != nil {
				b.Fatal(err)
			} else if !sent {
				<-out
			}
		}
	})
}
