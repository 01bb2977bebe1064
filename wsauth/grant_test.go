package wsauth_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

const epoch = 946684800 // when the time of synctest begins

// A client that sends only its token receives these messages at these times.
func TestSilentSession(t *testing.T) {
	for _, row := range []struct {
		name     string
		cfg      wsauth.Config
		lifetime time.Duration
		want     []string
		audit    []string
	}{
		{"a minute before the end of an hour", wsauth.Config{}, time.Hour,
			[]string{"0s authenticated,946688400", "59m0s expiring,946688400", "1h0m0s viewer"},
			[]string{"authenticated pi-1", "expired expired pi-1"}},
		{"a tenth before the end of a short life", wsauth.Config{}, 10 * time.Second,
			[]string{"0s authenticated,946684810", "9s expiring,946684810", "10s viewer"},
			[]string{"authenticated pi-1", "expired expired pi-1"}},
		{"the warning of the configuration", wsauth.Config{ExpiryWarning: 10 * time.Minute}, time.Hour,
			[]string{"0s authenticated,946688400", "50m0s expiring,946688400", "1h0m0s viewer"},
			[]string{"authenticated pi-1", "expired expired pi-1"}},
		{"half of the life at most, lest refreshing never ends", wsauth.Config{ExpiryWarning: time.Hour}, time.Minute,
			[]string{"0s authenticated,946684860", "30s expiring,946684860", "1m0s viewer"},
			[]string{"authenticated pi-1", "expired expired pi-1"}},
		{"closed by option", wsauth.Config{OnExpiry: wsauth.OnExpiryClose}, time.Hour,
			[]string{"0s authenticated,946688400", "59m0s expiring,946688400", "1h0m0s close 4401 "},
			[]string{"authenticated pi-1", "expired expired pi-1", "ended expired pi-1"}},
		{"no token lives longer than allowed", wsauth.Config{MaxLifetime: 10 * time.Minute}, time.Hour,
			[]string{"0s authenticated,946685400", "9m0s expiring,946685400", "10m0s viewer"},
			[]string{"authenticated pi-1", "expired expired pi-1"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			gate, _, audit := newGate(t, row.cfg)
			p := connect(t, gate)
			p.say(lasting("pi-1", row.lifetime))
			time.Sleep(2 * time.Hour)
			p.expect(t, row.name, row.want...)
			if got := audit.lines(); !slices.Equal(got, row.audit) {
				t.Errorf("%s: audit %q, want %q", row.name, got, row.audit)
			}
			if list := gate.Sessions(); len(list) > 0 {
				t.Errorf("%s: still listed: %+v", row.name, list)
			}
			p.Session.Close(1000, "")
		})
	}
}

// A refresh moves the end, and the client is warned once for each token.
func TestRefreshMovesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, v, audit := newGate(t, wsauth.Config{})
		p := connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		time.Sleep(59*time.Minute + 30*time.Second)
		// Rotate checks all sessions again, although nothing has changed.
		if err := v.Rotate(jwtauth.Key{Secret: secret}); err != nil {
			t.Fatal(err)
		}
		p.expect(t, "before", "0s authenticated,946688400", "59m0s expiring,946688400")
		p.say(lasting("pi-1", time.Hour))
		time.Sleep(time.Hour - time.Nanosecond)
		p.expect(t, "refreshed", "59m30s authenticated,946691970", "1h58m30s expiring,946691970")
		if err := p.Authorize(wsauth.Publish); err != nil {
			t.Error("in the last instant:", err)
		}
		time.Sleep(time.Nanosecond)
		p.expect(t, "over", "1h59m30s viewer")
		p.say(`{"text":"x"}`)
		p.expect(t, "publishing as a viewer", "1h59m30s answer:viewer")
		p.say(lasting("pi-2", time.Hour))
		p.expect(t, "another device's token, even now", "1h59m30s error:Authentication failed", "1h59m30s close 4401 ")
		want := []string{"authenticated pi-1", "refreshed pi-1", "expired expired pi-1", "refused other_subject pi-2", "ended pi-1"}
		if got := audit.lines(); !slices.Equal(got, want) {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}

