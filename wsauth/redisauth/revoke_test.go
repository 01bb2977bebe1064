package redisauth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/redisauth"
)

// A revocation on one node ends the permission on the other, and a node that is
// cut off publishes nothing before it knows what was revoked meanwhile.
func TestRevoke(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		link := redistest.Forward(t, server.Addr)
		a := start(t, server.Addr, settings{})
		b := start(t, link.Addr, settings{Config: redisauth.Config{Timeout: 500 * time.Millisecond}, gate: wsauth.Config{MaxStale: time.Second}})
		p, q, r := b.connect("pi-1-old"), b.connect("pi-2-old"), b.connect("pi-3-old")
		p.say("one")
		p.shows("[one] []")
		if n, err := a.gate.RevokeContext(ctx0, "pi-1", time.Now()); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		redistest.Wait(t, "the end of the permission", func() bool { return reasonOf(p.s.Authorize(wsauth.Publish)) == wsauth.ReasonRevoked })

		link.Hold()
		redistest.Wait(t, "a node that is out of touch for MaxStale", func() bool { return unavailable(q.s.Authorize(wsauth.Publish)) })
		q.say("two")
		r.say("three")
		if got := q.fate() + r.fate(); got != "[] [][] []" {
			t.Errorf("out of touch: %s", got)
		}
		if _, err := a.gate.RevokeContext(ctx0, "pi-2", time.Now()); err != nil {
			t.Fatal(err)
		}
		// One that the other node makes meanwhile is in force there at once.
		if n, err := b.gate.RevokeContext(ctx0, "pi-4", time.Now()); n != 0 || err == nil {
			t.Error(n, err)
		}
		if err := b.verify("pi-4-old"); reasonOf(err) != wsauth.ReasonRevoked {
			t.Error(err)
		}
		link.Cut()
		link.Release()
		q.shows("[] [revoked]")
		r.shows("[three] []")
		a.refuses("pi-4")
		redistest.Wait(t, "OnState", func() bool { return len(b.state()) == 2 })
		if states := b.state(); !strings.Contains(states[0], "redisauth") && !strings.Contains(states[0], "context") || states[1] != "<nil>" {
			t.Errorf("OnState got %q", states)
		}

		// It is taken back everywhere, and the next one counts again.
		if was, err := b.gate.UnrevokeContext(ctx0, "pi-2"); !was || err != nil {
			t.Error(was, err)
		}
		redistest.Wait(t, "a revocation that was taken back", func() bool { return a.verify("pi-2-old") == nil })
		if was, err := a.gate.UnrevokeContext(ctx0, "pi-2"); was || err != nil {
			t.Error(was, err)
		}
		if _, err := a.gate.RevokeContext(ctx0, "pi-2", time.Now()); err != nil {
			t.Error(err)
		}
		b.refuses("pi-2")
		// A later node knows it too. An earlier time changes nothing.
		if _, err := b.gate.RevokeContext(ctx0, "pi-2", time.Now().Add(-time.Hour)); err != nil {
			t.Error(err)
		}
		c := start(t, server.Addr, settings{})
		c.refuses("pi-2")
		if got := c.shared.Stats(); got.Down || got.Nodes != 3 || got.Reloads != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// The engine loses everything, or a failover the newest changes: the nodes that
// know a revocation bring it back.
func TestRevocationsComeBack(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		link := redistest.Forward(t, server.Addr)
		a := start(t, link.Addr, settings{Config: redisauth.Config{Node: "a"}})
		p := a.connect("pi-1")
		if _, err := a.gate.RevokeContext(ctx0, "pi-7", time.Now()); err != nil {
			t.Fatal(err)
		}
		server.Do("FLUSHALL")
		redistest.Wait(t, "the loss to be found", func() bool { return len(a.state()) == 2 })
		if got := a.state(); got[0] != redisauth.ErrLost.Error() || got[1] != "<nil>" {
			t.Errorf("OnState got %q", got)
		}
		redistest.Wait(t, "the revocation in the engine", func() bool { return server.Do("HLEN", "{auth}:revoked") == "1" })
		b := start(t, link.Addr, settings{Config: redisauth.Config{Node: "b"}})
		b.refuses("pi-7")
		b.lists("a pi-1")

		replica := e.Replica(t, server.Addr)
		issuer := a.issuer()
		pair, err := issuer.Issue(ctx0, grant("pi-9"))
		if err != nil {
			t.Fatal(err)
		}
		replica.InStep(server.Addr)
		replica.Promote() // from now on, it lacks what happens
		if _, err := a.gate.RevokeContext(ctx0, "pi-8", time.Now()); err != nil {
			t.Fatal(err)
		}
		if found, err := issuer.RevokeFamily(ctx0, strings.TrimSuffix(pair.TokenID, ".1")); !found || err != nil {
			t.Fatal(found, err)
		}
		server.Kill()
		link.Target(replica.Addr)
		link.Cut()
		redistest.Wait(t, "the revocation on the promoted replica", func() bool {
			return replica.Do("HLEN", "{auth}:revoked") == "3" // with that of pi-9, by its family
		})
		c := start(t, replica.Addr, settings{})
		for _, name := range []string{"pi-7", "pi-8", "pi-9"} {
			c.refuses(name)
		}
		redistest.Wait(t, "the family to be removed again", func() bool {
			all, err := c.issuer().Families(ctx0)
			return err == nil && len(all) == 0
		})
		if !p.alive() {
			t.Error("a session of another device has ended")
		}
	})
}

