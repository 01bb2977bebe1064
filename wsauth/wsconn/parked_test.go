package wsconn_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// A client that answers its pings stays parked, and one that does not is given
// up.
func TestParkedPings(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	cfg := orderly
	cfg.PingInterval, cfg.PongTimeout = 20*time.Millisecond, patience
	conn, peer := started(t, cfg)
	var done atomic.Bool
	if !conn.Park(func() {
		if !done.Load() {
			t.Error("woken")
		}
	}) {
		t.Fatal("not parked")
	}
	for i := range 200 { // more than the budget of unasked pongs
		wantFrame(t, peer, opPing, "")
		peer.Write(masked(opPong, fmt.Sprint(i)))
	}
	done.Store(true)
	_ = conn.Abort()

	for _, timeout := range []time.Duration{
		20 * time.Millisecond,
		70 * time.Millisecond, // more pings follow until then
	} {
		cfg.PongTimeout = timeout
		conn, peer = started(t, cfg)
		end := make(chan error, 1)
		if !conn.Park(func() {
			_, err := conn.Read(context.Background())
			end <- err
		}) {
			t.Fatal("not parked")
		}
		within(t, "giving it up", func() {
			if err := <-end; !errors.Is(err, wsconn.ErrUnresponsive) {
				t.Error(err)
			}
		})
		if _, err := io.Copy(io.Discard, peer); err != nil {
			t.Error(err)
		}
	}
}

// A client that reads nothing does not delay the answers to others.
func TestParkedStall(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	conns := make(chan *wsconn.Conn, 2)
	over := make(chan struct{})
	s := serve(t, wsconn.Config{SendBuffer: 16 << 10, WriteTimeout: time.Hour, PingInterval: time.Hour}, func(c *wsconn.Conn) {
		conns <- c
		<-over
		c.Abort()
	})
	t.Cleanup(func() { close(over) })
	full := s.dial(t)
	c := <-conns
	if !c.Park(func() {}) {
		t.Fatal("not parked")
	}
	for sent, err := true, error(nil); sent; {
		if sent, err = c.StartFrame(big, func(error) {}); err != nil {
			t.Fatal(err)
		}
	}
	other := s.dial(t)
	if c := <-conns; !c.Park(func() {}) {
		t.Fatal("not parked")
	}
	for i := range 50 {
		full.Write(masked(opPing, "unread"))
		other.Write(masked(opPing, fmt.Sprint(i)))
		wantFrame(t, other, opPong, fmt.Sprint(i))
	}
}

// Parked connections need no goroutines of their own, and their poller ends
// with the last of them. All of them can be closed at once.
func TestFiveHundredParked(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	const n = 500
	up, err := wsconn.New(orderly)
	if err != nil {
		t.Fatal(err)
	}
	conns, ends := make(chan *wsconn.Conn, n), make(chan error, n)
	s := &server{Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		if !conn.Park(func() {
			_, err := conn.Read(context.Background())
			ends <- err
		}) {
			t.Error("not parked")
		}
		conns <- conn
	}))}
	defer s.Close()
	before := runtime.NumGoroutine()
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = s.dial(t)
	}
	eventually(t, "goroutines to end", func() bool { return len(conns) == n && runtime.NumGoroutine() < before+10 })
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() { c.wantClose(t, 1001, "server stopping") })
	}
	for range n {
		conn := <-conns
		wg.Go(func() { conn.Close(1001, "server stopping") })
	}
	within(t, "closing them", func() {
		wg.Wait()
		for range n {
			if err := <-ends; !errors.Is(err, wsconn.ErrClosed) {
				t.Error(err)
			}
		}
	})
}

// A parked connection keeps nothing of its request, of net/http and of the
// library: no goroutine, and less than two kilobytes of heap, the sockets of
// both ends included.
func TestParkedMemory(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	const n, most = 500, 2 << 10
	up, err := wsconn.New(wsconn.Config{PingInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	parked := make(chan *wsconn.Conn, n)
	s := &server{Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		if conn.Park(func() {}) {
			parked <- conn
		}
	}))}
	defer s.Close()
	used := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before, goroutines := used(), runtime.NumGoroutine()
	var answer [12]byte
	for range n {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, handshake)
		if _, err := io.ReadFull(c, answer[:]); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all to be parked", func() bool { return len(parked) == n && runtime.NumGoroutine() < goroutines+10 })
	each := 0
	eventually(t, "the memory of the handshakes to be freed", func() bool { // pools are freed by the second collection
		each = (used() - before) / n
		return each < most
	})
	t.Logf("a parked connection and its client take %d bytes of heap", each)
	for range n {
		_ = (<-parked).Abort()
	}
}

