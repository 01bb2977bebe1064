package wsadapter_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

func TestConfigProblems(t *testing.T) {
	_, err := wsadapter.New(wsadapter.Config{WriteTimeout: -1, CloseGrace: -1, PingInterval: -1, PongTimeout: -1, ReadLimit: -1})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatal(err)
	}
	var got []string
	for _, e := range joined.Unwrap() {
		problem, ok := errors.AsType[*wsadapter.ConfigError](e)
		if !ok || !errors.Is(e, wsauth.ConfigNegative) {
			t.Fatalf("untyped %v", e)
		}
		got = append(got, problem.Field)
	}
	want := []string{"Config.WriteTimeout", "Config.CloseGrace", "Config.PingInterval", "Config.PongTimeout", "Config.ReadLimit"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What Read and ReadMessage return for what the client sends, and what it gets
// as the answer to a Close that follows.
func TestRead(t *testing.T) {
	long, waits := strings.Repeat("x", 4096), context.DeadlineExceeded
	for _, row := range []struct {
		name   string
		send   []byte
		texts  []string // of Read
		err    error    // that ends it
		all    []string // of ReadMessage; nil: the same
		allErr error    // nil: the same
		code   int      // in the close frame
	}{
		{"a text", frame(opText, "hi"), []string{"hi"}, waits, nil, nil, 1000},
		{"fragments", slices.Concat(part(opText, "h"), frame(opContinuation, "i")), []string{"hi"}, waits, nil, nil, 1000},
		{"an empty text", frame(opText, ""), []string{""}, waits, nil, nil, 1000},
		{"as big as may be", frame(opText, long), []string{long}, waits, nil, nil, 1000},
		{"too big", frame(opText, long+"x"), nil, wsauth.ErrTooBig, nil, nil, 1000},
		{"too big in fragments", slices.Concat(part(opText, long), frame(opContinuation, "x")), nil, wsauth.ErrTooBig, nil, nil, 1000},
		{"too big, announced only", append(header(opText, 1<<40), long+"x"...), nil, wsauth.ErrTooBig, nil, nil, 1000},
		{"not UTF-8", frame(opText, "\xff"), nil, wsauth.ErrInvalidUTF8, nil, nil, 1000},
		{"binary", frame(opBinary, "\xff"), nil, wsauth.ErrBinary, []string{"\xff"}, waits, 1000},
		{"binary, the header only", header(opBinary, 100), nil, wsauth.ErrBinary, nil, waits, 1000},
		{"binary, too big", frame(opBinary, long+"x"), nil, wsauth.ErrBinary, nil, wsauth.ErrTooBig, 1000},
		{"a reserved opcode", frame(3, ""), nil, wsadapter.ErrProtocol, nil, nil, 1002},
		{"no mask", []byte{0x81, 1, 'x'}, nil, wsadapter.ErrProtocol, nil, nil, 1002},
	} {
		for _, binaries := range []bool{false, true} {
			want, wantErr := row.texts, row.err
			if binaries && (row.all != nil || row.allErr != nil) {
				want, wantErr = row.all, row.allErr
			}
			t.Run(row.name, func(t *testing.T) {
				inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
					go peer.Write(row.send)
					closed := make(chan struct{})
					go func() {
						defer close(closed)
						peer.want(t, opClose, closing(row.code, ""))
					}()
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					var got []string
					var err error
					for err == nil {
						var msg []byte
						if binaries {
							msg, _, err = conn.ReadMessage(ctx)
						} else {
							msg, err = conn.Read(ctx)
						}
						if err == nil {
							got = append(got, string(msg))
						}
					}
					if !slices.Equal(got, want) || !errors.Is(err, wantErr) {
						t.Errorf("ReadMessage: %t: %.99q %v, want %.99q %v", binaries, got, err, want, wantErr)
					}
					if _, again := conn.Read(t.Context()); again != err {
						t.Errorf("then %v", again)
					}
					conn.Close(1000, "")
					<-closed
				})
			})
		}
	}
}

// A pong has the payload of the ping, and both kinds of message arrive.
func TestWrite(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		read(conn)
		peer.Write(frame(opPing, "one"))
		peer.want(t, opPong, "one")
		for _, n := range []int{0, 125, 126, 65535, 65536, 1 << 20} {
			text := strings.Repeat("x", n)
			go conn.Write(t.Context(), []byte(text))
			peer.want(t, opText, text)
		}
		go conn.WriteBinary(t.Context(), []byte("\xff"))
		peer.want(t, opBinary, "\xff")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := conn.Write(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A client closes with each code. It gets the code back once, without its
// reason, and Read returns the code without the client's text.
func TestClientCloses(t *testing.T) {
	for _, row := range []struct {
		payload string
		want    error
		answer  string
	}{
		{"", &wsadapter.CloseError{Code: 1005}, ""},
		{closing(1000, "bye"), &wsadapter.CloseError{Code: 1000}, closing(1000, "")},
		{closing(4999, ""), &wsadapter.CloseError{Code: 4999}, closing(4999, "")},
		{closing(1000, "\xff"), wsadapter.ErrProtocol, closing(1007, "")},
	} {
		inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
			end := read(conn)
			peer.Write(slices.Concat(frame(opClose, row.payload), frame(opText, "late")))
			peer.want(t, opClose, row.answer)
			if err := <-end; err.Error() != row.want.Error() {
				t.Errorf("%q: %v, want %v", row.payload, err, row.want)
			}
			go conn.Close(1000, "")
			peer.wantEnd(t)
		})
	}
}

