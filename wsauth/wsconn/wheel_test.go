package wsconn_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// Clients that connect at once, as after a restart, are not pinged at once. No
// client waits longer than PingInterval for a ping. It may wait less long, but
// only once.
func TestPingsAreSpread(t *testing.T) {
	const n, span = 600, 10 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		up, err := wsconn.New(wsconn.Config{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var mu sync.Mutex
		pings := make([][]time.Duration, n) // of each client, since start
		var conns []*wsconn.Conn
		for i := range n {
			ours, theirs := net.Pipe()
			conn, err := up.Accept(pipeWriter{httptest.NewRecorder(), ours}, upgradeRequest())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			go func() {
				_, _ = conn.Read(context.Background())
			}()
			go func() {
				peer := &client{theirs, bufio.NewReader(theirs)}
				for {
					if _, _, err := peer.recv(); err != nil {
						return
					}
					mu.Lock()
					pings[i] = append(pings[i], time.Since(start))
					mu.Unlock()
					_, _ = peer.Write(frame(opPong, ""))
				}
			}()
		}
		time.Sleep(span)
		mu.Lock()
		defer mu.Unlock()
		at := make(map[time.Duration]int)
		for i, times := range pings {
			last, early := time.Duration(0), 0
			for _, when := range append(times, span) {
				gap := when - last
				if when < span && gap < 30*time.Second {
					early++
				}
				if gap > 30*time.Second || early > 1 {
					t.Fatalf("client %d was pinged at %v, and then at %v", i, last, when)
				}
				last = when
				at[when]++
			}
		}
		delete(at, span)
		for when, count := range at {
			if count > n/30+n/30/2 { // one and a half times the even share of a second
				t.Errorf("%d pings at %v", count, when)
			}
		}
		for _, c := range conns {
			_ = c.Abort()
		}
	})
}

// The times of a connection are kept although the Upgrader had none for a
// while, and whatever the ratio of the two times.
func TestWheelAgain(t *testing.T) {
	for _, cfg := range []wsconn.Config{
		{},
		{PingInterval: time.Hour, PongTimeout: time.Second},
		{PingInterval: time.Second, PongTimeout: 500 * time.Millisecond},
		{PingInterval: 24 * time.Hour, PongTimeout: 12 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			up, err := wsconn.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			interval := cfg.PingInterval
			if interval == 0 {
				interval = 30 * time.Second
			}
			for range 3 {
				ours, theirs := net.Pipe()
				conn, err := up.Accept(pipeWriter{httptest.NewRecorder(), ours}, upgradeRequest())
				if err != nil {
					t.Fatal(err)
				}
				read(conn)
				start := time.Now()
				peer := &client{theirs, bufio.NewReader(theirs)}
				for range 3 {
					wantFrame(t, peer, opPing, "")
					peer.send(t, opPong, "")
				}
				if passed := time.Since(start); passed < 3*interval || passed > 3*interval+3*interval/30 {
					t.Errorf("three pings of %v took %v", interval, passed)
				}
				_ = conn.Abort()
				time.Sleep(1000 * time.Hour)
			}
		})
	}
}

// A client that answers no ping is given up PongTimeout after the first of
// them, although more follow until then.
func TestPingsDoNotExtendTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, err := wsconn.New(wsconn.Config{PingInterval: 10 * time.Second, PongTimeout: 25 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		conn, err := up.Accept(pipeWriter{httptest.NewRecorder(), ours}, upgradeRequest())
		if err != nil {
			t.Fatal(err)
		}
		end := read(conn)
		peer := &client{theirs, bufio.NewReader(theirs)}
		wantFrame(t, peer, opPing, "")
		start := time.Now()
		for range 2 {
			wantFrame(t, peer, opPing, "")
		}
		if err := <-end; !errors.Is(err, wsconn.ErrUnresponsive) {
			t.Error(err)
		}
		wantElapsed(t, start, 25*time.Second)
	})
}
