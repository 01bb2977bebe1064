package redisauth_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/redisauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

func familyKey(p refresh.Pair) string {
	id, _, _ := strings.Cut(p.TokenID, ".")
	return "{auth}:f:" + id
}

// same reports whether two answers are the same.
func same(p, q refresh.Pair) bool {
	return p.Token == q.Token && p.RefreshToken == q.RefreshToken && p.ExpiresAt.Equal(q.ExpiresAt)
}

func use(i *refresh.Issuer, p refresh.Pair) (refresh.Pair, error) {
	return i.Refresh(ctx0, p.RefreshToken, wsauth.Peer{})
}

// A device refreshes at any node, and a reuse anywhere ends its sessions
// everywhere.
func TestFamilies(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		a, b := start(t, server.Addr, settings{}), start(t, server.Addr, settings{Config: redisauth.Config{MaxFamilies: 2}})
		ia, ib := a.issuer(), b.issuer()
		first, err := ia.Issue(ctx0, refresh.Grant{Subject: "pi-1", Role: "r", Scope: []string{"s"}})
		if err != nil {
			t.Fatal(err)
		}
		second, err := use(ib, first)
		if err != nil {
			t.Fatal(err)
		}
		again, err := use(ia, first) // its answer may have been lost
		if err != nil || !same(again, second) {
			t.Error(again, err)
		}
		p := a.connect("pi-1-old")
		third, err := use(ia, second)
		if err != nil {
			t.Fatal(err)
		}
		other, err := ib.Issue(ctx0, grant("pi-2"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ib.Issue(ctx0, grant("pi-3")); !errors.Is(err, refresh.ErrTooManyFamilies) {
			t.Error(err)
		}
		all, err := ib.Families(ctx0)
		if err != nil || len(all) != 2 {
			t.Fatal(all, err)
		}
		if f, ok, err := ib.Prolong(ctx0, strings.TrimSuffix(third.TokenID, ".3")); !ok || err != nil || f.Generation != 4 || f.Scope[0] != "s" || f.Role != "r" {
			t.Error(f, ok, err)
		}
		if _, err := use(ib, first); reasonOf(err) != wsauth.ReasonReused {
			t.Error(err)
		}
		redistest.Wait(t, "the end of the session on the other node", func() bool { return reasonOf(p.s.Authorize(wsauth.Publish)) == wsauth.ReasonRevoked })
		if _, err := use(ia, third); reasonOf(err) != wsauth.ReasonUnknown {
			t.Error(err)
		}
		for _, id := range []string{strings.TrimSuffix(third.TokenID, ".3"), "", "x", "{auth}:head"} {
			if found, err := ia.RevokeFamily(ctx0, id); found || err != nil {
				t.Error(id, found, err)
			}
		}
		if n, err := ia.RevokeSubject(ctx0, "pi-2"); n != 1 || err != nil {
			t.Error(n, err)
		}
		if _, err := use(ib, other); reasonOf(err) != wsauth.ReasonUnknown {
			t.Error(err)
		}
		if got := server.Do("KEYS", "{auth}:f*"); got != "" {
			t.Errorf("left: %s", got)
		}
		store := a.shared.Families()
		if ok, err := store.Rotate(ctx0, refresh.StoredFamily{Family: refresh.Family{ID: strings.Repeat("0", 32), Generation: 1}}, 0); ok || err != nil {
			t.Error("a family that does not exist:", ok, err)
		}
	})
}

// The store loses a rotation, as by a failover: the newest token goes on, and
// an older one ends the family.
func TestLostRotation(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n := start(t, server.Addr, settings{})
		i := n.issuer()
		client := server.Client()
		first, err := i.Issue(ctx0, grant("pi-1"))
		if err != nil {
			t.Fatal(err)
		}
		second, err := use(i, first)
		if err != nil {
			t.Fatal(err)
		}
		dump, err := client.Do(ctx0, client.B().Dump().Key(familyKey(first)).Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		third, err := use(i, second)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Do(ctx0, client.B().Restore().Key(familyKey(first)).Ttl(0).SerializedValue(dump).Replace().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		fourth, err := use(i, third)
		if err != nil || !strings.HasSuffix(fourth.TokenID, ".4") {
			t.Fatal("the owner is locked out:", fourth, err)
		}
		if all, err := i.Families(ctx0); len(all) != 1 || err != nil {
			t.Error("revoked:", all, err)
		}
		if again, err := use(i, third); err != nil || !same(again, fourth) {
			t.Error("not the same answer again:", again, err)
		}
		if _, err := use(i, second); reasonOf(err) != wsauth.ReasonReused {
			t.Error("an older token:", err)
		}
		if all, err := i.Families(ctx0); len(all) != 0 || err != nil {
			t.Error(all, err)
		}
		n.refuses("pi-1")
	})
}

