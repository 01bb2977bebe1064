package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth"
)

// Several servers that share a log publish each id once, whichever of them the
// device shows it to.
func TestServersPublishOnce(t *testing.T) {
	for _, servers := range []int{1, 2, 4} {
		log, err := history.Open(t.Context(), history.Config{Keep: 5000})
		if err != nil {
			t.Fatal(err)
		}
		const ids = 250 // fewer than a restart signal carries
		var done sync.WaitGroup
		var stored atomic.Int64
		for range servers {
			s := newTestSeen(t, log)
			done.Go(func() {
				for id := range ids {
					_, known, err := s.once(t.Context(), "pi-1", fmt.Sprint(id), id%100 == 99, publishing(log, id%100 == 99))
					if err != nil {
						t.Error(err)
					}
					if !known {
						stored.Add(1)
					}
				}
			})
		}
		done.Wait()
		if n := log.Position().Seq(); stored.Load() != ids || n != ids-2 {
			t.Errorf("%d servers stored %d of %d ids, and the log has %d entries", servers, stored.Load(), ids, n)
		}
	}
}

// flaky is a store that fails a number of times.
type flaky struct {
	failing
	left *int
}

func (f flaky) Append(context.Context, history.Entry) error {
	if *f.left--; *f.left >= 0 {
		return errDisk
	}
	return nil
}

// closing is a publisher that notes how its connection is closed.
type closing struct {
	leaving
	code int
}

func (c *closing) Write(context.Context, []byte) error { return nil }

func (c *closing) Close(code int, _ string) error {
	c.code = code
	return nil
}

// A relay with patience tries again, and tells the publisher to come back later
// if that does not help.
func TestPatience(t *testing.T) {
	for _, row := range []struct {
		why      string
		patience time.Duration
		failures int
		message  string
		stored   uint64
		code     int
	}{
		{"the log comes back", 10 * time.Second, 5, `{"text":"a","id":"1"}`, 1, 0},
		{"also for a message without an id", 10 * time.Second, 5, `{"text":"a"}`, 1, 0},
		{"the log does not come back", 10 * time.Second, 1000, `{"text":"a","id":"1"}`, 0, codeTryLater},
		{"without patience", 0, 1, `{"text":"a","id":"1"}`, 0, codeInternal},
	} {
		synctest.Test(t, func(t *testing.T) {
			log, err := history.Open(t.Context(), history.Config{Store: flaky{left: &row.failures}})
			if err != nil {
				t.Fatal(err)
			}
			r, token := newTestRelay(t, Config{Log: log, Patience: row.patience})
			peer := &closing{leaving: leaving{messages: [][]byte{[]byte(`{"token":"` + token + `"}`), []byte(row.message)}}}
			session := r.cfg.Gate.Attach(peer, wsauth.Peer{})
			began := time.Now()
			_, err = r.read(&viewer{session: session, blind: true}, false)
			if n := log.Position().Seq(); err == nil || n != row.stored || peer.code != row.code {
				t.Errorf("%s: %d stored, closed with %d (%v)", row.why, n, peer.code, err)
			}
			if waited := time.Since(began); waited > row.patience {
				t.Errorf("%s: waited %v", row.why, waited)
			}
			if retried := r.Stats().Retried > 0; retried != (row.patience > 0) {
				t.Errorf("%s: tried again is %v", row.why, retried)
			}
			session.Close(1000, "")
			_ = r.Shutdown(t.Context())
		})
	}
}

// A relay that stops does not wait for a log that fails.
func TestStopEndsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := 1000
		log, err := history.Open(t.Context(), history.Config{Store: flaky{left: &many}})
		if err != nil {
			t.Fatal(err)
		}
		r, token := newTestRelay(t, Config{Log: log, Patience: time.Hour})
		peer := &closing{leaving: leaving{messages: [][]byte{[]byte(`{"token":"` + token + `"}`), []byte(`{"text":"a","id":"1"}`)}}}
		session := r.cfg.Gate.Attach(peer, wsauth.Peer{})
		ended := make(chan error)
		go func() { _, err := r.read(&viewer{session: session, blind: true}, false); ended <- err }()
		time.Sleep(time.Minute)
		_ = r.Shutdown(t.Context())
		if err := <-ended; !errors.Is(err, errDisk) {
			t.Error(err)
		}
		session.Close(1000, "")
	})
}

// elsewhere is a Shared from which the revocations come after a while.
type elsewhere struct {
	wsauth.Shared
	after   time.Duration
	revoked map[string]time.Time
}

func (e *elsewhere) Join(context.Context, wsauth.SessionInfo, int, wsauth.OverLimit) ([]string, bool, error) {
	return nil, true, nil
}
func (e *elsewhere) Leave(string) {}

func (e *elsewhere) Follow(ctx context.Context, apply func(wsauth.SharedState)) {
	for wait := e.after; ; wait = time.Second / 4 {
		select {
		case <-time.After(wait):
			apply(wsauth.SharedState{Revoked: e.revoked, AsOf: time.Now()})
		case <-ctx.Done():
			return
		}
	}
}

// While a publisher may have been revoked on another server, its message waits.
// It is neither stored nor refused before that is known.
func TestPatienceForRevocations(t *testing.T) {
	for _, row := range []struct {
		why     string
		after   time.Duration
		revoked bool
		stored  uint64
		code    int
	}{
		{"known at once", 0, false, 1, 0},
		{"known later", 5 * time.Second, false, 1, 0},
		{"known later, and revoked", 5 * time.Second, true, 0, 0},
		{"not known in time", time.Hour, true, 0, codeTryLater},
	} {
		synctest.Test(t, func(t *testing.T) {
			log, err := history.Open(t.Context(), history.Config{})
			if err != nil {
				t.Fatal(err)
			}
			others := &elsewhere{after: row.after}
			if row.revoked {
				others.revoked = map[string]time.Time{"pi-1": time.Now().Add(time.Second)}
			}
			r, token := newSharedRelay(t, Config{Log: log, Patience: 10 * time.Second}, others)
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { r.cfg.Gate.Run(ctx) })
			peer := &closing{leaving: leaving{messages: [][]byte{[]byte(`{"token":"` + token + `"}`), []byte(`{"text":"a","id":"1"}`)}}}
			session := r.cfg.Gate.Attach(peer, wsauth.Peer{})
			_, err = r.read(&viewer{session: session, blind: true}, false)
			if n := log.Position().Seq(); err == nil || n != row.stored || peer.code != row.code {
				t.Errorf("%s: %d stored, closed with %d (%v)", row.why, n, peer.code, err)
			}
			session.Close(1000, "")
			stop()
			running.Wait()
			_ = r.Shutdown(t.Context())
		})
	}
}
