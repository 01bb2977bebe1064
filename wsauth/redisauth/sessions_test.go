package redisauth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/redisauth"
)

func named(name string, change func(*settings)) settings {
	s := settings{Config: redisauth.Config{Node: name, Lease: 3 * time.Second, Timeout: time.Second}}
	if change != nil {
		change(&s)
	}
	return s
}

func limited(over wsauth.OverLimit) func(*settings) {
	return func(s *settings) { s.gate.MaxSessions, s.gate.OverLimit = 1, over }
}

// A device may have one session on all nodes together.
func TestOneSession(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		for _, row := range []struct {
			over          wsauth.OverLimit
			first, second int // the codes of the sessions on two nodes; 0: open
		}{
			{wsauth.OverLimitRefuse, 0, 4401},
			{wsauth.OverLimitReplace, 4409, 0},
		} {
			server.Do("FLUSHALL")
			a, b := start(t, server.Addr, named("a", limited(row.over))), start(t, server.Addr, named("b", limited(row.over)))
			neighbour := b.connect("pi-2")
			first := a.connect("pi-1")
			second := b.connect("pi-1")
			first.ended(row.first)
			second.ended(row.second)
			want := "a pi-1, b pi-2"
			if row.first != 0 {
				want = "b pi-1, b pi-2"
				if got := reasonOf(first.s.Authorize(wsauth.Publish)); got != wsauth.ReasonReplaced {
					t.Error(got)
				}
			}
			a.lists(want)
			b.lists(want)
			if !neighbour.alive() {
				t.Error("another device lost its session")
			}
			// Room after an end, for any node.
			for _, p := range []*publisher{first, second} {
				if p.s != nil {
					_ = p.s.Close(1000, "")
				}
			}
			a.lists("b pi-2")
			if third := a.connect("pi-1"); third.s == nil {
				t.Errorf("%d: no room after an end: %d", row.over, third.code)
			}
			// A device that reconnects has room at once, even if the engine
			// does not know yet that its last session has ended.
			for try := range 200 {
				p := a.connect("pi-3")
				if p.s == nil {
					t.Errorf("%d: no room at reconnection %d", row.over, try)
					break
				}
				_ = p.s.Close(1000, "")
			}
			a.stop()
			a.close()
			b.lists("b pi-2")
			if fourth := b.connect("pi-1"); fourth.s == nil {
				t.Errorf("%d: no room after Close: %d", row.over, fourth.code)
			}
			if err := errors.Join(a.shared.Revoke(ctx0, "pi-1", time.Now()), func() error { _, _, err := a.shared.Join(ctx0, wsauth.SessionInfo{}, 1, 0); return err }()); err == nil {
				t.Error("used after Close")
			}
			a.shared.Leave("x")
			b.stop()
			b.close()
			if got := server.Do("KEYS", "{auth}:[sn]*"); got != "" {
				t.Errorf("Close leaves %s", got)
			}
		}
	})
}

// A node that dies without Close frees its sessions when its lease is over. If
// it was only cut off, they count again.
func TestDeadNode(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		link := redistest.Forward(t, server.Addr)
		a := start(t, link.Addr, named("a", limited(wsauth.OverLimitRefuse)))
		b := start(t, server.Addr, named("b", limited(wsauth.OverLimitRefuse)))
		p := a.connect("pi-1")
		q := a.connect("pi-2")
		link.Refuse()
		link.Cut()
		if got := b.connect("pi-1"); got.s != nil {
			t.Error("the lease is not over")
		}
		var second *publisher
		redistest.Wait(t, "room after the lease", func() bool {
			second = b.connect("pi-1")
			return second.s != nil
		})
		b.lists("b pi-1")

		// Alone, a counts by itself.
		redistest.Wait(t, "a node that knows it is alone", func() bool { return a.shared.Stats().Down })
		if third := a.connect("pi-1"); third.s != nil {
			t.Error("a second session of its own")
		}
		alone := a.connect("pi-3")
		if list, err := a.gate.AllSessions(ctx0); len(list) != 3 || err == nil {
			t.Error(list, err)
		}
		_ = q.s.Close(1000, "")
		link.Accept()
		b.lists("a pi-1, a pi-3, b pi-1") // what was opened on both stays open
		if !p.alive() || !alone.alive() || !second.alive() {
			t.Error("a session has ended")
		}
		if fourth := b.connect("pi-3"); fourth.s != nil {
			t.Error("a session that was opened alone does not count")
		}
		if fifth := b.connect("pi-2"); fifth.s == nil {
			t.Error("a session that ended alone still counts")
		}
	})
}