// A rotation that too few replicas have is answered at the second try.
func TestReplicas(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n := start(t, server.Addr, settings{Config: redisauth.Config{Replicas: 1}})
		i := n.issuer()
		p, err := i.Issue(ctx0, grant("pi-1"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := use(i, p); !unavailable(err) || !strings.Contains(err.Error(), "0 of 1 replicas") {
			t.Error(err)
		}
		if p, err = use(i, p); err != nil || !strings.HasSuffix(p.TokenID, ".2") {
			t.Error(p, err)
		}
		e.Replica(t, server.Addr)
		redistest.Wait(t, "a rotation that the replica has", func() bool {
			next, err := use(i, p)
			inTime := err == nil
			if !inTime {
				if next, err = use(i, p); err != nil {
					t.Fatal(err)
				}
			}
			p = next
			return inTime
		})
	})
}

// Without the engine, nothing is decided, and the same token works afterwards.
func TestEngineAway(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		link := redistest.Forward(t, server.Addr)
		n := start(t, link.Addr, settings{Config: redisauth.Config{Timeout: 200 * time.Millisecond}})
		i := n.issuer()
		p, err := i.Issue(ctx0, grant("pi-1"))
		if err != nil {
			t.Fatal(err)
		}
		id, _, _ := strings.Cut(p.TokenID, ".")
		post := func() int {
			r := httptest.NewRequest("POST", "/auth/refresh", strings.NewReader(`{"refresh_token":"`+p.RefreshToken+`"}`))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			i.Handler().ServeHTTP(w, r)
			return w.Code
		}
		away := func() {
			t.Helper()
			if got := post(); got != 503 {
				t.Error(got)
			}
			_, issue := i.Issue(ctx0, grant("pi-1"))
			_, list := i.Families(ctx0)
			_, revoke := i.RevokeFamily(ctx0, id)
			for _, err := range []error{issue, list, revoke} {
				if !unavailable(err) {
					t.Error(err)
				}
			}
		}
		link.Hold()
		away() // it is not known yet
		redistest.Wait(t, "a node that knows", func() bool { return n.shared.Stats().Down })
		away()
		link.Cut()
		link.Release()
		redistest.Wait(t, "a node in touch", func() bool { return !n.shared.Stats().Down })
		if got := post(); got != 200 {
			t.Error(got)
		}

		// A removal whose answer is lost is reported, and made.
		link.HoldAnswers()
		client := server.Client()
		_, found, err := n.shared.Families().Remove(ctx0, id)
		if found || err == nil {
			t.Error("reported before it was known:", found, err)
		}
		link.Cut()
		link.Release()
		redistest.Wait(t, "a removal", func() bool {
			_, _, err := n.shared.Families().Remove(ctx0, id)
			return err == nil
		})
		if n, err := client.Do(ctx0, client.B().Exists().Key(familyKey(p)).Build()).AsInt64(); n != 0 || err != nil {
			t.Error(n, err)
		}
	})
}

// What others wrote is an error, not a family.
func TestForeignFamily(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n := start(t, server.Addr, settings{})
		i := n.issuer()
		p, err := i.Issue(ctx0, grant("pi-1"))
		if err != nil {
			t.Fatal(err)
		}
		q, err := i.Issue(ctx0, grant("pi-2"))
		if err != nil {
			t.Fatal(err)
		}
		client := server.Client()
		sealed, err := client.Do(ctx0, client.B().Hget().Key(familyKey(q)).Field("v").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		for _, forged := range []string{"x", sealed} { // also the family of another token
			if err := client.Do(ctx0, client.B().Hset().Key(familyKey(p)).FieldValue().FieldValue("v", forged).Build()).Error(); err != nil {
				t.Fatal(err)
			}
			if _, err := use(i, p); !unavailable(err) || !strings.Contains(err.Error(), "Config.Key") {
				t.Error(err)
			}
			if all, err := i.Families(ctx0); len(all) != 1 || all[0].Subject != "pi-2" || err == nil {
				t.Error(all, err)
			}
		}
		if _, err := use(i, q); err != nil {
			t.Error(err)
		}
		if ttl, err := client.Do(ctx0, client.B().Pttl().Key(familyKey(q)).Build()).AsInt64(); ttl < (30*24*time.Hour).Milliseconds() || err != nil {
			t.Error("an expired token would be called unknown:", ttl, err)
		}
		if rueidis.IsRedisNil(client.Do(ctx0, client.B().Zscore().Key("{auth}:families").Member(strings.TrimPrefix(familyKey(q), "{auth}:f:")).Build()).Error()) {
			t.Error("not listed")
		}
	})
}

