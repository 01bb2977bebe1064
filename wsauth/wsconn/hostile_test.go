package wsconn_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// hostile lists ways in which a connected client may behave. Each returns when
// it has finished, with the socket open unless it says otherwise.
var hostile = []struct {
	name string
	act  func(c *client, stop <-chan struct{})
}{
	{"stalls inside a frame header", func(c *client, _ <-chan struct{}) { c.Write(header(opText, 1<<40)[:3]) }},
	{"announces 2^40 bytes and stalls", func(c *client, _ <-chan struct{}) { c.Write(header(opText, 1<<40)) }},
	{"stalls inside a payload", func(c *client, _ <-chan struct{}) { c.Write(append(header(opText, 100), "ab"...)) }},
	{"stalls inside a ping", func(c *client, _ <-chan struct{}) { c.Write(append(header(opPing, 100), "ab"...)) }},
	{"stalls inside its close frame", func(c *client, _ <-chan struct{}) { c.Write(header(opClose, 2)) }},
	{"stalls between fragments", func(c *client, _ <-chan struct{}) {
		f := frame(opText, "ab")
		f[0] &^= 0x80
		c.Write(f)
	}},
	{"never answers a close", func(c *client, _ <-chan struct{}) { io.Copy(io.Discard, c) }},
	{"never reads", func(*client, <-chan struct{}) {}},
	{"sends a byte at a time", func(c *client, stop <-chan struct{}) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for _, b := range frame(opText, strings.Repeat("x", 4000)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}},
	{"reads a byte at a time", func(c *client, stop <-chan struct{}) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for b := make([]byte, 1); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}},
	{"resets", func(c *client, _ <-chan struct{}) {
		c.tcp().SetLinger(0)
		c.Close()
	}},
	{"closes its half", func(c *client, _ <-chan struct{}) { c.tcp().CloseWrite() }},
	{"sends a close and goes on sending", func(c *client, _ <-chan struct{}) {
		c.Write(frame(opClose, closing(1000, "")))
		for range 100 {
			if _, err := c.Write(frame(opText, "after the close")); err != nil {
				return
			}
		}
	}},
	{"floods", func(c *client, stop <-chan struct{}) {
		f := frame(opText, strings.Repeat("x", 3000))
		for {
			if _, err := c.Write(f); err != nil {
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}},
	{"floods with pings and never reads", func(c *client, stop <-chan struct{}) {
		f := frame(opPing, strings.Repeat("x", 125))
		for {
			if _, err := c.Write(f); err != nil {
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}},
	{"breaks the protocol", func(c *client, _ <-chan struct{}) { c.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff}) }},
	{"does not mask", func(c *client, _ <-chan struct{}) { c.Write([]byte{0x81, 1, 'x'}) }},
	{"closes with a bad code", func(c *client, _ <-chan struct{}) {
		c.Write(frame(opClose, string(binary.BigEndian.AppendUint16(nil, 1005))))
	}},
}

// ends lists ways in which the server may end a connection.
var ends = []struct {
	name string
	end  func(c *wsconn.Conn, reading <-chan error)
}{
	{"close beside a reader", func(c *wsconn.Conn, reading <-chan error) {
		c.Close(1001, "stopping")
		<-reading
	}},
	{"abort beside a reader", func(c *wsconn.Conn, reading <-chan error) {
		c.Abort()
		<-reading
	}},
	{"close twice and abort at once", func(c *wsconn.Conn, reading <-chan error) {
		var wg sync.WaitGroup
		wg.Go(func() { c.Close(1001, "one") })
		wg.Go(func() { c.Close(1001, "two") })
		wg.Go(func() { c.Abort() })
		wg.Wait()
		<-reading
	}},
	{"close beside a reader and a blocked writer", func(c *wsconn.Conn, reading <-chan error) {
		blocked := make(chan error)
		go func() {
			for {
				if err := c.WriteFrame(big); err != nil {
					blocked <- err
					return
				}
			}
		}()
		c.Close(1001, "stopping")
		<-blocked
		<-reading
	}},
}

var big = wsconn.NewFrame(make([]byte, 1<<20))

// brief has a grace that a test can wait for many times, and no other bound
// that could end the connection.
var brief = wsconn.Config{CloseGrace: 50 * time.Millisecond, WriteTimeout: time.Hour, PingInterval: time.Hour}

// orderly is for clients that read the close frame, and answer it or leave. No
// bound ends their connection before, however slow the machine is.
var orderly = wsconn.Config{CloseGrace: patience, WriteTimeout: time.Hour, PingInterval: time.Hour}

func TestHostilePeers(t *testing.T) {
	for _, peer := range hostile {
		for _, end := range ends {
			for name, next := range ways {
				t.Run(peer.name+"/"+end.name+"/"+name, func(t *testing.T) {
					leakCheck(t)
					meet(t, next, peer.act, end.end)
				})
			}
		}
	}
}

// A thousand connections in parallel, of every kind, ended in every way.
func TestThousandHostilePeers(t *testing.T) {
	for name, next := range ways {
		t.Run(name, func(t *testing.T) { thousand(t, next) })
	}
}

func thousand(t *testing.T, next next) {
	n := 1000
	if testing.Short() || secure { // a handshake of TLS takes long
		n = 100
	}
	leakCheck(t)
	var acts []func(*client, <-chan struct{})
	for _, peer := range hostile {
		acts = append(acts, peer.act)
	}
	s, stop := newStage(t, next)
	var wg sync.WaitGroup
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = s.dial(t)
	}
	for i, c := range clients {
		wg.Go(func() { acts[i%len(acts)](c, stop) })
	}
	within(t, "ending them", func() { s.endAll(n, func(i int) int { return i % len(ends) }) })
	close(stop)
	for _, c := range clients {
		c.Close()
	}
	within(t, "the peers", wg.Wait)
}

