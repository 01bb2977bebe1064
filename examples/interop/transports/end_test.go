package transports_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// patience is the time after which a test fails. No test measures times.
const patience = time.Minute

// brief has a short CloseGrace, and a WriteTimeout so long that it cannot end a
// connection instead.
var brief = wsadapter.Config{CloseGrace: 50 * time.Millisecond, WriteTimeout: time.Hour}

// hostile are the behaviours of a peer from the handshake to the end of its
// connection.
var hostile = []struct {
	name string
	act  func(p *peer)
}{
	{"says nothing", func(p *peer) { io.Copy(io.Discard, p) }},
	{"never reads", func(*peer) {}},
	{"stalls inside a frame header", func(p *peer) { p.Write(header(opText, 1<<40)[:3]) }},
	{"announces 2^40 bytes and stalls", func(p *peer) { p.Write(header(opText, 1<<40)) }},
	{"stalls inside a payload", func(p *peer) { p.Write(append(header(opText, 100), "ab"...)) }},
	{"stalls inside a ping", func(p *peer) { p.Write(append(header(opPing, 100), "ab"...)) }},
	{"stalls inside its close frame", func(p *peer) { p.Write(header(opClose, 2)) }},
	{"stalls between fragments", func(p *peer) { p.Write(fragments("ab", "")[:8]) }},
	{"reads a byte at a time", func(p *peer) {
		for b := make([]byte, 1); ; pause() {
			if _, err := p.Read(b); err != nil {
				return
			}
		}
	}},
	{"sends a byte at a time", func(p *peer) {
		for _, b := range frame(opText, strings.Repeat("x", 4000)) {
			if _, err := p.Write([]byte{b}); err != nil {
				return
			}
			pause()
		}
	}},
	{"goes on sending", func(p *peer) { flood(p, frame(opText, strings.Repeat("x", 3000))) }},
	{"goes on sending after its close", func(p *peer) {
		p.Write(frame(opClose, closing(1000, "")))
		flood(p, frame(opText, "late"))
	}},
	{"goes on pinging and never reads", func(p *peer) { flood(p, frame(opPing, strings.Repeat("x", 125))) }},
	{"breaks the protocol", func(p *peer) { p.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) }},
	{"does not mask", func(p *peer) { p.Write([]byte{0x81, 1, 'x'}) }},
	{"closes its half", func(p *peer) { p.Conn.(*net.TCPConn).CloseWrite() }},
	{"resets", func(p *peer) {
		p.Conn.(*net.TCPConn).SetLinger(0)
		p.Close()
	}},
}

func pause() { <-time.After(10 * time.Millisecond) }

func flood(p *peer, f []byte) {
	for {
		if _, err := p.Write(f); err != nil {
			return
		}
	}
}

// ends are the ways in which a server can end a connection.
var ends = []struct {
	name string
	end  func(conn transports.Conn)
}{
	{"close", func(conn transports.Conn) { conn.Close(1001, "stopping") }},
	{"close beside a reader", func(conn transports.Conn) {
		together(func() { read(conn) }, func() { conn.Close(1001, "stopping") })
	}},
	{"close beside a reader and a blocked writer", func(conn transports.Conn) {
		together(func() { read(conn) }, func() { write(conn) }, func() { conn.Close(1001, "stopping") })
	}},
	{"close after a reader's context", func(conn transports.Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		for {
			if _, err := conn.Read(ctx); err != nil {
				break
			}
		}
		conn.Close(1001, "stopping")
	}},
	{"abort beside a reader and a blocked writer", func(conn transports.Conn) {
		together(func() { read(conn) }, func() { write(conn) }, func() { conn.Abort() })
	}},
	{"close twice and abort", func(conn transports.Conn) {
		together(func() { conn.Close(1001, "one") }, func() { conn.Close(1001, "two") }, func() { conn.Abort() })
	}},
}

func together(all ...func()) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, f := range all {
		wg.Go(f)
	}
}

func read(conn transports.Conn) {
	for {
		if _, err := conn.Read(context.Background()); err != nil {
			return
		}
	}
}

func write(conn transports.Conn) {
	for big := make([]byte, 1<<20); conn.Write(context.Background(), big) == nil; {
	}
}

// For every combination of hostile and ends, the connection has ended after the
// grace, and all calls on it have returned. The combinations run in parallel.
func TestBoundedEnd(t *testing.T) {
	onEach(t, brief, func(t *testing.T, s stage) {
		before := runtime.NumGoroutine()
		accepted := make(chan transports.Conn, 1)
		server := httptest.NewServer(s.handler(t, accepted))
		var wg sync.WaitGroup
		for _, peerRow := range hostile {
			for _, endRow := range ends {
				raw, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				p := hello(t, raw)
				conn := <-accepted
				wg.Go(func() {
					defer p.Close()
					meet(t, peerRow.name+"/"+endRow.name, conn, p, peerRow.act, endRow.end)
				})
			}
		}
		wg.Wait()
		server.Close()
		for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(end) {
				buf := make([]byte, 1<<16)
				t.Fatalf("goroutines are left:\n%s", buf[:runtime.Stack(buf, true)])
			}
		}
	})
}

func meet(t *testing.T, name string, conn transports.Conn, p *peer, act func(*peer), end func(transports.Conn)) {
	acted, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(acted); act(p) }()
	go func() { defer close(ended); end(conn) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Errorf("%s: no end", name)
		return
	}
	if _, err := conn.Read(context.Background()); err == nil {
		t.Errorf("%s: a message could be read after the end", name)
	}
	if err := conn.Write(context.Background(), []byte("late")); err == nil {
		t.Errorf("%s: a message could be written after the end", name)
	}
	conn.Close(1000, "again")
	_ = p.SetDeadline(time.Unix(1, 0)) // a slow reader would need hours for the bytes that are still buffered
	<-acted
	_ = p.SetDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, p); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the socket is still open", name)
	}
}
