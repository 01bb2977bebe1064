package wsauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// verify is a Verifier of a service, which is not as careful as jwtauth.
type verify func(ctx context.Context, token []byte) (wsauth.Identity, error)

func (v verify) Verify(ctx context.Context, token []byte, _ time.Time) (wsauth.Identity, error) {
	return v(ctx, token)
}

// What a Verifier returns decides between a refused token and no decision, on
// each of the ways that a token may take.
func TestErrorsOfVerifier(t *testing.T) {
	bad := &wsauth.Error{Reason: wsauth.ReasonSignature}
	for _, row := range []struct {
		why  string
		err  error
		want string
	}{
		{"an error of its own", errors.New("bad token"), "refused verifier"},
		{"an Error", bad, "refused signature"},
		{"an Error, wrapped", fmt.Errorf("in line 1: %w", bad), "refused signature"},
		{"no decision", &wsauth.UnavailableError{Err: errors.New("down")}, "unavailable unavailable"},
		{"no decision, without a cause", &wsauth.UnavailableError{}, "unavailable unavailable"},
		{"no decision, wrapped", fmt.Errorf("a: %w", fmt.Errorf("b: %w", &wsauth.UnavailableError{})), "unavailable unavailable"},
		{"a context has ended", &url.Error{Op: "Post", URL: "https://id.example", Err: context.Canceled}, "unavailable unavailable"},
		{"a service was too slow", fmt.Errorf("id.example: %w", context.DeadlineExceeded), "unavailable unavailable"},
		{"an Error beside the end of a context", errors.Join(bad, context.Canceled), "refused signature"},
		{"no decision of one of two services", errors.Join(bad, &wsauth.UnavailableError{}), "unavailable unavailable"},
	} {
		r := &record{}
		gate, err := wsauth.New(wsauth.Config{Audit: r.audit, Verifier: verify(func(context.Context, []byte) (wsauth.Identity, error) {
			return wsauth.Identity{}, row.err
		})})
		if err != nil {
			t.Fatal(err)
		}
		code, status := 4401, 401
		if strings.HasPrefix(row.want, "unavailable") {
			code, status = 1013, 503
		}
		byMessage, byHandshake := newScript(tokenMessage("x")), newScript()
		_, err = gate.Attach(byMessage, wsauth.Peer{}).Next(t.Context())
		_, err2 := gate.AttachToken(t.Context(), byHandshake, wsauth.Peer{}, "x")
		w := httptest.NewRecorder()
		_, err3 := gate.Authenticate(w, request("/", "Authorization: Bearer x"), wsauth.FromBearer)
		if err.Error() == "" || err2.Error() == "" || err3.Error() == "" || byMessage.code != code || byHandshake.code != code || w.Code != status {
			t.Errorf("%s: %v, %d; %v, %d; %v, %d", row.why, err, byMessage.code, err2, byHandshake.code, err3, w.Code)
		}
		if got := strings.Join(r.lines(), "; "); got != strings.Join([]string{row.want, row.want, row.want}, "; ") {
			t.Errorf("%s: audit %q", row.why, got)
		}
	}
}

