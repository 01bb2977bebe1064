package wsconn_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// freezer is the connection of a process that is stopped at a moment for a
// time. As in such a process, a deadline that has passed meanwhile ends a read
// or write before it looks at the socket.
type freezer struct {
	net.Conn
	at, until time.Time // of the freeze
}

func (f *freezer) Read(b []byte) (int, error) {
	return f.run(func() (int, error) { return f.Conn.Read(b) })
}

func (f *freezer) Write(b []byte) (int, error) {
	return f.run(func() (int, error) { return f.Conn.Write(b) })
}

func (f *freezer) run(do func() (int, error)) (int, error) {
	n, err := do()
	if now := time.Now(); errors.Is(err, os.ErrDeadlineExceeded) && !now.Before(f.at) && now.Before(f.until) {
		time.Sleep(f.until.Sub(now))
	}
	return n, err
}

func frozen(t *testing.T, at, length time.Duration, f func(conn *wsconn.Conn, peer *client, start time.Time)) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		up, err := wsconn.New(wsconn.Config{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		conn, err := up.Accept(pipeWriter{httptest.NewRecorder(), &freezer{ours, start.Add(at), start.Add(at + length)}}, upgradeRequest())
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		defer conn.Abort()
		f(conn, &client{theirs, bufio.NewReader(theirs)}, start)
	})
}

// A client whose answer arrived while the process was stopped stays connected,
// and one that has not answered is still given up.
func TestFreeze(t *testing.T) {
	for _, row := range []struct {
		why        string
		at, length time.Duration // of the freeze; the ping is sent after 30 s
		answer     time.Duration // when the answer arrives, 0 for never
		dropped    time.Duration // 0: not
	}{
		{"answered while stopped", 31 * time.Second, time.Minute, time.Minute, 0},
		{"answered while stopped at the end of the time", 39500 * time.Millisecond, time.Hour, 40 * time.Minute, 0},
		{"answered just after", 31 * time.Second, time.Minute, 91*time.Second + 500*time.Millisecond, 0},
		{"not answered", 31 * time.Second, time.Minute, 0, 92 * time.Second},
		{"not answered, and not stopped", time.Hour, time.Minute, 0, 40 * time.Second},
		{"answered too late, and not stopped", time.Hour, time.Minute, 41 * time.Second, 40 * time.Second},
	} {
		frozen(t, row.at, row.length, func(conn *wsconn.Conn, peer *client, start time.Time) {
			end := make(chan error, 1)
			got := make(chan string, 1)
			go func() {
				for {
					msg, err := conn.Read(context.Background())
					if err != nil {
						end <- err
						return
					}
					got <- string(msg)
				}
			}()
			wantFrame(t, peer, opPing, "")
			var answering sync.WaitGroup
			defer answering.Wait()
			if row.answer > 0 {
				answering.Go(func() {
					time.Sleep(time.Until(start.Add(row.answer)))
					peer.Write(append(frame(opPong, ""), frame(opText, "hi")...))
				})
			}
			select {
			case msg := <-got:
				if msg != "hi" || row.dropped > 0 {
					t.Errorf("%s: got %q", row.why, msg)
				}
			case err := <-end:
				if after := time.Since(start); row.dropped == 0 || after != row.dropped || !errors.Is(err, wsconn.ErrUnresponsive) {
					t.Errorf("%s: dropped after %v: %v", row.why, after, err)
				}
			}
		})
	}
}

// A write that waited while the process was stopped goes on if the client has
// made room meanwhile.
func TestFrozenWrite(t *testing.T) {
	for _, reads := range []bool{true, false} {
		frozen(t, 5*time.Second, time.Minute, func(conn *wsconn.Conn, peer *client, start time.Time) {
			var reading sync.WaitGroup
			reading.Go(func() {
				if time.Sleep(66 * time.Second); reads {
					peer.recv()
				}
			})
			defer reading.Wait()
			err := conn.WriteFrame(wsconn.NewFrame([]byte("hello")))
			if after := time.Since(start); reads && err != nil || !reads && (!errors.Is(err, wsconn.ErrStalled) || after != 75*time.Second) {
				t.Errorf("reads: %t, after %v: %v", reads, after, err)
			}
		})
	}
}