// A client whose authentication has ended can authenticate again on the same
// connection.
func TestReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, audit := newGate(t, wsauth.Config{})
		p := connect(t, gate)
		p.say(lasting("pi-1", 10*time.Second))
		time.Sleep(time.Minute)
		p.say(lasting("pi-1", 10*time.Second))
		p.say(`{"text":"x"}`)
		p.expect(t, "all", "0s authenticated,946684810", "9s expiring,946684810", "10s viewer",
			"1m0s authenticated,946684870", "1m0s published:true")
		if list := gate.Sessions(); len(list) != 1 || !list[0].Since.Equal(p.start.Add(time.Minute)) {
			t.Errorf("%+v", list)
		}
		// The gate keeps no trace of the session after the end of the
		// connection.
		p.Session.Close(1000, "")
		time.Sleep(time.Hour)
		p.expect(t, "after the end", "1m0s close 1000 ")
		want := []string{"authenticated pi-1", "expired expired pi-1", "authenticated pi-1", "ended pi-1"}
		if got := audit.lines(); !slices.Equal(got, want) {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}

// If Authorize notices the end, the client gets only the answer of the caller.
func TestAuthorizeFindsTheEnd(t *testing.T) {
	for _, row := range []struct {
		onExpiry wsauth.OnExpiry
		want     []string
	}{
		{wsauth.OnExpiryView, nil},
		{wsauth.OnExpiryClose, []string{"0s close 4401 "}},
	} {
		synctest.Test(t, func(t *testing.T) {
			gate, _, _ := newGate(t, wsauth.Config{OnExpiry: row.onExpiry})
			p := connect(t, gate)
			p.say(lasting("pi-1", time.Hour))
			p.heardSince()
			if err := p.AuthorizeAt(time.Now().Add(time.Hour), wsauth.Publish); err == nil {
				t.Error("authorized after the end")
			}
			synctest.Wait()
			if err := p.AuthorizeAt(time.Now(), wsauth.Publish); err == nil {
				t.Error("an authentication that has ended is valid again")
			}
			time.Sleep(2 * time.Hour)
			p.expect(t, fmt.Sprint(row.onExpiry), row.want...)
			p.Session.Close(1000, "")
		})
	}
}

// A rotation ends no session whose key stays in the ring, and immediately ends
// the others.
func TestRotateReachesOpenSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, v, audit := newGate(t, wsauth.Config{})
		p := connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		until := time.Unix(epoch+600, 0)
		if err := v.Rotate(jwtauth.Key{Secret: other}, jwtauth.Key{Secret: secret, Until: until}); err != nil {
			t.Fatal(err)
		}
		p.say(`{"text":"x"}`)
		p.expect(t, "in the grace", "0s authenticated,946688400", "0s published:true")
		// The client is warned before the end of the old key as before the end
		// of a token. Its next token may expire earlier than the old one.
		time.Sleep(9 * time.Minute)
		fresh := forge.HS256(common, fmt.Sprintf(`{"device":"pi-1","exp":%d}`, epoch+1200), other)
		p.expect(t, "before the end of the grace", "9m0s expiring,946685400")
		p.say(tokenMessage(fresh))
		time.Sleep(2 * time.Minute)
		p.say(`{"text":"x"}`)
		p.expect(t, "after the grace", "9m0s authenticated,946686000", "11m0s published:true")

		if err := v.Rotate(jwtauth.Key{Secret: secret}); err != nil {
			t.Fatal(err)
		}
		p.expect(t, "withdrawn", "11m0s viewer")
		p.say(lasting("pi-1", time.Second))
		p.expect(t, "back with a good key, though for less time", "11m0s authenticated,946685461")
		p.Session.Close(1000, "")
		want := []string{"authenticated pi-1", "refreshed pi-1", "revoked revoked pi-1", "authenticated pi-1", "ended pi-1"}
		if got := audit.lines(); !slices.Equal(got, want) {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}