func meet(t *testing.T, next next, act func(*client, <-chan struct{}), end func(*wsconn.Conn, <-chan error)) {
	s, stop := newStage(t, next)
	c := s.dial(t)
	acted := make(chan struct{})
	go func() { defer close(acted); act(c, stop) }()
	conn := <-s.conns
	within(t, "the end", func() { end(conn.Conn, conn.reading) })
	if err := conn.WriteFrame(wsconn.NewFrame([]byte("late"))); err == nil {
		t.Error("a frame could be written after the end")
	}
	if _, err := conn.Read(context.Background()); err == nil {
		t.Error("a message could be read after the end")
	}
	close(stop)
	c.Close()
	within(t, "the peer", func() { <-acted })
}

// stage is a server that always reads its connections and gives them to the
// test.
type stage struct {
	*server
	conns chan staged
}

type staged struct {
	*wsconn.Conn
	reading chan error
}

func newStage(t *testing.T, next next) (*stage, chan struct{}) {
	s := &stage{conns: make(chan staged, 1000)}
	s.server = serve(t, brief, func(c *wsconn.Conn) {
		reading := make(chan error, 1)
		s.conns <- staged{c, reading}
		for {
			msg, err := next(c)
			if string(msg) == "after the close" {
				t.Error("delivered what came after a close frame")
			}
			if err != nil {
				reading <- err
				return
			}
		}
	})
	return s, make(chan struct{})
}

func (s *stage) endAll(n int, how func(int) int) {
	var wg sync.WaitGroup
	for i := range n {
		conn := <-s.conns
		wg.Go(func() { ends[how(i)].end(conn.Conn, conn.reading) })
	}
	wg.Wait()
}

// If no goroutine reads, Close reads the answer of the client itself.
func TestCloseWithoutReader(t *testing.T) {
	leakCheck(t)
	closed := make(chan struct{})
	s := serve(t, wsconn.Config{CloseGrace: time.Hour}, func(c *wsconn.Conn) {
		c.Close(4401, "no")
		close(closed)
	})
	c := s.dial(t)
	c.send(t, opText, "on its way already")
	op, payload, err := c.recv()
	if err != nil || op != opClose || payload != closing(4401, "no") {
		t.Fatal(op, payload, err)
	}
	c.send(t, opClose, payload)
	within(t, "Close after its answer", func() { <-closed })
}

// The client closes. It gets its code back once, and Read returns it.
func TestPeerCloses(t *testing.T) {
	for _, code := range []int{0, 1000, 1001, 4999} {
		leakCheck(t)
		got := make(chan error, 1)
		s := serve(t, orderly, func(c *wsconn.Conn) {
			_, err := c.Read(context.Background())
			got <- err
			c.Close(1000, "")
		})
		c := s.dial(t)
		c.send(t, opClose, closing(code, ""))
		c.wantClose(t, code, "")
		closed, ok := errors.AsType[*wsconn.CloseError](<-got)
		if want := max(code, 1005*(1-min(code, 1))); !ok || closed.Code != want {
			t.Errorf("code %d: reader got %v", code, closed)
		}
	}
}
