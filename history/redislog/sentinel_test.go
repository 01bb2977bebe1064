package redislog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/internal/redistest"
)

// sentinelClient returns a client that asks the Sentinels for the master.
func sentinelClient(t testing.TB, s *redistest.Sentinels) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: s.Addrs, Sentinel: rueidis.SentinelOption{MasterSet: s.Name}, DisableCache: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// The Sentinels promote the replica, since the master is killed or stopped.
func TestSentinels(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why   string
		away  func(*redistest.Server)
		wakes bool
	}{
		{"the master is killed", (*redistest.Server).Kill, false},
		{"the master is stopped, and wakes as a second master", (*redistest.Server).Pause, true},
	} {
		t.Run(test.why, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, e redistest.Engine) {
				s := e.StartSentinels(t, time.Second)
				a, b := startWith(t, sentinelClient(t, s), quick()), startWith(t, sentinelClient(t, s), quick())
				va, vb := watch(a, history.Oldest()), watch(b, history.Oldest())
				stray := start(t, s.Master.Addr, quick()) // asks no Sentinel
				p := publish(a)
				p.goesOn(20)
				first := p.end()
				s.Replica.InStep(s.Master.Addr)
				token := a.log.Position()

				test.away(s.Master)
				if _, err := stray.log.Append(ctx0, []byte("lost")); !errors.Is(err, history.ErrUncertain) {
					t.Error("an append to the old master:", err)
				}
				after := newOnce(a)
				after.must(t, "next")
				va.saw(first+" next", 0, 0)
				vb.saw(first+" next", 0, 0)
				if got := s.Current(); got != s.Replica.Addr {
					t.Errorf("the Sentinels name the master %s, want %s", got, s.Replica.Addr)
				}
				want := first + " next last"
				if test.wakes {
					s.Master.Continue()
					// It stays a master until the Sentinels demote it, at least
					// eight seconds later.
					stray.eventually("lost")
					after.must(t, "woken")
					want = first + " next woken last"
					s.Master.Demote(s.Replica.Addr)
					s.Master.InStep(s.Replica.Addr)
				}
				after.must(t, "last")
				va.saw(want, 0, 0)
				vb.saw(want, 0, 0)
				goesOn(b, token, strings.TrimPrefix(want, first+" "), 0)
				if va.ever("lost") || vb.ever("lost") {
					t.Error("a viewer was shown what only the old master has")
				}
			})
		})
	}
}