// If the client sends no new token, its authentication ends with the old key.
func TestGraceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, v, audit := newGate(t, wsauth.Config{OnExpiry: wsauth.OnExpiryClose})
		p := connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		if err := v.Rotate(jwtauth.Key{Secret: other}, jwtauth.Key{Secret: secret, Until: time.Now().Add(30 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		p.expect(t, "all", "0s authenticated,946688400", "0s expiring,946684830", "30s close 4401 ")
		want := []string{"authenticated pi-1", "revoked revoked pi-1", "ended revoked pi-1"}
		if got := audit.lines(); !slices.Equal(got, want) {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}

// A client that does not read delays no other client, and gets only the newest
// status when it reads again.
func TestStalledPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, v, _ := newGate(t, wsauth.Config{CloseTimeout: time.Minute})
		slow, quick := connect(t, gate), connect(t, gate)
		for _, p := range []*peer{slow, quick} {
			p.say(lasting("pi-1", 10*time.Second))
		}
		slow.mu.Lock()
		slow.stall = make(chan struct{})
		slow.mu.Unlock()
		time.Sleep(9 * time.Second) // slow has not read its warning yet
		synctest.Wait()
		if err := v.Rotate(jwtauth.Key{Secret: other}); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(slow.start); got != 9*time.Second {
			t.Error("rotation took", got)
		}
		quick.expect(t, "quick", "0s authenticated,946684810", "9s expiring,946684810", "9s viewer")
		slow.expect(t, "slow", "0s authenticated,946684810")
		if err := slow.Authorize(wsauth.Publish); err == nil {
			t.Error("the authentication outlives its key on a connection that does not read")
		}
		slow.say(tokenMessage(forge.HS256(common, fmt.Sprintf(`{"device":"pi-1","exp":%d}`, epoch+60), other)))
		time.Sleep(time.Second)
		close(slow.stall)
		slow.expect(t, "slow, reading again", "10s expiring,946684810", "10s authenticated,946684860")
		slow.Session.Close(1000, "")
		quick.Session.Close(1000, "")
	})
}

// If a client never reads, the gate gives up sending a status, and tries again
// with the next one.
func TestPushIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, _ := newGate(t, wsauth.Config{})
		p := connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		p.mu.Lock()
		p.stall = make(chan struct{})
		p.mu.Unlock()
		time.Sleep(59*time.Minute + 30*time.Second)
		p.mu.Lock()
		p.stall = nil
		p.mu.Unlock()
		time.Sleep(time.Hour)
		p.expect(t, "all", "0s authenticated,946688400", "1h0m0s viewer")
		p.Session.Close(1000, "")
	})
}

// A session sends nothing after its end.
func TestEndGoesBeforeStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, _ := newGate(t, wsauth.Config{CloseTimeout: time.Hour})
		p := connect(t, gate)
		p.say(lasting("pi-1", 10*time.Second))
		p.mu.Lock()
		p.stall = make(chan struct{})
		p.mu.Unlock()
		time.Sleep(time.Minute) // the warning is not written yet, and more has happened since
		go p.Session.Close(1000, "")
		synctest.Wait()
		close(p.stall)
		synctest.Wait()
		for _, h := range p.heardSince() {
			if strings.Contains(h, "viewer") {
				t.Error(h)
			}
		}
	})
}

// turning is a Verifier whose ring is rotated between the check of a token and
// the authentication of its session.
type turning struct{ *jwtauth.Verifier }

func (v turning) Verify(ctx context.Context, token []byte, now time.Time) (wsauth.Identity, error) {
	id, err := v.Verifier.Verify(ctx, token, now)
	return id, errors.Join(err, v.Rotate(jwtauth.Key{Secret: other}))
}

func TestRotateDuringAdmission(t *testing.T) {
	r := &record{}
	gate, err := wsauth.New(wsauth.Config{Verifier: turning{newHS256(t, nil)}, Audit: r.audit})
	if err != nil {
		t.Fatal(err)
	}
	conn := newScript(tokenMessage(live("pi-1")))
	if _, err := gate.Attach(conn, wsauth.Peer{}).Next(t.Context()); !errors.Is(err, wsauth.ErrAuthenticationFailed) {
		t.Error(err)
	}
	if got := r.lines(); !slices.Equal(got, []string{"refused revoked pi-1"}) || !slices.Equal(conn.wrote, []string{refusal}) {
		t.Errorf("audit %q, answer %q", got, conn.wrote)
	}
}

// torn is a Verifier whose ValidAt waits for the test and then returns its
// answer.
type torn struct {
	wsauth.Verifier
	ask chan chan bool
}

func (v torn) ValidAt(wsauth.Identity, time.Time) (wsauth.Reason, bool) {
	select {
	case answer := <-v.ask:
		return wsauth.ReasonRevoked, <-answer
	default:
		return "", true
	}
}

func (torn) EndsAt(wsauth.Identity) time.Time { return time.Time{} }
func (torn) Watch(func())                     {}

