package wsauth_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// undecided is a Verifier whose service does not answer.
type undecided struct{ err error }

func (u undecided) Verify(context.Context, []byte, time.Time) (wsauth.Identity, error) {
	return wsauth.Identity{}, &wsauth.UnavailableError{Err: u.err}
}

// The client of a token from the handshake has the same answers as the client
// of a token message.
func TestAttachToken(t *testing.T) {
	gate, _, r := newGate(t, wsauth.Config{})
	conn := newScript()
	s, err := gate.AttachToken(t.Context(), conn, wsauth.Peer{}, live("pi-1"))
	if err != nil || s.Authorize(wsauth.Publish) != nil || len(conn.wrote) != 1 || !strings.HasPrefix(conn.wrote[0], `{"status":"authenticated"`) {
		t.Fatalf("%v %q", err, conn.wrote)
	}
	if last := conn.limits[len(conn.limits)-1]; last != 64<<10 {
		t.Error("the limit of messages is", last)
	}
	s.Close(1000, "")
	for _, token := range []string{"", "a.b.c", live("pi-3")} {
		conn := newScript()
		s, err := gate.AttachToken(t.Context(), conn, wsauth.Peer{}, token)
		if s != nil || !errors.Is(err, wsauth.ErrAuthenticationFailed) || conn.code != 4401 || !slices.Equal(conn.wrote, []string{refusal}) {
			t.Errorf("%q: %v %v %d %q", token, s, err, conn.code, conn.wrote)
		}
	}
	want := []string{"authenticated pi-1", "ended pi-1", "refused malformed", "refused malformed", "refused subject pi-3"}
	if got := r.lines(); !slices.Equal(got, want) {
		t.Errorf("audit %q, want %q", got, want)
	}
}

// A token about which nothing can be decided is not a bad one: the client is
// asked to come again, and no address is penalized.
func TestUndecidedToken(t *testing.T) {
	r := &record{}
	cause := errors.New("no answer from id.example")
	gate, err := wsauth.New(wsauth.Config{Verifier: undecided{cause}, Audit: func(e wsauth.Event) {
		if e.Reason.IsGuess() || !strings.Contains(e.Detail, "id.example") {
			t.Errorf("%+v", e)
		}
		r.audit(e)
	}})
	if err != nil {
		t.Fatal(err)
	}
	first := newScript(tokenMessage(live("pi-1")))
	_, byMessage := gate.Attach(first, wsauth.Peer{}).Next(t.Context())
	second := newScript()
	_, byHandshake := gate.AttachToken(t.Context(), second, wsauth.Peer{}, live("pi-1"))
	for i, err := range []error{byMessage, byHandshake} {
		if u, ok := errors.AsType[*wsauth.UnavailableError](err); !ok || !errors.Is(err, cause) || u.Err != cause {
			t.Error(i, err)
		}
	}
	for i, c := range []*script{first, second} {
		if c.code != 1013 || c.reason != "" || len(c.wrote) > 0 {
			t.Errorf("%d: %d %q %q", i, c.code, c.reason, c.wrote)
		}
	}
	if got, want := r.lines(), []string{"unavailable unavailable", "unavailable unavailable"}; !slices.Equal(got, want) {
		t.Errorf("audit %q", got)
	}
}