// Sessions are listed and ended from any node.
func TestListAndEnd(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		link := redistest.Forward(t, server.Addr)
		a := start(t, link.Addr, named("a", func(s *settings) { s.Timeout = 400 * time.Millisecond }))
		b := start(t, server.Addr, named("b", nil))
		p := a.connect("pi-1")
		b.connect("pi-2")
		b.lists("a pi-1, b pi-2")
		all, err := b.gate.AllSessions(ctx0)
		if err != nil || len(all) != 2 {
			t.Fatal(all, err)
		}
		got := all[0]
		want, _ := p.s.Identity()
		near := func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Millisecond }
		if got.ID != p.s.ID() || got.Peer.Addr.String() != "198.51.100.77" || got.Identity.TokenID != want.TokenID ||
			got.Identity.Permissions[0] != wsauth.Publish || !near(got.EndsAt, want.ExpiresAt) || !near(got.Identity.IssuedAt, want.IssuedAt) || got.Since.IsZero() {
			t.Errorf("%+v", got)
		}
		for _, id := range []string{"", "nobody-1", p.s.ID() + "0"} {
			if found, err := b.gate.EndContext(ctx0, id); found || err != nil {
				t.Errorf("%q: %t, %v", id, found, err)
			}
		}
		if found, err := b.gate.EndContext(ctx0, p.s.ID()); !found || err != nil {
			t.Error(found, err)
		}
		p.ended(1008)
		b.lists("b pi-2")
		a.lists("b pi-2")
		redistest.Wait(t, "the end to be forgotten", func() bool { return server.Do("HLEN", "{auth}:ends") == "0" })

		// A node that is cut off learns of it when it is back.
		q := a.connect("pi-3")
		b.lists("a pi-3, b pi-2")
		link.Refuse()
		link.Cut()
		redistest.Wait(t, "a node that is alone", func() bool { return a.shared.Stats().Down })
		if found, err := b.gate.EndContext(ctx0, q.s.ID()); !found || err != nil {
			t.Error(found, err)
		}
		if !q.alive() && reasonOf(q.s.Authorize(wsauth.Publish)) == wsauth.ReasonOperator {
			t.Error("ended without a way to know")
		}
		if found, err := a.gate.EndContext(ctx0, all[1].ID); found || err == nil {
			t.Error(found, err)
		}
		link.Accept()
		q.ended(1008)
	})
}

// Many sessions begin and end at once on two nodes, and the count is right at
// the end.
func TestManySessions(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		three := func(s *settings) { s.gate.MaxSessions, s.gate.OverLimit = 3, wsauth.OverLimitReplace }
		nodes := []*node{start(t, server.Addr, named("a", three)), start(t, server.Addr, named("b", three))}
		done := make(chan []*publisher)
		for _, n := range nodes {
			for range 4 {
				go func() {
					var mine []*publisher
					for range 10 {
						mine = append(mine, n.connect("pi-1"))
					}
					done <- mine
				}()
			}
		}
		var all []*publisher
		for range 8 {
			all = append(all, <-done...)
		}
		redistest.Wait(t, "three sessions", func() bool {
			alive := 0
			for _, p := range all {
				if p.s != nil && p.alive() {
					alive++
				}
			}
			return alive == 3 && strings.Count(nodes[0].list(), "pi-1") == 3
		})
		if got := server.Do("HLEN", "{auth}:s:"+nameIn(server)); got != "3" {
			t.Errorf("the engine counts %s", got)
		}
	})
}

// The engine adds a session, but its answer is lost. When the session has
// ended, it no longer counts.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		link := redistest.Forward(t, server.Addr)
		change := limited(wsauth.OverLimitRefuse)
		// The call must not end before the engine has the session.
		a := startWith(t, redistest.Pipelined(t, link.Addr), named("a", func(s *settings) { change(s); s.Timeout = 5 * time.Second }))
		b := start(t, server.Addr, named("b", change))
		_ = a.connect("pi-1").s.Close(1000, "") // the engine has the script now
		b.lists("")
		link.HoldAnswers()
		opened := make(chan *publisher, 1)
		go func() { opened <- a.connect("pi-1") }()
		redistest.Wait(t, "the session in the engine", func() bool { return server.Do("HLEN", "{auth}:s:"+nameIn(server)) == "1" })
		if q := b.connect("pi-1"); q.s != nil {
			t.Error("it does not count")
		}
		p := <-opened
		if p.s == nil {
			t.Fatal("the row is void")
		}
		_ = p.s.Close(1000, "")
		link.Cut()
		link.Release()
		b.lists("")
		if q := b.connect("pi-1"); q.s == nil {
			t.Error("it still counts")
		}
		// What a node does not know of itself is removed when it connects.
		_ = a.connect("pi-2")
		b.lists("a pi-2, b pi-1")
		own := server.Do("KEYS", "{auth}:n:*")
		for key := range strings.FieldsSeq(own) {
			server.Do("HSET", key, "ghost:1", "x")
		}
		if !strings.Contains(b.list(), "Config.Key") {
			t.Error("a session that does not open is listed:", b.list())
		}
		server.Do("CLIENT", "KILL", "TYPE", "normal")
		b.lists("a pi-2, b pi-1")
	})
}

// nameIn returns the name of the only device that has sessions.
func nameIn(server *redistest.Server) string {
	return strings.TrimPrefix(server.Do("KEYS", "{auth}:s:*"), "{auth}:s:")
}

// The other nodes have dropped a node that was paused, although its connections
// stayed open. It adds its sessions again.
func TestPausedNode(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		change := limited(wsauth.OverLimitRefuse)
		a, b := start(t, server.Addr, named("a", change)), start(t, server.Addr, named("b", change))
		p := a.connect("pi-1")
		b.lists("a pi-1")
		keys := append([]string{"DEL", "{auth}:nodes"}, strings.Fields(server.Do("KEYS", "{auth}:[sn]:*"))...)
		server.Do(keys...)
		redistest.Wait(t, "a session that counts again", func() bool { return strings.Contains(server.Do("KEYS", "*"), "{auth}:s:") })
		b.lists("a pi-1")
		if q := b.connect("pi-1"); q.s != nil || !p.alive() {
			t.Error("the limit does not hold any more")
		}
		if got := a.shared.Stats(); got.Reloads != 0 {
			t.Error("the row is void: everything was loaded again")
		}
	})
}
