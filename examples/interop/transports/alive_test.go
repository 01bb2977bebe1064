package transports_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// reading reads messages of both kinds until an error, and returns a channel of
// it.
func reading(conn transports.Conn) <-chan error {
	end := make(chan error, 1)
	go func() {
		for {
			if _, _, err := conn.ReadMessage(context.Background()); err != nil {
				end <- err
				return
			}
		}
	}()
	return end
}

// A peer that answers pings stays connected, and one that stops is dropped ten
// seconds after the next ping.
func TestDeadPeerIsNoticed(t *testing.T) {
	onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
		s.inBubble(t, func(t *testing.T, conn transports.Conn, p *peer) {
			end := reading(conn)
			for i := range 3 {
				if got, err := p.recv(); err != nil || got.op != opPing || time.Since(start) != time.Duration(i+1)*30*time.Second {
					t.Fatalf("%v %v after %v", got, err, time.Since(start))
				}
				if i < 2 {
					p.Write(frame(opPong, ""))
				}
			}
			err := <-end
			if !errors.Is(err, wsconn.ErrUnresponsive) && !errors.Is(err, wsadapter.ErrUnresponsive) || time.Since(start) != 100*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
}

// Frames that deliver nothing have a budget.
func TestFloods(t *testing.T) {
	for _, row := range []struct {
		why     string
		frames  []byte
		flooded bool
	}{
		{"pings", bytes.Repeat(frame(opPing, "x"), 101), true},
		{"as many pings as may be", bytes.Repeat(frame(opPing, "x"), 100), false},
		{"pongs that no one asked for", bytes.Repeat(frame(opPong, ""), 101), true},
		{"empty fragments", bytes.Repeat(fragments("", "")[:6], 101), true},
		{"messages", bytes.Repeat(frame(opText, ""), 1000), false},
	} {
		if row.why == "empty fragments" {
			for i := 6; i < len(row.frames); i += 6 {
				row.frames[i] = 0 // continues
			}
		}
		onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
			s.inBubble(t, func(t *testing.T, conn transports.Conn, p *peer) {
				end := reading(conn)
				code := make(chan answer, 1)
				go func() {
					for {
						if got, err := p.recv(); err != nil || got.op == opClose {
							code <- got
							return
						}
					}
				}()
				p.Write(row.frames)
				synctest.Wait()
				want := answer{opClose, closing(1000, "")}
				select {
				case err := <-end:
					want.payload = closing(1008, "")
					if !row.flooded || !errors.Is(err, wsconn.ErrFlooded) && !errors.Is(err, wsadapter.ErrFlooded) {
						t.Errorf("%s: %v", row.why, err)
					}
				default:
					if row.flooded {
						t.Errorf("%s: still open", row.why)
					}
				}
				go conn.Close(1000, "")
				if got := <-code; got != want {
					t.Errorf("%s: %v, want %v", row.why, got, want)
				}
			})
		})
	}
}

// Both kinds of message go both ways. Their limit is the same, and only a text
// must be UTF-8.
func TestBinary(t *testing.T) {
	big := strings.Repeat("\xff", 4096)
	onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
		s.inBubble(t, func(t *testing.T, conn transports.Conn, p *peer) {
			var err error
			go func() {
				defer conn.Close(1000, "")
				for {
					var data []byte
					var binary bool
					if data, binary, err = conn.ReadMessage(t.Context()); err != nil {
						return
					}
					send := conn.Write
					if binary {
						send = conn.WriteBinary
					}
					if send(t.Context(), data) != nil {
						return
					}
				}
			}()
			split := fragments("\xff", "\x00")
			split[0] = opBinary
			got := p.converse(t, slices.Concat(frame(opText, "hi"), frame(opBinary, big), split, frame(opText, "é"), frame(opBinary, big+"x")), true)
			want := []answer{{opText, "hi"}, {opBinary, big}, {opBinary, "\xff\x00"}, {opText, "é"}, farewell}
			if !slices.Equal(got, want) || !errors.Is(err, wsauth.ErrTooBig) {
				t.Errorf("%.99q, %v", got, err)
			}
		})
	})
}

// A gate without messages of its own passes the application's, both kinds and
// whatever they look like, once the service has recognized the user.
func TestApplicationMessages(t *testing.T) {
	gate, err := wsauth.New(wsauth.Config{Dialect: wsauth.NoDialect{}})
	if err != nil {
		t.Fatal(err)
	}
	sent := []answer{{opText, "hi"}, {opText, `{"token":"a.b.c"}`}, {opBinary, "\xff"}}
	onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
		s.inBubble(t, func(t *testing.T, conn transports.Conn, p *peer) {
			session, err := gate.AttachIdentity(t.Context(), conn, wsauth.Peer{}, wsauth.Identity{
				Subject: "alice", IssuedAt: start, ExpiresAt: start.Add(time.Hour),
			})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for _, m := range sent {
					p.Write(frame(m.op, m.payload))
				}
			}()
			for _, want := range sent {
				msg, binary, err := session.NextMessage(t.Context())
				if string(msg) != want.payload || binary != (want.op == opBinary) || err != nil {
					t.Errorf("%q, binary: %t, %v", msg, binary, err)
				}
			}
			go session.Close(1000, "")
			if got, err := p.recv(); got != farewell || err != nil {
				t.Error(got, err)
			}
			p.Write(goodbye)
		})
	})
}

// A close frame that is not allowed is a violation, and its text does not come
// back. (Half of a code is no code to gorilla.)
func TestInvalidCloses(t *testing.T) {
	for why, payload := range map[string]string{
		"a reserved code":        closing(1005, ""),
		"an unknown code":        closing(2999, ""),
		"a reason in bad UTF-8":  closing(1000, "\xff"),
		"a reason with a secret": closing(0, "secret"),
	} {
		onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
			s.inBubble(t, func(t *testing.T, conn transports.Conn, p *peer) {
				end := reading(conn)
				p.Write(frame(opClose, payload))
				got, err := p.recv()
				if err != nil || got.op != opClose || got.payload != closing(1002, "") && got.payload != closing(1007, "") {
					t.Errorf("%s: %v %v", why, got, err)
				}
				if err := <-end; !errors.Is(err, wsconn.ErrProtocol) && !errors.Is(err, wsadapter.ErrProtocol) {
					t.Errorf("%s: %v", why, err)
				}
			})
		})
	}
}