// Sessions of the caller's own logins are sessions like all others, and the
// Verifier is not asked about them.
func TestAttachIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		login := time.Now()
		gate, v, r := newGate(t, wsauth.Config{MaxSessions: 2, MaxLifetime: 24 * time.Hour})
		enter := func(id wsauth.Identity) (*wsauth.Session, *script, error) {
			conn := newScript()
			s, err := gate.AttachIdentity(t.Context(), conn, wsauth.Peer{}, id)
			return s, conn, err
		}
		for _, row := range []struct {
			id     wsauth.Identity
			reason string
			why    string
		}{
			{wsauth.Identity{IssuedAt: login}, "subject", "without a name"},
			{wsauth.Identity{Subject: "ann"}, "claims", "MaxLifetime needs the time of the login"},
			{wsauth.Identity{Subject: "ann", IssuedAt: login, ExpiresAt: login}, "expired", "an old login"},
			{wsauth.Identity{Subject: "ann", IssuedAt: login.Add(-24 * time.Hour)}, "expired", "older than MaxLifetime"},
		} {
			s, conn, err := enter(row.id)
			got := r.lines()
			if s != nil || !errors.Is(err, wsauth.ErrAuthenticationFailed) || conn.code != 4401 || len(got) != 1 || !strings.HasPrefix(got[0], "refused "+row.reason) {
				t.Errorf("%s: %v %v, %q", row.why, s, err, got)
			}
		}

		ann := wsauth.Identity{Subject: "ann", Permissions: []string{"read:a", "publish"}, IssuedAt: login}
		s, conn, err := enter(ann)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			permission string
			resources  []string
			ok         bool
		}{
			{"publish", nil, true}, {"publish", []string{"a"}, true}, {"publish", []string{"a", "b"}, true},
			{"read", []string{"a"}, true}, {"read", []string{"b"}, false}, {"read", []string{"a", "b"}, false}, {"read", nil, false},
			{"read", []string{""}, false}, {"rea", []string{"d:a"}, false}, {"", nil, false}, {"admin", nil, false},
		} {
			if err := s.Authorize(row.permission, row.resources...); (err == nil) != row.ok {
				t.Errorf("%s on %q: %v", row.permission, row.resources, err)
			}
		}
		if want := `{"status":"authenticated","expires_at":`; len(conn.wrote) != 1 || !strings.HasPrefix(conn.wrote[0], want) {
			t.Errorf("%q", conn.wrote)
		}
		if err := v.Rotate(keyOf(other)); err != nil { // no matter of a login
			t.Fatal(err)
		}
		if s.Authorize("publish") != nil {
			t.Error("a rotation of keys ended a login")
		}
		second, _, err := enter(ann)
		if err != nil {
			t.Fatal(err)
		}
		if _, conn, err := enter(ann); err == nil || conn.code != 4401 {
			t.Error("a third session:", err)
		}
		time.Sleep(time.Second)
		if n := gate.Revoke("ann", time.Now()); n != 2 {
			t.Error(n, "sessions ended")
		}
		if _, _, err := enter(ann); err == nil {
			t.Error("a revoked login is let in")
		}
		s.Close(1000, "")
		second.Close(1000, "")
	})
}

// strict is a Conn whose Write looks at its context.
type strict struct{ *script }

func (c strict) Write(ctx context.Context, text []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.script.Write(ctx, text)
}

// A server that stops while a client comes does not tell the client that its
// good token is a bad one.
func TestAttachWhileStopping(t *testing.T) {
	gate, _, _ := newGate(t, wsauth.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	byToken, byIdentity := newScript(), newScript()
	_, err := gate.AttachToken(ctx, strict{byToken}, wsauth.Peer{}, live("pi-1"))
	_, err2 := gate.AttachIdentity(ctx, strict{byIdentity}, wsauth.Peer{}, wsauth.Identity{Subject: "ann"})
	if !errors.Is(err, context.Canceled) || !errors.Is(err2, context.Canceled) || byToken.code != 1001 || byIdentity.code != 1001 {
		t.Errorf("%v, %d; %v, %d", err, byToken.code, err2, byIdentity.code)
	}
	if n := len(gate.Sessions()); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A login without an end needs no timer, and lasts until it is revoked.
func TestNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, _ := newGate(t, wsauth.Config{OnExpiry: wsauth.OnExpiryClose})
		conn := newScript()
		s, err := gate.AttachIdentity(t.Context(), conn, wsauth.Peer{}, wsauth.Identity{Subject: "ann", Permissions: []string{wsauth.Read}})
		if err != nil || !slices.Equal(conn.wrote, []string{`{"status":"authenticated"}`}) {
			t.Fatalf("%v %q", err, conn.wrote)
		}
		time.Sleep(10_000 * time.Hour)
		if err := s.Authorize(wsauth.Read); err != nil {
			t.Error(err)
		}
		if list := gate.Sessions(); len(list) != 1 || !list[0].EndsAt.IsZero() {
			t.Errorf("%+v", list)
		}
		if gate.Revoke("ann", time.Now()) != 1 {
			t.Error("not revoked")
		}
		<-s.Done()
		synctest.Wait()
		if conn.code != 4401 {
			t.Error("closed with", conn.code)
		}
	})
}

