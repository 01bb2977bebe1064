package wsconn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// next waits for the next message of a connection.
type next func(*wsconn.Conn) ([]byte, error)

// ways are the two ways to wait. Everything that a client can do must have the
// same effect with both.
var ways = map[string]next{
	"reading": func(c *wsconn.Conn) ([]byte, error) { return c.Read(context.Background()) },
	"parked":  parked,
}

// parked parks a connection, and reads when it is woken.
func parked(c *wsconn.Conn) ([]byte, error) {
	woken := make(chan struct{})
	if c.Park(func() { close(woken) }) {
		<-woken
	}
	return c.Read(context.Background())
}

// needsPoller skips a test that needs a poller.
func needsPoller(t testing.TB) {
	switch runtime.GOOS {
	case "linux", "darwin", "dragonfly", "freebsd", "netbsd", "openbsd":
	default:
		t.Skip("no connection is parked on this system")
	}
}

// masked encodes a whole frame with a mask that is not zero.
func masked(op byte, payload string) []byte {
	mask := [4]byte{1, 2, 3, 4}
	b := append(header(op, uint64(len(payload)))[:2], mask[:]...)
	for i := range payload {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

// A parked connection answers pings, ignores pongs and stays parked.
func TestParkedAnswers(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	conn, peer := started(t, orderly)
	var woken atomic.Bool
	if !conn.Park(func() { woken.Store(true) }) {
		t.Fatal("not parked")
	}
	for _, payload := range []string{"", "x", strings.Repeat("0123456789", 12) + "12345"} {
		peer.Write(masked(opPong, "unasked"))
		peer.Write(masked(opPing, payload))
		wantFrame(t, peer, opPong, payload)
	}
	peer.Write(append(masked(opPing, "one"), masked(opPing, "two")...))
	for payload := ""; payload != "two"; { // "one" may have been answered too
		var err error
		if _, payload, err = peer.recv(); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.WriteFrame(wsconn.NewFrame([]byte("news"))); err != nil {
		t.Error(err)
	}
	wantFrame(t, peer, opText, "news")
	if woken.Load() {
		t.Error("woken")
	}
}

// outcome is what a client and a server see of each other.
type outcome struct {
	messages []string
	err      string // the last error of Read
	received string // what the client received, without pongs
	pong     string // the last pong
}

// converse sends wire in chunks, then closes the sending half, and returns what
// came of it.
func converse(t testing.TB, next next, wire []byte, chunk int) outcome {
	var o outcome
	ended := make(chan struct{})
	s := serve(t, orderly, func(c *wsconn.Conn) {
		defer close(ended)
		for {
			msg, err := next(c)
			if err != nil {
				o.err = err.Error()
				if closed, ok := errors.AsType[*wsconn.CloseError](err); ok {
					o.err = fmt.Sprint("closed with ", closed.Code)
				}
				if errors.Is(err, wsconn.ErrClosed) {
					// After half a control frame, the library closes in another
					// goroutine.
					o.err = io.EOF.Error()
				}
				_ = c.Close(1000, "")
				return
			}
			o.messages = append(o.messages, string(msg))
		}
	})
	c := s.dial(t)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for rest := wire; len(rest) > 0; {
			n := min(len(rest), chunk)
			if _, err := c.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		_ = c.Conn.(*net.TCPConn).CloseWrite()
	}()
	for {
		op, payload, err := c.recv()
		if err != nil {
			break
		}
		if op == opPong {
			o.pong = payload
		} else {
			o.received += fmt.Sprintf("%d %q\n", op, payload)
		}
	}
	<-sent
	within(t, "the handler", func() { <-ended })
	if o.err == wsconn.ErrFlooded.Error() {
		o.pong = "" // a flood needs no answer
	}
	return o
}

// What arrives for a parked connection has the same effect as for a connection
// in Read, however it is cut.
func TestParkedAsRead(t *testing.T) {
	needsPoller(t)
	for _, row := range []struct {
		why  string
		wire []byte
	}{
		{"nothing but the end", nil},
		{"a message", frame(opText, "hi")},
		{"several messages", bytes.Repeat(masked(opText, "hi"), 20)},
		{"messages between pings", bytes.Join([][]byte{masked(opPing, "a"), masked(opText, "b"), masked(opPing, "c"), masked(opText, "d"), masked(opPing, "e")}, nil)},
		{"a message in fragments around a ping", bytes.Join([][]byte{part(opText, "a"), masked(opPing, "b"), frame(opContinuation, "c")}, nil)},
		{"a message larger than every buffer", frame(opText, strings.Repeat("x", 4096))},
		{"a message that is too large", frame(opText, strings.Repeat("x", 4097))},
		{"a binary message", frame(opBinary, "x")},
		{"no UTF-8", frame(opText, "\xff")},
		{"a close", masked(opClose, closing(1001, "bye"))},
		{"a close behind a ping", append(masked(opPing, "x"), masked(opClose, closing(4000, ""))...)},
		{"a close without a code", masked(opClose, "")},
		{"a close with a bad code", masked(opClose, closing(1005, ""))},
		{"a close with half a code", masked(opClose, "\x03")},
		{"a close whose reason is no UTF-8", masked(opClose, closing(1000, "\xff"))},
		{"a message after a close", append(masked(opClose, closing(1000, "")), masked(opText, "x")...)},
		{"a ping that is not masked", []byte{0x89, 1, 'x'}},
		{"a pong that is not masked", []byte{0x8A, 0}},
		{"a ping in fragments", []byte{0x09, 0x80, 0, 0, 0, 0}},
		{"a ping with a reserved bit", []byte{0xC9, 0x80, 0, 0, 0, 0}},
		{"a ping that is too long", append([]byte{0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0}, make([]byte, 126)...)},
		{"the longest ping", masked(opPing, strings.Repeat("x", 125))},
		{"an unknown control frame", []byte{0x8B, 0x80, 0, 0, 0, 0}},
		{"an unknown kind of message", []byte{0x83, 0x80, 0, 0, 0, 0}},
		{"a continuation of nothing", frame(opContinuation, "x")},
		{"half a header", []byte{0x81}},
		{"half a ping", masked(opPing, "hello")[:8]},
		{"half a message", masked(opText, "hello")[:8]},
		{"a flood of pings", bytes.Repeat(masked(opPing, "x"), 4000)},
		{"a flood of pongs that no one asked for", bytes.Repeat(masked(opPong, ""), 4000)},
		{"as many pings as may be", bytes.Repeat(masked(opPing, "x"), 100)},
	} {
		for _, chunk := range []int{1, 7, 1 << 20} {
			if len(row.wire) > 4000 && chunk < 1<<20 {
				continue // slow enough to stay within the budget, on some machines
			}
			want, got := converse(t, ways["reading"], row.wire, chunk), converse(t, ways["parked"], row.wire, chunk)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s, %d bytes at once:\nparked  %+v\nreading %+v", row.why, chunk, got, want)
			}
		}
	}
}

// The library and the poller judge every stream of bytes alike.
func FuzzParked(f *testing.F) {
	needsPoller(f)
	f.Add(append(masked(opPing, "x"), masked(opText, "hello")...), uint8(3))
	f.Add([]byte{0x89, 0x80 | 126, 0, 1}, uint8(255))
	f.Add(append(masked(opPong, ""), 0x8A, 0xFF), uint8(1))
	f.Fuzz(func(t *testing.T, wire []byte, chunk uint8) {
		wire = wire[:min(len(wire), 400)] // fewer frames than the budget, which depends on the time
		want, got := converse(t, ways["reading"], wire, int(chunk)+1), converse(t, ways["parked"], wire, int(chunk)+1)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q, %d bytes at once:\nparked  %+v\nreading %+v", wire, chunk+1, got, want)
		}
	})
}

// What arrived with the handshake counts as if it arrived later.
func TestParkWithTheHandshake(t *testing.T) {
	needsPoller(t)
	for _, row := range []struct {
		why    string
		wire   []byte
		parks  bool
		answer string
	}{
		{"a ping", masked(opPing, "x"), true, "\x8a\x01x"},
		{"a message", masked(opText, "hi"), false, "\x88\x02\x03\xe8"},
		{"a ping and a message", append(masked(opPing, "x"), masked(opText, "hi")...), false, "\x8a\x01x\x88\x02\x03\xe8"},
		{"half a ping", masked(opPing, "x")[:4], false, "\x88\x02\x03\xe8"},
		{"a flood", bytes.Repeat(masked(opPing, ""), 400), false, ""},
	} {
		parks := make(chan bool, 1)
		s := serve(t, brief, func(c *wsconn.Conn) {
			parks <- c.Park(func() {})
			if row.answer == "" {
				if _, err := c.Read(context.Background()); !errors.Is(err, wsconn.ErrFlooded) {
					t.Errorf("%s: %v", row.why, err)
				}
			}
			_ = c.Close(1000, "")
		})
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, handshake+string(row.wire))
		if got := <-parks; got != row.parks {
			t.Errorf("%s: parked is %t", row.why, got)
		}
		all, _ := io.ReadAll(conn)
		if !bytes.Contains(all, []byte("\r\n\r\n"+row.answer)) {
			t.Errorf("%s: %q", row.why, all)
		}
		conn.Close()
	}
}

