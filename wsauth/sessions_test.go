package wsauth_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

func devicesOf(list []wsauth.SessionInfo) string {
	var names []string
	for _, s := range list {
		names = append(names, s.Identity.Subject)
	}
	return strings.Join(names, " ")
}

func TestSessionsAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, audit := newGate(t, wsauth.Config{})
		viewer := connect(t, gate)
		second := connect(t, gate)
		first := connect(t, gate)
		first.say(lasting("pi-2", time.Hour))
		time.Sleep(time.Second)
		second.say(lasting("pi-1", time.Hour))
		list := gate.Sessions()
		if devicesOf(list) != "pi-2 pi-1" {
			t.Fatalf("%+v", list)
		}
		if got := list[1]; got.ID != second.ID() || got.ID == first.ID() || !got.Since.Equal(time.Unix(epoch+1, 0)) ||
			!got.EndsAt.Equal(time.Unix(epoch+3601, 0)) {
			t.Errorf("%+v", got)
		}
		if gate.End("nobody") || gate.End(viewer.ID()) || gate.End("") {
			t.Error("ended a session that is not authenticated")
		}
		if !gate.End(first.ID()) {
			t.Error("not found")
		}
		var denied *wsauth.Error
		if err := first.Authorize(wsauth.Publish); !errors.As(err, &denied) || denied.Reason != wsauth.ReasonOperator {
			t.Error("the authentication outlives End:", err)
		}
		if devicesOf(gate.Sessions()) != "pi-1" || gate.End(first.ID()) {
			t.Error("still listed")
		}
		first.expect(t, "ended", "0s authenticated,946688400", "1s close 1008 ")
		second.Session.Close(1000, "")
		viewer.Session.Close(1000, "")
		if list := gate.Sessions(); list != nil {
			t.Errorf("still listed: %+v", list)
		}
		want := []string{"authenticated pi-2", "authenticated pi-1", "ended operator pi-2", "ended pi-1"}
		if got := audit.lines(); !slices.Equal(got, want) {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}

func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, v, audit := newGate(t, wsauth.Config{})
		before, after, neighbour, undated := connect(t, gate), connect(t, gate), connect(t, gate), connect(t, gate)
		old := lasting("pi-1", time.Hour)
		before.say(old)
		neighbour.say(lasting("pi-2", time.Hour))
		undated.say(tokenMessage(live("pi-1"))) // has no "iat"
		time.Sleep(10 * time.Second)
		after.say(lasting("pi-1", time.Hour))
		cut := time.Now()
		if n := gate.Revoke("pi-1", cut); n != 2 {
			t.Error("ended", n)
		}
		if n := gate.Revoke("pi-1", cut); n != 0 {
			t.Error("ended again", n)
		}
		gate.Revoke("pi-1", cut.Add(-time.Hour)) // an earlier time has no effect
		before.expect(t, "issued before", "0s authenticated,946688400", "10s viewer")
		undated.expect(t, "without iat", "0s authenticated,946688400", "10s viewer")
		after.expect(t, "issued at that time", "10s authenticated,946688410")
		neighbour.expect(t, "another device", "0s authenticated,946688400")
		if devicesOf(gate.Sessions()) != "pi-2 pi-1" {
			t.Errorf("%+v", gate.Sessions())
		}

		before.say(old)
		before.expect(t, "shown again", "10s error:Authentication failed", "10s close 4401 ")
		token := []byte(strings.Split(old, `"`)[3])
		if _, err := gate.Verify(t.Context(), token, time.Now()); reasonOf(t, err) != wsauth.ReasonRevoked {
			t.Error("outside of sessions:", err)
		}
		if _, err := v.Verify(t.Context(), token, time.Now()); err != nil {
			t.Error("the row is void, the token is bad anyway:", err)
		}
		undated.say(lasting("pi-1", time.Hour))
		undated.expect(t, "a new token", "10s authenticated,946688410")

		if n := gate.Revoke("pi-1", time.Now().Add(time.Minute)); n != 2 {
			t.Error("shut out", n)
		}
		synctest.Wait()
		undated.say(lasting("pi-1", time.Hour))
		undated.expect(t, "shut out", "10s viewer", "10s error:Authentication failed", "10s close 4401 ")
		time.Sleep(time.Minute)
		after.say(lasting("pi-1", time.Hour))
		after.expect(t, "accepted again", "10s viewer", "1m10s authenticated,946688470")
		for _, p := range []*peer{after, neighbour} {
			p.Session.Close(1000, "")
		}
		lines := strings.Join(audit.lines(), "; ")
		if n := strings.Count(lines, "revoked revoked pi-1"); n != 4 || !strings.Contains(lines, "refused revoked pi-1") {
			t.Error(lines)
		}
	})
}

