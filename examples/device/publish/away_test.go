package publish_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
)

// A relay that goes away says when the device may come back, up to five
// minutes, before and after it has accepted the token.
func TestComesBack(t *testing.T) {
	for _, row := range []struct {
		code   int
		reason string
		least  time.Duration
		most   time.Duration
		why    string
	}{
		{1001, "retry=1", time.Second, 2 * time.Second, "as the relay tells publishers"},
		{1001, "retry=40", 40 * time.Second, 41 * time.Second, "later"},
		{1001, "retry=0", 0, time.Second, "at once"},
		{1001, "retry=999999999", 5 * time.Minute, 5*time.Minute + time.Second, "bounded"},
		{1001, "retry=-7", 0, time.Second, "nonsense: the usual delay"},
		{1001, "server stopping", 0, time.Second, "an older relay"},
		{1013, "retry=40", 0, time.Second, "another code"},
	} {
		for _, accept := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipes()
				var at []time.Time
				srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					at = append(at, time.Now())
					conn, rw := upgrade(t, w, r)
					defer conn.Close()
					go func() {
						if accept {
							const text = `{"status":"authenticated"}`
							_, _ = conn.Write(append([]byte{0x81, byte(len(text))}, text...))
						}
						_, _ = conn.Write(append([]byte{0x88, byte(2 + len(row.reason)), byte(row.code >> 8), byte(row.code)}, row.reason...))
					}()
					_, _ = io.Copy(io.Discard, rw)
				})}
				served := make(chan struct{})
				go func() { defer close(served); _ = srv.Serve(ln) }()
				ctx, cancel := context.WithTimeout(t.Context(), row.most+500*time.Millisecond)
				defer cancel()
				transport := &http.Transport{DialContext: ln.dial}
				err := publish.Run(ctx, publish.Config{URL: "ws://relay.test/ws", Tokens: good, Source: &ticking{numbers{last: 1}, time.Hour}, Client: &http.Client{Transport: transport}})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				transport.CloseIdleConnections()
				_ = srv.Close()
				<-served
				time.Sleep(2 * time.Second)
				if len(at) < 2 || at[1].Sub(at[0]) < row.least || at[1].Sub(at[0]) > row.most {
					t.Errorf("%s, accepted %t: came back at %v", row.why, accept, at)
				}
			})
		}
	}
}
