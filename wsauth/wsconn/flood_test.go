package wsconn_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

const opContinuation = 0x0

// part encodes a fragment that is not the last one.
func part(op byte, payload string) []byte {
	b := frame(op, payload)
	b[0] &^= 0x80
	return b
}

// long encodes an empty frame with a length of eight bytes, which no client
// needs and the library accepts.
func long(b []byte) []byte {
	return append([]byte{b[0], 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 0, 0, 0)
}

// What costs the server work and delivers nothing is bounded, however it is
// written; what delivers something, or was asked for, is not.
func TestFloods(t *testing.T) {
	begun := part(opText, "x")
	for _, row := range []struct {
		why     string
		first   []byte // before the frames
		frames  []byte // repeated
		n       int
		pause   time.Duration // between them
		flooded bool
	}{
		{"pings", nil, frame(opPing, ""), 101, 0, true},
		{"as many pings as may be", nil, frame(opPing, ""), 100, 0, false},
		{"pings with a payload", nil, frame(opPing, strings.Repeat("x", 125)), 101, 0, true},
		{"pongs that no one asked for", nil, frame(opPong, "x"), 101, 0, true},
		{"empty fragments", begun, part(opContinuation, ""), 101, 0, true},
		{"empty fragments in a long form", begun, long(part(opContinuation, "")), 101, 0, true},
		{"as many empty fragments as may be", begun, part(opContinuation, ""), 100, 0, false},
		{"pings between fragments", begun, append(part(opContinuation, ""), frame(opPing, "")...), 51, 0, true},
		{"pings between fragments that carry something", begun, append(part(opContinuation, "x"), frame(opPing, "")...), 101, 0, true},
		{"fragments that carry something", begun, part(opContinuation, "x"), 1000, 0, false},
		{"messages", nil, frame(opText, "x"), 1000, 0, false},
		{"empty messages", nil, frame(opText, ""), 1000, 0, false},
		{"a ping with each message", nil, append(frame(opPing, ""), frame(opText, "x")...), 1000, 0, false},
		{"two pings with each message", nil, append(frame(opPing, ""), append(frame(opPing, ""), frame(opText, "x")...)...), 300, 0, true},
		{"messages in fragments that begin or end empty", nil,
			bytes.Join([][]byte{part(opText, ""), part(opContinuation, "x"), frame(opContinuation, "")}, nil), 1000, 0, false},
		{"five pings a second", nil, frame(opPing, ""), 1000, 200 * time.Millisecond, false},
		{"ten pings a second", nil, frame(opPing, ""), 1000, 100 * time.Millisecond, true},
	} {
		for _, size := range []int{1, 7, 1 << 20} { // bytes in one write
			inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
				end := read(conn)
				codes := make(chan string, 1)
				go func() {
					code := ""
					for {
						op, payload, err := peer.recv()
						if err != nil {
							codes <- code
							return
						}
						if op == opClose {
							code = payload
						}
					}
				}()
				send := func(b []byte) (err error) {
					for len(b) > 0 && err == nil {
						n := min(size, len(b))
						_, err = peer.Write(b[:n])
						b = b[n:]
					}
					return err
				}
				err := send(row.first)
				if row.pause == 0 {
					err = send(bytes.Repeat(row.frames, row.n))
				} else {
					for i := 0; i < row.n && err == nil; i++ {
						time.Sleep(row.pause)
						err = send(row.frames)
					}
				}
				synctest.Wait()
				select {
				case err := <-end:
					if !row.flooded || !errors.Is(err, wsconn.ErrFlooded) {
						t.Errorf("%s, %d bytes at once: %v", row.why, size, err)
					}
				default:
					if row.flooded {
						t.Errorf("%s, %d bytes at once: still open, %v", row.why, size, err)
					}
				}
				conn.Close(1000, "")
				want := closing(1000, "")
				if row.flooded {
					want = closing(1008, "")
				}
				if got := <-codes; got != want {
					t.Errorf("%s, %d bytes at once: closed with %q, want %q", row.why, size, got, want)
				}
			})
		}
	}
}

// The answers to the server's own pings cost nothing, however often it asks.
func TestAnswersAreNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		up, err := wsconn.New(wsconn.Config{PingInterval: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := up.Accept(pipeWriter{httptest.NewRecorder(), ours}, upgradeRequest())
		if err != nil {
			t.Fatal(err)
		}
		end := read(conn)
		peer := &client{theirs, bufio.NewReader(theirs)}
		for range 1000 {
			wantFrame(t, peer, opPing, "")
			peer.send(t, opPong, "")
		}
		conn.Abort()
		if err := <-end; errors.Is(err, wsconn.ErrFlooded) {
			t.Error(err)
		}
	})
}