// What the engine keeps must open. A node with another key publishes nothing.
func TestOtherKey(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		a := start(t, server.Addr, settings{gate: wsauth.Config{MaxStale: time.Second}})
		p := a.connect("pi-1")
		if _, err := a.gate.RevokeContext(ctx0, "pi-2", time.Now()); err != nil {
			t.Fatal(err)
		}
		wrong := append([]byte{}, key...)
		wrong[0]++
		b := prepare(t, redistest.Client(t, server.Addr), settings{Config: redisauth.Config{Key: wrong}})
		redistest.Wait(t, "an error", func() bool { return len(b.state()) > 0 })
		if got := b.state()[0]; !strings.Contains(got, "Config.Key") {
			t.Error(got)
		}
		if err := b.verify("pi-1"); !unavailable(err) {
			t.Error(err)
		}
		redistest.Wait(t, "the other node, which is not affected", func() bool { return a.verify("pi-1") == nil })
		// A foreign record stops those that load it, or see it come.
		server.Do("XADD", "{auth}:events", "2-0", "k", "revoked", "n", "x", "v", "y")
		server.Do("HSET", "{auth}:revoked", "x", "y")
		redistest.Wait(t, "a node that stops", func() bool { return unavailable(a.verify("pi-1")) && unavailable(p.s.Authorize(wsauth.Publish)) })
		server.Do("HDEL", "{auth}:revoked", "x")
		server.Do("DEL", "{auth}:events")
		a.inTouch()
	})
}

// Nodes whose clocks differ agree, whichever is asked.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		watch := start(t, server.Addr, settings{})
		node := func(skew time.Duration) *redisauth.Authority {
			a, err := redisauth.New(redisauth.Config{Client: server.Client(), Key: key})
			if err != nil {
				t.Fatal(err)
			}
			a.SetSkew(skew)
			return a
		}
		ahead, behind := node(20*time.Second), node(-20*time.Second)
		for _, a := range []*redisauth.Authority{ahead, behind, ahead} {
			if err := a.Revoke(ctx0, "pi-1", time.Now().Add(-time.Second)); err != nil {
				t.Fatal(err)
			}
			watch.refuses("pi-1")
			if was, err := ahead.Unrevoke(ctx0, "pi-1"); err != nil {
				t.Fatal(was, err)
			}
			if a == ahead {
				redistest.Wait(t, "a revocation that is taken back", func() bool { return watch.verify("pi-1-old") == nil })
			}
		}
		// A time in the future of the engine's clock counts as in a minute.
		if err := watch.shared.Revoke(ctx0, "pi-2", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		watch.refuses("pi-2")
		if _, err := watch.gate.Verify(ctx0, []byte("pi-2"), time.Now().Add(2*time.Minute)); reasonOf(err) == wsauth.ReasonRevoked {
			t.Error("an hour is lost")
		}
	})
}
