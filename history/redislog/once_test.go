package redislog_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

// Several nodes have the same messages, and append each only once.
func TestOnceOverNodes(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		for _, count := range []int{1, 2, 4} {
			server := e.Start(t)
			s := settings{log: history.Config{Keep: 5000}}
			const ids = 1000
			made := make([][]string, count)
			var nodes []*node
			var group sync.WaitGroup
			for range count {
				nodes = append(nodes, start(t, server.Addr, s))
			}
			for i, n := range nodes {
				group.Go(func() {
					one := newOnce(n)
					for id := range ids {
						text := fmt.Sprint(id)
						mine, err := one.append(ctx0, text)
						if err != nil {
							t.Error(err)
							return
						}
						if mine {
							made[i] = append(made[i], text)
						}
					}
				})
			}
			group.Wait()
			var want []string
			for id := range ids {
				want = append(want, fmt.Sprint(id))
			}
			for _, n := range nodes {
				n.follows(nodes[0])
			}
			if got := nodes[0].texts(); got != strings.Join(want, " ") {
				t.Errorf("%d nodes made of %d messages %q", count, ids, got)
			}
			all := slices.Concat(made...)
			slices.Sort(all)
			slices.Sort(want)
			if !slices.Equal(all, want) {
				t.Errorf("%d nodes say that they made %d of %d messages", count, len(all), ids)
			}
		}
	})
}

// The answer of the engine is lost, and the change is asked for again: at the
// same engine, or at a replica that was promoted meanwhile.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	changes := []struct {
		why    string
		change func(*node) error
		want   string
		resets int
	}{
		{"an append", func(n *node) error { return one(n.log.Append(ctx0, []byte("new"))) }, "one two new", 0},
		{"at a position, which the log has left by the change itself", func(n *node) error {
			return one(n.log.AppendAfter(ctx0, n.log.Position(), []byte("new")))
		}, "one two new", 0},
		{"appends that travel together", func(n *node) error {
			errs := make([]error, 30)
			var group sync.WaitGroup
			for i := range errs {
				group.Go(func() { errs[i] = one(n.log.Append(ctx0, []byte("new"))) })
			}
			group.Wait()
			for _, err := range errs {
				if err != nil {
					return err
				}
			}
			return nil
		}, "one two" + strings.Repeat(" new", 30), 0},
		{"an erasure: the second time, nothing is there to erase", func(n *node) error {
			deleted, err := n.log.Delete(ctx0, 1)
			if err == nil && deleted != 1 {
				err = fmt.Errorf("deleted %d", deleted)
			}
			return err
		}, "two", 1},
		{"a replacement", func(n *node) error { return one(n.log.Replace(ctx0, []byte("note"), []byte("new"))) }, "new", 1},
	}
	for _, promoted := range []bool{false, true} {
		for _, test := range changes {
			t.Run(fmt.Sprintf("%s/promoted=%v", test.why, promoted), func(t *testing.T) {
				t.Parallel()
				master := redistest.Start(t)
				replica := master
				if promoted {
					replica = redistest.Replica(t, master.Addr)
				}
				proxy := redistest.Forward(t, master.Addr)
				// The change must not end before the connections are cut.
				a := startWith(t, redistest.Pipelined(t, proxy.Addr), settings{Config: redislog.Config{Timeout: time.Minute}})
				v := watch(a, history.Oldest())
				a.append("one", "two")
				v.saw("one two", 0, 0)
				before := master.Do("HGET", "{history:room}:head", "last") + master.Do("HGET", "{history:room}:head", "epoch")

				proxy.HoldAnswers()
				done := make(chan error, 1)
				go func() { done <- test.change(a) }()
				redistest.Wait(t, "a change in the engine", func() bool {
					return master.Do("HGET", "{history:room}:head", "last")+master.Do("HGET", "{history:room}:head", "epoch") != before
				})
				if promoted {
					replica.InStep(master.Addr)
					master.Kill()
					replica.Promote()
					proxy.Target(replica.Addr)
				}
				select {
				case err := <-done:
					t.Fatal("the change ended without an answer:", err)
				default:
				}
				proxy.Cut()
				proxy.Release()
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(30 * time.Second):
					t.Fatal("the change does not end")
				}
				v.saw(test.want, test.resets, 0)
				if a.engine.Stats().Retries == 0 {
					t.Error("the answer was not lost")
				}
				a.append("last")
				v.saw(test.want+" last", test.resets, 0)
				start(t, replica.Addr, settings{}).shows(test.want + " last")
			})
		}
	}
}

// one is the error of a call.
func one(_ history.Position, err error) error { return err }