func TestSessionLimit(t *testing.T) {
	for _, row := range []struct {
		over          wsauth.OverLimit
		first, second []string // what the first two of three clients receive
		third         []string
		listed        int
		audit         string
	}{
		{wsauth.OverLimitRefuse, nil, nil, []string{"2s error:Authentication failed", "2s close 4401 "}, 2, "refused sessions pi-1"},
		{wsauth.OverLimitReplace, []string{"2s close 4409 replaced"}, nil, []string{"2s authenticated,946688402"}, 2,
			"replaced replaced pi-1; authenticated pi-1; ended replaced pi-1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			gate, _, audit := newGate(t, wsauth.Config{MaxSessions: 2, OverLimit: row.over})
			first, second, third, neighbour := connect(t, gate), connect(t, gate), connect(t, gate), connect(t, gate)
			first.say(lasting("pi-1", time.Hour))
			time.Sleep(time.Second)
			second.say(lasting("pi-1", time.Hour))
			neighbour.say(lasting("pi-2", time.Hour))
			first.say(lasting("pi-1", time.Hour)) // refreshing changes neither Since nor the count
			time.Sleep(time.Second)
			for _, p := range []*peer{first, second, neighbour} {
				p.heardSince()
			}
			audit.lines()
			third.say(lasting("pi-1", time.Hour))
			first.expect(t, "first", row.first...)
			second.expect(t, "second", row.second...)
			third.expect(t, "third", row.third...)
			neighbour.expect(t, "neighbour")
			if got := strings.Join(audit.lines(), "; "); got != row.audit {
				t.Errorf("audit %q, want %q", got, row.audit)
			}
			if n := len(gate.Sessions()); n != row.listed+1 {
				t.Error(n, "listed")
			}
			// When a connection or an authentication ends, the device may open
			// another session.
			second.Session.Close(1000, "")
			fourth := connect(t, gate)
			fourth.say(lasting("pi-1", time.Second))
			fourth.expect(t, "fourth", "0s authenticated,946684803")
			time.Sleep(time.Second)
			synctest.Wait()
			fifth := connect(t, gate)
			fifth.say(lasting("pi-1", time.Hour))
			fifth.expect(t, "fifth", "0s authenticated,946688403")
			for _, p := range []*peer{first, third, fourth, fifth, neighbour} {
				p.Session.Close(1000, "")
			}
		})
	}
}