// lossy is a client that loses the answers to commands, or the commands.
type lossy struct {
	rueidis.Client
	mu   sync.Mutex
	lose func(command []string) (run, answer bool) // nil: nothing is lost
}

func (c *lossy) set(lose func([]string) (run, answer bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose = lose
}

func (c *lossy) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	c.mu.Lock()
	lose := c.lose
	c.mu.Unlock()
	run, answer := true, true
	if lose != nil {
		run, answer = lose(cmd.Commands())
	}
	var r rueidis.RedisResult
	if run {
		r = c.Client.Do(ctx, cmd)
	}
	if answer {
		return r
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	return c.Client.Do(ended, c.B().Ping().Build())
}

// A change whose answer is lost is asked again, and made once.
func TestLostChange(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		client := &lossy{Client: server.Client()}
		n := startWith(t, client, settings{Config: redisauth.Config{Timeout: 300 * time.Millisecond}, gate: wsauth.Config{MaxSessions: 1, OverLimit: wsauth.OverLimitReplace}})
		i := n.issuer()
		pair := func(device string) refresh.Pair {
			p, err := i.Issue(ctx0, grant(device))
			if err != nil {
				t.Fatal(err)
			}
			if p, err = use(i, p); err != nil { // the engine has the scripts now
				t.Fatal(err)
			}
			return p
		}
		pair("pi-0")
		if revoked, err := i.RevokeSubject(ctx0, "pi-0"); revoked != 1 || err != nil {
			t.Fatal(revoked, err)
		}
		_ = n.connect("pi-0").s.Close(1000, "")
		// once loses the answer to the first script with a number of keys.
		once := func(keys string) {
			lost := false
			client.set(func(command []string) (bool, bool) {
				if lost || command[0] != "EVALSHA" || command[2] != keys {
					return true, true
				}
				lost = true
				return true, false
			})
		}
		first := pair("pi-1")
		once("2")
		second, err := use(i, first)
		if err != nil || !strings.HasSuffix(second.TokenID, ".3") {
			t.Fatal(second, err)
		}
		if again, err := use(i, first); err != nil || !same(again, second) {
			t.Error(again, err)
		}
		id := strings.TrimPrefix(familyKey(first), "{auth}:f:")
		once("4")
		if found, err := i.RevokeFamily(ctx0, id); !found || err != nil {
			t.Error("a removal is not reported:", found, err)
		}
		client.set(nil)
		if found, err := i.RevokeFamily(ctx0, id); found || err != nil {
			t.Error("reported twice:", found, err)
		}
		once("6")
		p := n.connect("pi-1")
		if p.s == nil || !p.alive() {
			t.Error("a session that joined twice has replaced itself")
		}
		once("3")
		if _, err := n.gate.RevokeContext(ctx0, "pi-1", time.Now()); err != nil {
			t.Error(err)
		}
		n.refuses("pi-1")

		// No answer comes: the removal is reported as in doubt, and made later.
		third := pair("pi-3")
		id = strings.TrimPrefix(familyKey(third), "{auth}:f:")
		client.set(func(command []string) (bool, bool) {
			removes := command[0] == "EVALSHA" && command[2] == "4" && strings.HasSuffix(command[len(command)-1], id)
			return !removes, !removes
		})
		if found, err := i.RevokeFamily(ctx0, id); !found || !unavailable(err) {
			t.Error(found, err)
		}
		n.refuses("pi-3")
		redistest.Wait(t, "the removal", func() bool { return server.Do("EXISTS", familyKey(third)) == "0" })
	})
}