// If a token is found invalid after a newer token has replaced it, the session
// stays authenticated.
func TestRefreshDuringAuthorize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := torn{newHS256(t, nil), make(chan chan bool, 1)}
		gate, err := wsauth.New(wsauth.Config{Verifier: v})
		if err != nil {
			t.Fatal(err)
		}
		p := connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		answer := make(chan bool)
		v.ask <- answer
		go func() {
			if err := p.Authorize(wsauth.Publish); err == nil {
				t.Error("authorized against the Verifier")
			}
		}()
		synctest.Wait()
		p.say(lasting("pi-1", 2*time.Hour))
		answer <- false
		synctest.Wait()
		if err := p.Authorize(wsauth.Publish); err != nil || len(gate.Sessions()) != 1 {
			t.Error("the refreshed authentication has ended:", err)
		}
		p.Session.Close(1000, "")
	})
}

// With OnExpiryClose, a client that does not read delays the end of no other
// session, and its own session ends in time.
func TestStalledPeerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, audit := newGate(t, wsauth.Config{OnExpiry: wsauth.OnExpiryClose})
		slow, quick := connect(t, gate), connect(t, gate)
		for _, p := range []*peer{slow, quick} {
			p.say(lasting("pi-1", time.Hour))
		}
		slow.mu.Lock()
		slow.stall = make(chan struct{})
		slow.mu.Unlock()
		if n := gate.Revoke("pi-1", time.Now().Add(time.Second)); n != 2 || time.Since(slow.start) != 0 {
			t.Error("revoked", n, "after", time.Since(slow.start))
		}
		quick.expect(t, "quick", "0s authenticated,946688400", "0s close 4401 ")
		time.Sleep(time.Hour)
		slow.expect(t, "slow", "0s authenticated,946688400", "2s aborted")
		want := []string{"authenticated pi-1", "authenticated pi-1", "revoked revoked pi-1", "revoked revoked pi-1",
			"ended revoked pi-1", "ended revoked pi-1"}
		if got := audit.lines(); !slices.Equal(got, want) {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}

// fickle is a Verifier that can declare its identities invalid.
type fickle struct {
	wsauth.Verifier
	against atomic.Bool
	tell    func()
}

func (f *fickle) ValidAt(wsauth.Identity, time.Time) (wsauth.Reason, bool) {
	return "a reason of its own", !f.against.Load()
}

func (*fickle) EndsAt(wsauth.Identity) time.Time { return time.Time{} }
func (f *fickle) Watch(changed func())           { f.tell = changed }

func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fickle{Verifier: newHS256(t, nil)}
		gate, err := wsauth.New(wsauth.Config{Verifier: f})
		if err != nil {
			t.Fatal(err)
		}
		p := connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		f.tell()
		p.expect(t, "before", "0s authenticated,946688400")
		f.against.Store(true)
		f.tell()
		p.expect(t, "after", "0s viewer")
		f.tell()
		p.expect(t, "told once")
		f.against.Store(false)
		if err := p.Authorize(wsauth.Publish); err == nil {
			t.Error("an authentication that has ended is valid again")
		}
		p.Session.Close(1000, "")
	})
}

// Nothing refers to a session after its end, although its token is still valid.
func TestEndedSessionIsForgotten(t *testing.T) {
	gate, _, _ := newGate(t, wsauth.Config{})
	session := func() weak.Pointer[wsauth.Session] {
		s := gate.Attach(newScript(tokenMessage(live("pi-1")), `{}`), wsauth.Peer{})
		if _, err := s.Next(t.Context()); err != nil || len(gate.Sessions()) != 1 {
			t.Fatal(err)
		}
		s.Close(1000, "")
		return weak.Make(s)
	}()
	for range 1000 { // the last goroutine of the session may end a little later
		if runtime.GC(); session.Value() == nil {
			return
		}
		runtime.Gosched()
	}
	t.Error("a timer or a list still holds it")
}

func TestAuthorizeAllocatesNothing(t *testing.T) {
	gate, _, _ := newGate(t, wsauth.Config{})
	s := gate.Attach(newScript(tokenMessage(live("pi-1")), `{}`), wsauth.Peer{})
	defer s.Close(1000, "")
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if s.Authorize(wsauth.Publish) != nil {
			t.Fatal("denied")
		}
	}); n != 0 {
		t.Error(n, "allocations")
	}
}