func TestMaxLifetime(t *testing.T) {
	v := newHS256(t, nil)
	gate, err := wsauth.New(wsauth.Config{Verifier: v, MaxLifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	at := now.Unix()
	for _, row := range []struct {
		name   string
		claims string
		lasts  time.Duration
		want   wsauth.Reason
	}{
		{"longer than allowed", fmt.Sprintf(`{"device":"pi-1","iat":%d,"exp":%d}`, at, at+3600), time.Minute, ""},
		{"as long as it says", fmt.Sprintf(`{"device":"pi-1","iat":%d,"exp":%d}`, at, at+30), 30 * time.Second, ""},
		{"counted from its making", fmt.Sprintf(`{"device":"pi-1","iat":%d,"exp":%d}`, at-59, at+3600), time.Second, ""},
		{"too old, whatever it says", fmt.Sprintf(`{"device":"pi-1","iat":%d,"exp":%d}`, at-60, at+3600), 0, wsauth.ReasonExpired},
		{"no way to lengthen it", fmt.Sprintf(`{"device":"pi-1","iat":%d,"exp":%d}`, at+1800, at+3600), time.Minute, ""},
		{"no iat", fmt.Sprintf(`{"device":"pi-1","exp":%d}`, at+3600), 0, wsauth.ReasonClaims},
	} {
		id, err := gate.Verify(t.Context(), []byte(forged(row.claims)), now)
		if got := reasonOf(t, err); got != row.want || err == nil && id.ExpiresAt.Sub(now) != row.lasts {
			t.Errorf("%s: %q, lasts %v", row.name, got, id.ExpiresAt.Sub(now))
		}
	}
}

// A token can be limited to one permission of its role, and its session then
// has no other.
func TestScopedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, v, audit := newGate(t, wsauth.Config{})
		for _, row := range []struct {
			scope          []string
			publish, admin bool
		}{
			{nil, true, true},
			{[]string{wsauth.Publish}, true, false},
			{[]string{wsauth.Admin}, false, true},
			{[]string{}, false, false},
		} {
			token, err := v.Sign(wsauth.ClaimSet{Subject: "pi-1", Role: "admin", Scope: row.scope, ExpiresAt: time.Now().Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			p := connect(t, gate)
			p.say(tokenMessage(token))
			audit.lines()
			denials := 0
			for range 2 {
				for permission, may := range map[string]bool{wsauth.Publish: row.publish, wsauth.Admin: row.admin} {
					if err := p.Authorize(permission); (err == nil) != may {
						t.Errorf("%v: %s: %v", row.scope, permission, err)
					} else if err != nil {
						denials = 1
					}
				}
			}
			if got := audit.lines(); len(got) != denials || denials > 0 && got[0] != "denied permission pi-1" {
				t.Errorf("%v: audit %q", row.scope, got)
			}
			p.Session.Close(1000, "")
		}
	})
}

// All operations run in parallel and in random order. No session is left, and
// each that was authenticated ends once.
func TestConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, v, audit := newGate(t, wsauth.Config{MaxSessions: 3, OverLimit: wsauth.OverLimitReplace})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				p := connect(t, gate)
				for range 20 {
					device := fmt.Sprintf("pi-%d", 1+rand.IntN(2))
					switch rand.IntN(8) {
					case 0:
						gate.Revoke(device, time.Now())
					case 1:
						if list := gate.Sessions(); len(list) > 0 {
							gate.End(list[0].ID)
						}
					case 2:
						_ = v.Rotate(jwtauth.Key{Secret: other})
						_ = v.Rotate(jwtauth.Key{Secret: secret}, jwtauth.Key{Secret: other, Until: time.Now().Add(time.Second)})
					case 3:
						_ = p.Authorize(wsauth.Publish)
					default:
						select {
						case p.in <- lasting(device, time.Duration(1+rand.IntN(5))*time.Second):
						case <-p.over:
							p = connect(t, gate)
						}
					}
					time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
				}
				p.Session.Close(1000, "")
			})
		}
		all.Wait()
		synctest.Wait()
		if list := gate.Sessions(); list != nil {
			t.Errorf("left: %+v", list)
		}
		holding := make(map[string]bool)
		audit.mu.Lock()
		defer audit.mu.Unlock()
		ended := make(map[string]int)
		for _, e := range audit.events {
			switch e.Kind {
			case wsauth.EventAuthenticated:
				holding[e.SessionID] = true
			case wsauth.EventEnded:
				ended[e.SessionID]++
			}
		}
		for id := range holding {
			if ended[id] != 1 {
				t.Errorf("session %s ended %d times", id, ended[id])
			}
		}
		if len(holding) < 10 || len(ended) != len(holding) {
			t.Errorf("%d sessions authenticated, %d ended", len(holding), len(ended))
		}
	})
}

