package relay

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

// Several nodes publish each id once, also if the connections to the engine are
// cut meanwhile.
func TestNodesPublishOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		for _, nodes := range []int{1, 2, 4} {
			server := e.Start(t)
			proxy := redistest.Forward(t, server.Addr)
			const ids = 1000
			var logs []*history.Log
			for range nodes {
				engine, err := redislog.New(redislog.Config{Client: redistest.Client(t, proxy.Addr)})
				if err != nil {
					t.Fatal(err)
				}
				log, err := engine.Open(t.Context(), "room", history.Config{Keep: 2 * ids, Wake: -1})
				if err != nil {
					t.Fatal(err)
				}
				defer log.Close()
				logs = append(logs, log)
			}
			var done sync.WaitGroup
			var stored atomic.Int64
			for i, log := range logs {
				s := newTestSeen(t, log)
				done.Go(func() {
					for id := range ids {
						_, known, err := s.once(t.Context(), "pi-1", fmt.Sprint(id), false, publishing(log, false))
						if err != nil {
							t.Error(err)
							return
						}
						if !known {
							stored.Add(1)
						}
						if i == 0 && id%200 == 100 {
							proxy.Cut()
						}
					}
				})
			}
			done.Wait()
			if n := logs[0].Position().Seq(); stored.Load() != ids || n != ids {
				t.Errorf("%d nodes stored %d of %d ids, and the log has %d entries", nodes, stored.Load(), ids, n)
			}
		}
	})
}