// The budget comes back while the client sends less.
func TestBudgetReturns(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		end := read(conn)
		go io.Copy(io.Discard, peer)
		for n := 100; n > 0; n = n * 9 / 10 {
			if _, err := peer.Write(bytes.Repeat(frame(opPong, "x"), n)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(n) * 200 * time.Millisecond / 2)
			peer.send(t, opText, "x")
			time.Sleep(time.Duration(n) * 200 * time.Millisecond / 2)
		}
		select {
		case err := <-end:
			t.Error(err)
		default:
		}
	})
}

// A client that floods after a close frame costs hardly anything until the
// grace is over, and a client with much in flight still gets its answer read.
func TestFloodAfterClose(t *testing.T) {
	for _, row := range []struct {
		why    string
		frame  []byte
		before string // what ends the connection
	}{
		{"messages", frame(opText, strings.Repeat("x", 3000)), ""},
		{"small messages", frame(opText, "x"), ""},
		{"pings", frame(opPing, ""), ""},
		{"pings after a flood of pings", frame(opPing, ""), string(bytes.Repeat(frame(opPing, ""), 101))},
		{"junk after a read that was interrupted in a frame", []byte(strings.Repeat("x", 4096)), "\x81"},
	} {
		several := bytes.Repeat(row.frame, 1+1000/len(row.frame))
		inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
			go io.Copy(io.Discard, peer)
			if row.before != "" {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				go peer.Write([]byte(row.before))
				if _, err := conn.Read(ctx); err == nil {
					t.Error(row.why, "read a message")
				}
			}
			sent := make(chan int)
			go func() {
				total := 0
				for {
					n, err := peer.Write(several)
					if total += n; err != nil {
						sent <- total
						return
					}
				}
			}()
			start := time.Now()
			conn.Close(1001, "")
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s: closed after %v", row.why, took)
			}
			if total := <-sent; total < 200<<10 || total > 2<<20 {
				t.Errorf("%s: read %d bytes after the close frame", row.why, total)
			}
		})
	}
}

// The budget depends on the frames and not on how they are cut into reads.
// plan says what the client sends: each byte is a kind of frame, and how many
// bytes travel together.
func FuzzFlood(f *testing.F) {
	f.Add([]byte("\x00\x00\x00"), uint8(1))
	f.Add(bytes.Repeat([]byte{0x00}, 101), uint8(3))
	f.Add(bytes.Repeat([]byte{0x01, 0x03}, 60), uint8(200))
	f.Add(bytes.Repeat([]byte{0x02, 0x04, 0x01}, 150), uint8(9))
	f.Fuzz(func(t *testing.T, plan []byte, chunk uint8) {
		var wire []byte
		inside, budget, flooded := false, 100, false
		for _, b := range plan {
			idle := true
			switch kind := b % 6; {
			case kind == 0:
				wire = append(wire, frame(opPing, strings.Repeat("x", int(b)%126))...)
			case kind == 1:
				wire = append(wire, frame(opPong, "")...)
			case !inside && kind < 4:
				wire, inside = append(wire, part(opText, "")...), true
			case !inside:
				wire, inside, idle = append(wire, part(opText, strings.Repeat("x", 1+int(b)))...), true, false
			case kind == 2:
				wire = append(wire, long(part(opContinuation, ""))...)
			case kind == 3:
				wire, idle = append(wire, part(opContinuation, "x")...), false
			default:
				wire, inside, idle = append(wire, frame(opContinuation, strings.Repeat("x", int(b)*int(kind-4)))...), false, false
				budget = min(budget+1, 100)
			}
			if idle {
				budget--
			}
			flooded = flooded || budget < 0
		}
		inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
			conn.SetReadLimit(1 << 30)
			end := read(conn)
			go io.Copy(io.Discard, peer)
			for rest := wire; len(rest) > 0; {
				n := min(len(rest), int(chunk)+1)
				if _, err := peer.Write(rest[:n]); err != nil {
					break
				}
				rest = rest[n:]
			}
			synctest.Wait()
			select {
			case err := <-end:
				if !flooded || !errors.Is(err, wsconn.ErrFlooded) {
					t.Errorf("ended with %v, flooded: %t", err, flooded)
				}
			default:
				if flooded {
					t.Error("still open")
				}
			}
		})
	})
}

// What arrives together with the handshake counts, too.
func TestFloodWithTheHandshake(t *testing.T) {
	leakCheck(t)
	got := make(chan error, 1)
	s := serve(t, brief, func(c *wsconn.Conn) {
		_, err := c.Read(context.Background())
		got <- err
		c.Close(1000, "")
	})
	conn := s.connect(t)
	io.WriteString(conn, handshake+string(bytes.Repeat(frame(opPing, ""), 101)))
	within(t, "the flood", func() {
		if err := <-got; !errors.Is(err, wsconn.ErrFlooded) {
			t.Error(err)
		}
	})
}