// Only a client without authentication is sent away after AuthTimeout, whether
// or not it sends anything.
func TestAuthTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, r := newGate(t, wsauth.Config{AuthTimeout: 90 * time.Second})
		silent, known, gone := connect(t, gate), connect(t, gate), newScript()
		known.say(lasting("pi-1", time.Hour))
		gate.Attach(gone, wsauth.Peer{}).Close(1000, "")
		<-known.Authenticated()
		select {
		case <-silent.Authenticated():
			t.Error("a silent client has authenticated")
		default:
		}
		<-silent.Done()
		if took := time.Since(silent.start); took != 90*time.Second {
			t.Error("ended after", took)
		}
		synctest.Wait()
		silent.expect(t, "the silent client", "1m30s close 4401 ")
		if known.Authorize(wsauth.Publish) != nil {
			t.Error("the other client was ended too")
		}
		known.Session.Close(1000, "")
		<-known.Done()
		<-known.Authenticated() // it stays closed
		want := []string{"authenticated pi-1", "refused timeout", "ended pi-1"}
		if got := r.lines(); !slices.Equal(got, want) {
			t.Errorf("audit %q, want %q", got, want)
		}
	})
}

// After the end of its authentication, a client has AuthTimeout again: for
// another token, or until it is sent away.
func TestAuthTimeoutAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, _, r := newGate(t, wsauth.Config{AuthTimeout: 90 * time.Second})
		renews, stays, revoked := connect(t, gate), connect(t, gate), connect(t, gate)
		renews.say(lasting("pi-1", time.Minute))
		stays.say(lasting("pi-1", time.Minute))
		revoked.say(lasting("pi-2", time.Hour))
		time.Sleep(10 * time.Second)
		gate.Revoke("pi-2", time.Now())
		time.Sleep(110 * time.Second)
		renews.say(lasting("pi-1", time.Hour))
		time.Sleep(10 * time.Minute)
		revoked.expect(t, "revoked", "0s authenticated,946688400", "10s viewer", "1m40s close 4401 ")
		stays.expect(t, "stays", "0s authenticated,946684860", "54s expiring,946684860", "1m0s viewer", "2m30s close 4401 ")
		if err := renews.Authorize(wsauth.Publish); err != nil {
			t.Error("with another token:", err)
		}
		renews.Session.Close(1000, "")
		<-stays.Done()
		if got := strings.Join(r.lines(), "; "); strings.Count(got, "refused timeout") != 2 {
			t.Errorf("audit %q", got)
		}
	})
}

// mixed is a Conn that reads binary messages too: those that begin with a NUL.
type mixed struct{ *script }

func (c mixed) Read(ctx context.Context) ([]byte, error) {
	msg, binary, err := c.ReadMessage(ctx)
	if binary {
		return nil, wsauth.ErrBinary
	}
	return msg, err
}

func (c mixed) ReadMessage(ctx context.Context) ([]byte, bool, error) {
	msg, err := c.script.Read(ctx)
	return msg, len(msg) > 0 && msg[0] == 0, err
}

// lines is a Dialect of plain text: the token follows "AUTH ".
type lines struct{}

func (lines) Token(msg []byte) ([]byte, bool, error) {
	token, is := strings.CutPrefix(string(msg), "AUTH ")
	if !is && strings.HasPrefix(string(msg), "!") {
		return nil, false, errors.New("never")
	}
	return []byte(token), is, nil
}

func (lines) Message(s wsauth.Status, at time.Time) []byte { return []byte(strings.ToUpper(string(s))) }