// Park may be called again after every message, also beside a flow of them.
func TestParkAgain(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	var parkings atomic.Int64
	s := serve(t, orderly, func(c *wsconn.Conn) {
		defer c.Close(1000, "")
		for {
			woken := make(chan struct{})
			if c.Park(func() { close(woken) }) {
				parkings.Add(1)
				<-woken
			}
			msg, err := c.Read(context.Background())
			if err != nil {
				return
			}
			_ = c.Write(context.Background(), msg)
		}
	})
	c := s.dial(t)
	for i := range 200 {
		want := fmt.Sprint("message ", i)
		c.Write(masked(opText, want))
		wantFrame(t, c, opText, want)
	}
	if n := parkings.Load(); n < 100 {
		t.Errorf("parked %d times", n)
	}
	go func() {
		for i := range 1000 {
			c.Write(masked(opText, fmt.Sprint(i)))
		}
	}()
	for i := range 1000 {
		wantFrame(t, c, opText, fmt.Sprint(i))
	}
	c.send(t, opClose, closing(1000, ""))
	c.wantClose(t, 1000, "")
}

// Whatever ends a parked connection wakes it once, and Read says why.
func TestParkedEnds(t *testing.T) {
	needsPoller(t)
	for _, row := range []struct {
		why string
		end func(*wsconn.Conn, *client)
		err error
	}{
		{"Close", func(c *wsconn.Conn, p *client) {
			go p.Write(frame(opClose, closing(1001, "")))
			c.Close(1001, "")
		}, wsconn.ErrClosed},
		{"Close without an answer", func(c *wsconn.Conn, _ *client) { c.Close(1001, "") }, wsconn.ErrClosed},
		{"Abort", func(c *wsconn.Conn, _ *client) { c.Abort() }, wsconn.ErrClosed},
		{"Close and Abort at once, several times", func(c *wsconn.Conn, _ *client) {
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { c.Close(1001, "") })
				wg.Go(func() { c.Abort() })
			}
			wg.Wait()
		}, wsconn.ErrClosed},
		{"a write that fails", func(c *wsconn.Conn, p *client) {
			for c.WriteFrame(big) == nil {
			}
		}, wsconn.ErrStalled},
		{"the client's end", func(_ *wsconn.Conn, p *client) { p.Close() }, io.EOF},
		{"the client's reset", func(_ *wsconn.Conn, p *client) {
			p.Conn.(*net.TCPConn).SetLinger(0)
			p.Close()
		}, nil},
	} {
		t.Run(row.why, func(t *testing.T) {
			leakCheck(t)
			cfg := brief
			cfg.WriteTimeout = 50 * time.Millisecond
			conn, peer := started(t, cfg)
			woken := make(chan struct{}, 10)
			if !conn.Park(func() { woken <- struct{}{} }) {
				t.Fatal("not parked")
			}
			within(t, "the end", func() { row.end(conn, peer); <-woken })
			if _, err := conn.Read(t.Context()); err == nil || row.err != nil && !errors.Is(err, row.err) {
				t.Errorf("%v, want %v", err, row.err)
			}
			if conn.Park(func() { t.Error("woken after its end") }) {
				t.Error("parked after its end")
			}
			_ = conn.Close(1000, "")
			if len(woken) > 0 {
				t.Error("woken again")
			}
		})
	}
}

