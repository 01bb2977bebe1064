package transports_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// After the server has sent its close frame, neither a blocked Read nor a later
// one delivers a message. The wait ends when the peer answers the close frame.
func TestNothingAfterClose(t *testing.T) {
	onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
		s.inBubble(t, func(t *testing.T, conn transports.Conn, p *peer) {
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					msg, err := conn.Read(t.Context())
					if err != nil {
						return
					}
					t.Errorf("delivered %q", msg)
				}
			})
			wg.Go(func() {
				time.Sleep(time.Millisecond)
				conn.Close(1001, strings.Repeat("é", 70))
			})
			got, err := p.recv()
			// A reason in a close frame has at most 123 bytes, here 61 whole
			// characters.
			if want := (answer{opClose, closing(1001, strings.Repeat("é", 61))}); got != want || err != nil {
				t.Errorf("%q %v", got, err)
			}
			late := slices.Concat(frame(opText, "late"), frame(opBinary, "late"), fragments("la", "te"))
			rest := p.converse(t, append(late, frame(opClose, closing(1001, ""))...), false)
			if len(rest) > 0 {
				t.Errorf("after the close frame: %q", rest)
			}
			wg.Wait()
			if elapsed := time.Since(start); elapsed != time.Millisecond {
				t.Errorf("the end came after %v", elapsed)
			}
		})
	})
}

// After the end of a Read's context, the server can still send to the peer.
func TestReadContext(t *testing.T) {
	onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
		s.inBubble(t, func(t *testing.T, conn transports.Conn, p *peer) {
			over := make(chan struct{})
			go func() {
				defer close(over)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				for range 2 {
					if _, err := conn.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
				}
				if err := conn.Write(t.Context(), []byte("too late")); err != nil {
					t.Error(err)
				}
				conn.Close(1001, "")
			}()
			for _, want := range []answer{{opText, "too late"}, {opClose, closing(1001, "")}} {
				if got, err := p.recv(); got != want || err != nil {
					t.Errorf("%q %v, want %q", got, err, want)
				}
			}
			if _, err := p.Write(frame(opClose, closing(1001, ""))); err != nil {
				t.Errorf("the server did not wait for the answer to the close frame: %v", err)
			}
			<-over
			if elapsed := time.Since(start); elapsed > 5*time.Second+grace {
				t.Errorf("the end came after %v", elapsed)
			}
		})
	})
}

// If the peer does not accept a write, the connection ends, and all blocked
// calls return.
func TestStalledWrite(t *testing.T) {
	onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
		s.inBubble(t, func(t *testing.T, conn transports.Conn, _ *peer) {
			if err := conn.Write(t.Context(), []byte("hello")); err == nil {
				t.Error("written to a peer that does not read")
			}
			if _, err := conn.Read(t.Context()); err == nil {
				t.Error("read from a connection that is gone")
			}
			if elapsed := time.Since(start); elapsed != 10*time.Second {
				t.Errorf("after %v", elapsed)
			}
			conn.Close(1000, "")
		})
	})
}