// An application's own messages pass as they are, and a dialect decides which
// those are.
func TestDialects(t *testing.T) {
	const text, binary = "hi {", "\x00\xff"
	for _, row := range []struct {
		name    string
		dialect wsauth.Dialect
		send    []any
		passed  []string
		wrote   []string
		err     error
		code    int
	}{
		{"none: everything passes", wsauth.NoDialect{}, []any{text, tokenMessage("a.b.c"), binary}, []string{text, tokenMessage("a.b.c"), binary}, nil, nil, 0},
		{"own: authenticates", lines{}, []any{"AUTH " + live("pi-1"), text, binary, tokenMessage("x")}, []string{text, binary, tokenMessage("x")}, []string{"AUTHENTICATED"}, nil, 0},
		{"own: a refused token", lines{}, []any{"AUTH x"}, nil, []string{"REFUSED"}, wsauth.ErrAuthenticationFailed, 4401},
		{"own: no token first", lines{}, []any{text}, nil, []string{"REFUSED"}, wsauth.ErrAuthenticationFailed, 4401},
		{"own: binary first", lines{}, []any{binary}, nil, []string{"REFUSED"}, wsauth.ErrAuthenticationFailed, 4401},
		{"own: unreadable", lines{}, []any{"!"}, nil, []string{"INVALID"}, wsauth.ErrInvalidJSON, 1007},
		{"JSON: binary passes after the token", nil, []any{tokenMessage(live("pi-1")), binary}, []string{binary}, []string{"{"}, nil, 0},
	} {
		gate, _, _ := newGate(t, wsauth.Config{Dialect: row.dialect})
		conn := mixed{newScript(row.send...)}
		s := gate.Attach(conn, wsauth.Peer{})
		var passed []string
		var err error
		for len(passed) < len(row.passed) || row.err != nil && err == nil {
			var msg []byte
			var isBinary bool
			if msg, isBinary, err = s.NextMessage(t.Context()); err != nil {
				break
			}
			if passed = append(passed, string(msg)); isBinary != (string(msg) == binary) {
				t.Errorf("%s: %q is binary: %t", row.name, msg, isBinary)
			}
		}
		sameStart := func(got, want string) bool { return strings.HasPrefix(got, want) }
		if !slices.Equal(passed, row.passed) || !errors.Is(err, row.err) || conn.code != row.code || !slices.EqualFunc(conn.wrote, row.wrote, sameStart) {
			t.Errorf("%s: passed %q, wrote %q, %v, %d", row.name, passed, conn.wrote, err, conn.code)
		}
		s.Close(1000, "")
	}
	s, _ := attach(t, mixed{newScript(tokenMessage(live("pi-1")), binary)}, nil)
	if _, err := s.Next(t.Context()); !errors.Is(err, wsauth.ErrBinary) {
		t.Error("Next returns a binary message:", err)
	}
	plain, _ := attach(t, newScript(tokenMessage(live("pi-1")), wsauth.ErrBinary), nil)
	if _, _, err := plain.NextMessage(t.Context()); !errors.Is(err, wsauth.ErrBinary) {
		t.Error("a Conn without ReadMessage:", err)
	}
}

// Two issuers may give the same subject to different users. Their sessions do
// not count together, and no token of one renews a session of the other. A
// revocation is of both.
func TestSubjectsOfIssuers(t *testing.T) {
	gate, err := wsauth.New(wsauth.Config{Dialect: wsauth.NoDialect{}, MaxSessions: 1, OverLimit: wsauth.OverLimitReplace})
	if err != nil {
		t.Fatal(err)
	}
	enter := func(issuer string) *wsauth.Session {
		s, err := gate.AttachIdentity(t.Context(), newScript(), wsauth.Peer{}, wsauth.Identity{Subject: "7", Issuer: issuer})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close(1000, "") })
		return s
	}
	a, b := enter("https://a.example"), enter("https://b.example")
	if n := len(gate.Sessions()); n != 2 {
		t.Errorf("%d sessions of two users", n)
	}
	enter("https://b.example")
	<-b.Done()
	select {
	case <-a.Done():
		t.Error("a user of another issuer was replaced")
	default:
	}
	if n := gate.Revoke("7", time.Now()); n != 2 {
		t.Errorf("%d sessions revoked", n)
	}

	byIssuer := issuers{}
	gate, err = wsauth.New(wsauth.Config{Verifier: byIssuer})
	if err != nil {
		t.Fatal(err)
	}
	conn := newScript(tokenMessage("https://a.example"), tokenMessage("https://a.example"), tokenMessage("https://b.example"))
	if _, err := gate.Attach(conn, wsauth.Peer{}).Next(t.Context()); !errors.Is(err, wsauth.ErrAuthenticationFailed) || len(conn.wrote) != 3 {
		t.Errorf("%v %q", err, conn.wrote)
	}
}

// issuers is a Verifier of tokens that are the names of their issuers.
type issuers struct{}

func (issuers) Verify(_ context.Context, token []byte, _ time.Time) (wsauth.Identity, error) {
	return wsauth.Identity{Subject: "7", Issuer: string(token)}, nil
}