// A client that hangs up has not closed in order.
func TestClientHangsUp(t *testing.T) {
	inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		peer.Close()
		if _, err := conn.Read(t.Context()); err != io.EOF {
			t.Error(err)
		}
	})
}

func TestReadLimit(t *testing.T) {
	inBubble(t, wsadapter.Config{ReadLimit: 1}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		go peer.Write(slices.Concat(frame(opText, "x"), frame(opText, "xx"), frame(opText, "xxx")))
		if _, err := conn.Read(t.Context()); err != nil {
			t.Error(err)
		}
		conn.SetReadLimit(2)
		if _, err := conn.Read(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := conn.Read(t.Context()); !errors.Is(err, wsauth.ErrTooBig) {
			t.Error(err)
		}
	})
}

// Any number is a limit.
func TestOddReadLimits(t *testing.T) {
	for limit, want := range map[int64]error{math.MaxInt64: nil, math.MinInt64: wsauth.ErrTooBig, -1: wsauth.ErrTooBig} {
		inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
			conn.SetReadLimit(limit)
			go peer.Write(frame(opText, strings.Repeat("x", 1000)))
			if msg, err := conn.Read(t.Context()); !errors.Is(err, want) || (err == nil) != (len(msg) == 1000) {
				t.Error(limit, len(msg), err)
			}
		})
	}
}

// What arrived with the handshake is read first, and counts as a flood.
func TestEarlyData(t *testing.T) {
	inBubble(t, wsadapter.Config{}, string(frame(opText, "early")), func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		go peer.Write(frame(opText, "then"))
		for _, want := range []string{"early", "then"} {
			if msg, err := conn.Read(t.Context()); string(msg) != want || err != nil {
				t.Errorf("%q %v, want %q", msg, err, want)
			}
		}
	})
	flood := string(bytes.Repeat(frame(opPong, ""), 101))
	inBubble(t, wsadapter.Config{}, flood, func(t *testing.T, conn *wsadapter.Conn, peer *client) {
		end := read(conn)
		peer.want(t, opClose, closing(1008, ""))
		if err := <-end; !errors.Is(err, wsadapter.ErrFlooded) {
			t.Error(err)
		}
	})
}

// What delivers nothing is bounded; what delivers something, or was asked for,
// is not.
func TestFloods(t *testing.T) {
	begun := part(opText, "x")
	for _, row := range []struct {
		why     string
		first   []byte // before the frames
		frames  []byte // repeated
		n       int
		flooded bool
	}{
		{"pings", nil, frame(opPing, "x"), 101, true},
		{"as many pings as may be", nil, frame(opPing, "x"), 100, false},
		{"pongs that no one asked for", nil, frame(opPong, "x"), 101, true},
		{"empty fragments", begun, part(opContinuation, ""), 101, true},
		{"fragments that carry something", begun, part(opContinuation, "x"), 1000, false},
		{"messages", nil, frame(opText, ""), 1000, false},
		{"a ping with each message", nil, slices.Concat(frame(opPing, ""), frame(opText, "x")), 1000, false},
	} {
		t.Run(row.why, func(t *testing.T) {
			inBubble(t, wsadapter.Config{}, "", func(t *testing.T, conn *wsadapter.Conn, peer *client) {
				end := read(conn)
				code := make(chan string, 1)
				go func() {
					for {
						if op, payload, err := peer.recv(); err != nil || op == opClose {
							code <- payload
							io.Copy(io.Discard, peer)
							return
						}
					}
				}()
				peer.Write(append(row.first, bytes.Repeat(row.frames, row.n)...))
				synctest.Wait()
				select {
				case err := <-end:
					if !row.flooded || !errors.Is(err, wsadapter.ErrFlooded) {
						t.Error(err)
					}
				default:
					if row.flooded {
						t.Error("still open")
					}
				}
				start := time.Now()
				conn.Close(1000, "") // for whose answer the client has all of the grace
				wantElapsed(t, start, time.Second)
				want := closing(1000, "")
				if row.flooded {
					want = closing(1008, "")
				}
				if got := <-code; got != want {
					t.Errorf("closed with %q, want %q", got, want)
				}
			})
		})
	}
}

// Without the net.Conn, no bound could be kept, so nothing works.
func TestOtherResponseWriter(t *testing.T) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range forms {
		inBubble(t, wsadapter.Config{}, "", func(t *testing.T, _ *wsadapter.Conn, _ *client) {
			raw := &closable{}
			conn := form.adapt(adapter.Wrap(httptest.NewRecorder()), &library{Conn: raw})
			if _, err := conn.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "Adapter.Wrap") {
				t.Error(err)
			}
			if err := conn.Write(t.Context(), nil); !errors.Is(err, wsadapter.ErrClosed) {
				t.Error(err)
			}
			conn.Close(1000, "")
			if !raw.closed {
				t.Error("the connection of the library is open")
			}
		})
	}
}
