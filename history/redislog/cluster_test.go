package redislog_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

// The slot of a log moves to another master of the cluster, and then that
// master is killed.
func TestCluster(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		c := e.StartCluster(t, time.Second)
		join := func(cfg redislog.Config) *node {
			t.Helper()
			client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: c.Addrs(), DisableCache: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			return startWith(t, client, settings{Config: cfg})
		}
		// A move must not look like a failure, however slow the machine is.
		patient := redislog.Config{Timeout: 20 * time.Second, Check: 100 * time.Millisecond}
		a, b := join(patient), join(patient)
		erasing := patient
		erasing.Replicas = 1
		third := join(erasing)
		va, vb := watch(a, history.Oldest()), watch(b, history.Oldest())
		old := a.append("zero")

		const key = "{history:room}:log"
		to := (slices.Index(c.Servers, c.Owner(key)) + 1) % 3
		target, replica := c.Servers[to], c.Servers[to+3]
		p := publish(a)
		p.goesOn(20)
		c.Move(key, target)
		p.goesOn(20)
		want := "zero " + p.end()
		va.saw(want, 0, 0)
		vb.saw(want, 0, 0)
		if errs := p.failed(); len(errs) > 0 {
			t.Error("while the slot moved, appends failed:", errs)
		}
		for _, n := range []*node{a, b, third} {
			if states := n.state(); len(states) > 0 {
				t.Errorf("while the slot moved, a node was told %q", states)
			}
		}
		goesOn(b, old, want[len("zero "):], 0)
		redistest.Wait(t, "an erasure that the replica has", func() bool {
			p := third.append("secret")
			deleted, err := third.log.Delete(ctx0, p.Seq())
			if deleted != 1 || err != nil && !errors.Is(err, history.ErrNotErased) {
				t.Fatal("an erasure in a cluster:", deleted, err)
			}
			return err == nil
		})
		b.follows(third)

		replica.InStep(target.Addr)
		token := a.log.Position()
		target.Kill()
		after := newOnce(a)
		after.must(t, "after")
		after.must(t, "last")
		b.shows(want + " after last")
		goesOn(b, token, "after last", 0)
		if got := c.Owner(key); got != replica {
			t.Errorf("the log is at %s, want the replica %s", got.Addr, replica.Addr)
		}
	})
}