// A Read of a parked connection takes it back, also when a message arrives at
// the same moment. A connection cannot be parked twice.
func TestReadWhileParked(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	conn, peer := started(t, orderly)
	for i := range 500 {
		if !conn.Park(func() {}) {
			t.Fatal("not parked")
		}
		if conn.Park(func() { t.Error("parked twice") }) {
			t.Fatal("parked twice")
		}
		want := fmt.Sprint(i)
		go peer.Write(masked(opText, want))
		if msg, err := conn.Read(context.Background()); string(msg) != want {
			t.Fatal(string(msg), err)
		}
	}
	// The end of the connection finds no wake.
	if !conn.Park(func() { t.Error("woken") }) {
		t.Fatal("not parked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := conn.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A connection that is not a socket, or whose bytes are changed on the way,
// cannot be parked, and goes on as before.
func TestNotParked(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		if conn.Park(func() { t.Error("woken") }) {
			t.Error("parked a pipe")
		}
		go peer.send(t, opText, "hi")
		if msg, err := conn.Read(t.Context()); string(msg) != "hi" {
			t.Error(string(msg), err)
		}
	})
	s := serveTLS(t, orderly, nil, func(conn *wsconn.Conn) {
		if conn.Park(func() { t.Error("woken") }) {
			t.Error("parked a TLS connection")
		}
		if msg, err := conn.Read(context.Background()); string(msg) != "hi" {
			t.Error(string(msg), err)
		}
		_ = conn.Close(1000, "")
	})
	peer := dialTLS(t, s)
	peer.Write(frame(opText, "hi"))
	peer.wantClose(t, 1000, "")
}