// Connections are opened and ended in every way, so that the numbers of their
// descriptors are used again at once, while others are served. Nothing that
// arrives for one connection is read for another, and none is forgotten.
func TestDescriptorsAreUsedAgain(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	var number atomic.Int64
	stop := make(chan struct{})
	s := serve(t, brief, func(c *wsconn.Conn) {
		mine := number.Add(1)
		_ = c.Write(context.Background(), fmt.Append(nil, mine))
		for {
			msg, err := parked(c)
			if err != nil {
				_ = c.Close(1000, "")
				return
			}
			switch text := string(msg); text {
			case "abort":
				_ = c.Abort()
			case "close":
				_ = c.Close(1000, "")
			case "behind its back": // which is forbidden, and must not harm others
				go func() {
					_ = c.NetConn().Close()
					for number.Load() == mine { // the descriptor is used again, or nothing more comes
						select {
						case <-stop:
							_ = c.Abort()
							return
						default:
							runtime.Gosched()
						}
					}
					_ = c.Abort()
				}()
			case "while parked":
				go func() { _ = c.Abort() }()
			default:
				if text != fmt.Sprint(mine) {
					t.Errorf("connection %d got a message of %s", mine, text)
				}
				_ = c.Write(context.Background(), msg)
			}
		}
	})
	n := 300
	if testing.Short() {
		n = 50
	}
	var served, churning sync.WaitGroup
	for range 8 {
		c := s.dial(t)
		served.Go(func() {
			_, mine, _ := c.recv()
			for i := 0; ; i++ {
				select {
				case <-stop:
					c.Close()
					return
				default:
				}
				c.Write(append(masked(opPing, fmt.Sprint(i)), masked(opText, mine)...))
				wantFrame(t, c, opPong, fmt.Sprint(i))
				if op, got, err := c.recv(); op != opText || got != mine || err != nil {
					t.Errorf("connection %s got %d %q, %v", mine, op, got, err)
					return
				}
			}
		})
	}
	for w := range 4 {
		churning.Go(func() {
			for i := range n {
				c := s.dial(t)
				_, mine, _ := c.recv()
				c.Write(append(masked(opPing, "x"), masked(opText, mine)...))
				wantFrame(t, c, opPong, "x")
				wantFrame(t, c, opText, mine)
				switch (i + w) % 6 {
				case 0:
					c.Write(masked(opText, "abort"))
				case 1:
					c.Write(masked(opText, "close"))
				case 2:
					c.Write(masked(opText, "behind its back"))
				case 3:
					c.Write(masked(opText, "while parked"))
				case 4:
					_ = c.Conn.(*net.TCPConn).SetLinger(0)
				}
				if (i+w)%6 < 4 {
					_, _ = io.Copy(io.Discard, c)
				}
				c.Close()
			}
		})
	}
	within(t, "the churn", churning.Wait)
	close(stop)
	within(t, "the served", served.Wait)
}

// A parked session ends by its Gate, and a publisher can be parked when its
// permission has ended.
func TestParkedSession(t *testing.T) {
	needsPoller(t)
	leakCheck(t)
	gate, _ := newGate(t)
	sessions := make(chan *wsauth.Session, 1)
	s := serve(t, orderly, func(c *wsconn.Conn) {
		session := gate.Attach(c, wsauth.Peer{})
		sessions <- session
		defer session.Close(1000, "")
		for {
			woken := make(chan struct{})
			if session.Authorize(wsauth.Publish) != nil && c.Park(func() { close(woken) }) {
				<-woken
			}
			if _, err := session.Next(context.Background()); err != nil {
				return
			}
			if session.Authorize(wsauth.Publish) != nil {
				_ = session.Reply(context.Background(), []byte("watch"))
			}
		}
	})
	c := s.dial(t)
	session := <-sessions
	c.send(t, opText, `{"token":"`+sign(t, "pi-1", secret, time.Now())+`"}`)
	if _, answer, err := c.recv(); !strings.Contains(answer, "authenticated") {
		t.Fatal(answer, err)
	}
	gate.Revoke("pi-1", time.Now().Add(time.Hour))
	wantFrame(t, c, opText, `{"status":"viewer"}`)
	c.send(t, opText, `{"text":"x"}`)
	wantFrame(t, c, opText, "watch")
	c.Write(masked(opPing, "parked again"))
	wantFrame(t, c, opPong, "parked again")
	go session.Close(4401, "")
	c.wantClose(t, 4401, "")
}