// A Verifier may compare with a secret that is not set, or return what a map
// does not have. Neither lets a client in.
func TestEmptyTokensAndIdentities(t *testing.T) {
	over := time.Now().Add(-time.Second)
	for _, row := range []struct {
		why   string
		token string
		id    wsauth.Identity
		want  string
	}{
		{"an empty token", "", wsauth.Identity{Subject: "ann"}, "refused malformed"},
		{"no subject", "x", wsauth.Identity{Permissions: []string{wsauth.Publish}}, "refused subject"},
		{"expired", "x", wsauth.Identity{Subject: "ann", ExpiresAt: over}, "refused expired ann"},
	} {
		r := &record{}
		gate, err := wsauth.New(wsauth.Config{Audit: r.audit, Verifier: verify(func(context.Context, []byte) (wsauth.Identity, error) {
			return row.id, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := gate.AttachToken(t.Context(), newScript(), wsauth.Peer{}, row.token); s != nil || !errors.Is(err, wsauth.ErrAuthenticationFailed) {
			t.Errorf("%s: by the handshake: %v %v", row.why, s, err)
		}
		if _, err := gate.Attach(newScript(tokenMessage(row.token), errors.New("end")), wsauth.Peer{}).Next(t.Context()); !errors.Is(err, wsauth.ErrAuthenticationFailed) {
			t.Errorf("%s: by a message: %v", row.why, err)
		}
		if got := strings.Join(r.lines(), "; "); got != row.want+"; "+row.want {
			t.Errorf("%s: audit %q", row.why, got)
		}
		if _, err := gate.Verify(t.Context(), []byte(row.token), time.Now()); err == nil {
			t.Errorf("%s: accepted outside of a session", row.why)
		}
		if _, err := gate.Attach(newScript(`{"token":5}`, errors.New("end")), wsauth.Peer{}).Next(t.Context()); !errors.Is(err, wsauth.ErrAuthenticationFailed) {
			t.Errorf("%s: no token in the message: %v", row.why, err)
		}
	}
}

// ledger is a Verifier that knows tokens by their text, and ends them later.
type ledger struct {
	mu      sync.Mutex
	ended   bool
	end     time.Time
	changed func()
}

func (l *ledger) Verify(_ context.Context, token []byte, _ time.Time) (wsauth.Identity, error) {
	return wsauth.Identity{Subject: "ann", TokenID: string(token), Permissions: []string{wsauth.Read}}, nil
}

func (l *ledger) ValidAt(_ wsauth.Identity, now time.Time) (wsauth.Reason, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return wsauth.ReasonRevoked, !l.ended && (l.end.IsZero() || now.Before(l.end))
}

func (l *ledger) EndsAt(wsauth.Identity) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

func (l *ledger) Watch(changed func()) { l.changed = changed }

// set makes a change as a service does.
func (l *ledger) set(change func()) {
	l.mu.Lock()
	change()
	l.mu.Unlock()
	l.changed()
}

// A Rechecker that needs no Handle ends the sessions of its identities, however
// their tokens came, and not those of the caller's logins.
func TestRecheckerWithoutHandle(t *testing.T) {
	l := &ledger{}
	gate, err := wsauth.New(wsauth.Config{Verifier: l})
	if err != nil {
		t.Fatal(err)
	}
	enter := func(id wsauth.Identity) *wsauth.Session {
		s, err := gate.AttachIdentity(t.Context(), newScript(), wsauth.Peer{}, id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close(1000, "") })
		return s
	}
	id, err := gate.Authenticate(httptest.NewRecorder(), request("/", "Authorization: Bearer x"), wsauth.FromBearer)
	if err != nil {
		t.Fatal(err)
	}
	before, own := enter(id), enter(wsauth.Identity{Subject: "bob", Permissions: []string{wsauth.Read}})
	byToken, err := gate.AttachToken(t.Context(), newScript(), wsauth.Peer{}, "y")
	if err != nil {
		t.Fatal(err)
	}
	defer byToken.Close(1000, "")
	l.set(func() { l.ended = true })
	for name, s := range map[string]*wsauth.Session{"before the upgrade": before, "with the handshake": byToken} {
		if s.Authorize(wsauth.Read) == nil {
			t.Error("a token that came", name, "goes on")
		}
	}
	if err := own.Authorize(wsauth.Read); err != nil {
		t.Error("a login of the caller:", err)
	}
	if n := len(gate.Sessions()); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// A token that expires while a slow Verifier decides lets no one in, and one
// that expires soon after ends on time.
func TestSlowVerifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lifetime := 5 * time.Second
		gate, err := wsauth.New(wsauth.Config{OnExpiry: wsauth.OnExpiryClose, Verifier: verify(func(context.Context, []byte) (wsauth.Identity, error) {
			ends := time.Now().Add(lifetime)
			time.Sleep(10 * time.Second)
			return wsauth.Identity{Subject: "ann", ExpiresAt: ends}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		conn := newScript()
		if _, err := gate.AttachToken(t.Context(), conn, wsauth.Peer{}, "x"); !errors.Is(err, wsauth.ErrAuthenticationFailed) || len(conn.wrote) != 1 {
			t.Errorf("an expired token: %v %q", err, conn.wrote)
		}
		lifetime = 15 * time.Second
		s, err := gate.AttachToken(t.Context(), newScript(), wsauth.Peer{}, "x")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-s.Done()
		if took := time.Since(start); took != 5*time.Second {
			t.Error("ended after", took)
		}
	})
}

// An identity without an end may get one later. Its client is warned and told
// on time, as any other.
func TestEndThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		gate, err := wsauth.New(wsauth.Config{Verifier: l})
		if err != nil {
			t.Fatal(err)
		}
		p := connect(t, gate)
		p.say(tokenMessage("x"))
		time.Sleep(time.Hour)
		l.set(func() { l.end = time.Now().Add(90*time.Second + time.Millisecond) })
		time.Sleep(time.Hour)
		p.expect(t, "a later end", "0s authenticated", "1h0m30.001s expiring,946688490", "1h1m30.001s viewer")
		p.Session.Close(1000, "")
	})
}

// A client whose token waits for a slow Verifier at AuthTimeout has not failed:
// it is asked to come again.
func TestAuthTimeoutOfSlowVerifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &record{}
		gate, err := wsauth.New(wsauth.Config{AuthTimeout: 5 * time.Second, Audit: r.audit, Verifier: verify(func(context.Context, []byte) (wsauth.Identity, error) {
			time.Sleep(time.Minute)
			return wsauth.Identity{Subject: "ann"}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		conn := newScript()
		start := time.Now()
		s, err := gate.AttachToken(t.Context(), conn, wsauth.Peer{}, "x")
		if s != nil || !errors.Is(err, wsauth.ErrSessionClosed) || conn.code != 1013 || len(conn.wrote) > 0 {
			t.Errorf("%v %v, %d %q", s, err, conn.code, conn.wrote)
		}
		if took := time.Since(start); took != time.Minute {
			t.Error("returned after", took)
		}
		if got, want := strings.Join(r.lines(), "; "), "unavailable unavailable"; got != want {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}

// A Verifier whose service never answers does not outlive its session.
func TestSessionEndsVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &record{}
		gate, err := wsauth.New(wsauth.Config{AuthTimeout: 5 * time.Second, Audit: r.audit, Verifier: verify(func(ctx context.Context, _ []byte) (wsauth.Identity, error) {
			<-ctx.Done()
			return wsauth.Identity{}, ctx.Err()
		})})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if s, err := gate.AttachToken(t.Context(), newScript(), wsauth.Peer{}, "x"); s != nil || !errors.Is(err, wsauth.ErrSessionClosed) {
			t.Errorf("%v %v", s, err)
		}
		s := gate.Attach(newScript(tokenMessage("x")), wsauth.Peer{})
		time.AfterFunc(time.Second, func() { s.Close(1000, "") })
		if _, err := s.Next(t.Context()); !errors.Is(err, wsauth.ErrSessionClosed) {
			t.Error("after Close:", err)
		}
		if took := time.Since(start); took != 6*time.Second {
			t.Error("returned after", took)
		}
		if got, want := strings.Join(r.lines(), "; "), "unavailable unavailable"; got != want {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}