// A revocation reaches at most a minute into the future, however late its time
// is, and a token from the future does not escape it.
func TestRevokeInTheFuture(t *testing.T) {
	for _, ahead := range []time.Duration{time.Minute, time.Minute + 1, time.Hour, 100 * 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			gate, v, _ := newGate(t, wsauth.Config{})
			p := connect(t, gate)
			tokenAt := func(issued time.Duration) string {
				at := time.Now().Add(issued)
				token, err := v.SignAt(wsauth.ClaimSet{Subject: "pi-1", IssuedAt: at, ExpiresAt: at.Add(time.Hour)}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				return token
			}
			early := tokenAt(30 * time.Minute) // of a signer whose clock is ahead
			p.say(tokenMessage(early))
			if n := gate.Revoke("pi-1", time.Now().Add(ahead)); n != 1 {
				t.Error(ahead, "ended", n)
			}
			p.expect(t, "ended", "0s authenticated,946690200", "0s viewer")
			time.Sleep(time.Minute - time.Nanosecond)
			for _, token := range []string{early, tokenAt(0)} {
				if _, err := gate.Verify(t.Context(), []byte(token), time.Now()); reasonOf(t, err) != wsauth.ReasonRevoked {
					t.Error(ahead, "within the minute:", err)
				}
			}
			time.Sleep(time.Nanosecond)
			if _, err := gate.Verify(t.Context(), []byte(tokenAt(0)), time.Now()); err != nil {
				t.Error(ahead, "after a minute:", err)
			}
			if _, err := gate.Verify(t.Context(), []byte(early), time.Now()); reasonOf(t, err) != wsauth.ReasonRevoked {
				t.Error(ahead, "the token from the future:", err)
			}
			if _, err := gate.Verify(t.Context(), []byte(strings.Split(lasting("pi-2", time.Hour), `"`)[3]), time.Now()); err != nil {
				t.Error(ahead, "another device:", err)
			}
			p.Session.Close(1000, "")
		})
	}
}

func TestUnrevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, _ := newGate(t, wsauth.Config{})
		p, q := connect(t, gate), connect(t, gate)
		mine, undated := lasting("pi-1", time.Hour), tokenMessage(live("pi-1"))
		p.say(mine)
		q.say(lasting("pi-2", time.Hour))
		if gate.Unrevoke("pi-1") || gate.Unrevoke("nobody") {
			t.Error("took back what was not revoked")
		}
		time.Sleep(time.Second)
		gate.Revoke("pi-1", time.Now())
		gate.Revoke("pi-1", time.Now().Add(time.Second))
		gate.Revoke("pi-2", time.Now())
		p.expect(t, "revoked", "0s authenticated,946688400", "1s viewer")
		if !gate.Unrevoke("pi-1") || gate.Unrevoke("pi-1") {
			t.Error("not taken back once")
		}
		p.expect(t, "an end is an end")
		p.say(mine)
		p.say(undated)
		p.expect(t, "accepted again", "1s authenticated,946688400", "1s authenticated,946688400")
		q.say(`{"text":"x"}`)
		q.expect(t, "another device", "0s authenticated,946688400", "1s viewer", "1s answer:viewer")
		p.Session.Close(1000, "")
		q.Session.Close(1000, "")
	})
}

// A barred client gets the answer of a wrong token for any token, and the
// verifier sees none of them. A session that was authenticated before stays so.
func TestBarred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		barred := false
		gate, keys, audit := newGate(t, wsauth.Config{Barred: func(wsauth.Peer) bool { return barred }})
		before := connect(t, gate)
		before.say(lasting("pi-1", time.Hour))
		before.expect(t, "before", "0s authenticated,"+fmt.Sprint(time.Now().Add(time.Hour).Unix()))
		barred = true
		used := keys.KeyUsage()[0].Count
		p := connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		p.expect(t, "barred", "0s error:Authentication failed", "0s close 4401 ")
		if got := keys.KeyUsage()[0].Count; got != used {
			t.Errorf("%d tokens were verified for a barred client", got-used)
		}
		before.say("{}")
		before.expect(t, "before", "0s published:true")
		if got, want := strings.Join(audit.lines(), "|"), "authenticated pi-1|refused barred"; got != want {
			t.Errorf("the audit has %q, want %q", got, want)
		}
		before.Session.Close(1000, "")
	})
}
