package wsauth_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

const (
	refusal = `{"error":"Authentication failed"}`
	notJSON = `{"error":"Invalid JSON"}`
)

func attach(t testing.TB, conn wsauth.Conn, audit func(wsauth.Event)) (*wsauth.Session, *jwtauth.Verifier) {
	t.Helper()
	v := newHS256(t, nil)
	gate, err := wsauth.New(wsauth.Config{Verifier: v, Audit: audit})
	if err != nil {
		t.Fatal(err)
	}
	return gate.Attach(conn, wsauth.Peer{ID: "peer"}), v
}

// live returns a token that is valid now.
func live(device string) string {
	return forged(fmt.Sprintf(`{"device":%q,"exp":%d}`, device, time.Now().Unix()+3600))
}

// Every kind of message, before and after authentication.
func TestMessages(t *testing.T) {
	mine, theirs := live("pi-1"), live("pi-2")
	ok := fmt.Sprintf(`{"status":"authenticated","expires_at":%d}`, time.Now().Unix()+3600)
	late := forged(fmt.Sprintf(`{"device":"pi-1","exp":%d}`, time.Now().Unix()-1))
	soon := forged(fmt.Sprintf(`{"device":"pi-1","exp":%d}`, time.Now().Unix()+60))
	alien := forged(fmt.Sprintf(`{"device":"x","exp":%d}`, time.Now().Unix()+60))
	const failed, passed, again, bad, binary, tooBig, broken = "failed", "passed", "again", "bad", "binary", "too big", "broken"

	for _, row := range []struct {
		name            string
		msg             any
		before, after   string
		reason, reason2 wsauth.Reason
	}{
		{"a token", tokenMessage(mine), again, again, "", ""},
		{"a token and other fields", `{"text":"hi","token":"` + mine + `","x":[]}`, again, again, "", ""},
		{"the name in escapes", `{"\u0074oken":"` + mine + `"}`, again, again, "", ""},
		{"a token of another device", tokenMessage(theirs), again, failed, "", wsauth.ReasonOtherSubject},
		{"a token that expires earlier", tokenMessage(soon), again, failed, "", wsauth.ReasonOlder},
		{"an expired token", tokenMessage(late), failed, failed, wsauth.ReasonExpired, wsauth.ReasonExpired},
		{"a token of an unknown device", tokenMessage(alien), failed, failed, wsauth.ReasonSubject, wsauth.ReasonSubject},
		{"a token of another key", tokenMessage(forge.HS256(common, good(""), other)), failed, failed, wsauth.ReasonSignature, wsauth.ReasonSignature},
		{"no token at all", tokenMessage("x"), failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"an empty token", `{"token":""}`, failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"token null", `{"token":null}`, failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"token 5", `{"token":5}`, failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"token in a list", `{"token":["` + mine + `"]}`, failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"token in an object", `{"token":{"token":"` + mine + `"}}`, failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"token with half a surrogate pair", `{"token":"\ud800"}`, failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"two tokens, both good", `{"token":"` + mine + `","token":"` + mine + `"}`, failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"two tokens, one in escapes", `{"token":"` + mine + `","tok\u0065n":"` + mine + `"}`, failed, failed, wsauth.ReasonMalformed, wsauth.ReasonMalformed},
		{"Token, which is another name", `{"Token":"` + mine + `"}`, failed, passed, wsauth.ReasonNoToken, ""},
		{"a token further down", `{"x":{"token":"` + mine + `"}}`, failed, passed, wsauth.ReasonNoToken, ""},
		{"a publish", `{"text":"hi"}`, failed, passed, wsauth.ReasonNoToken, ""},
		{"a number", `5`, failed, passed, wsauth.ReasonNoToken, ""},
		{"null", ` null `, failed, passed, wsauth.ReasonNoToken, ""},
		{"a huge number", `1e999999`, failed, passed, wsauth.ReasonNoToken, ""},
		{"as deep as allowed", deep(32), failed, passed, wsauth.ReasonNoToken, ""},
		{"deeper", deep(33), bad, bad, "", ""},
		{"deep beyond any stack", strings.Repeat("[", 60000), bad, bad, "", ""},
		{"nothing", ``, bad, bad, "", ""},
		{"half an object", `{"token":"` + mine + `"`, bad, bad, "", ""},
		{"two values", `{"token":"` + mine + `"}{}`, bad, bad, "", ""},
		{"a trailing comma", `{"text":"hi",}`, bad, bad, "", ""},
		{"single quotes", `{'text':'hi'}`, bad, bad, "", ""},
		{"a control character", "{\"text\":\"a\x01\"}", bad, bad, "", ""},
		{"NaN", `NaN`, bad, bad, "", ""},
		{"a byte order mark", "\ufeff{}", bad, bad, "", ""},
		{"broken UTF-8 from a Conn that does not look", "{\"text\":\"\xff\"}", bad, bad, "", ""},
		{"broken UTF-8", wsauth.ErrInvalidUTF8, broken, broken, "", ""},
		{"binary", fmt.Errorf("wrapped: %w", wsauth.ErrBinary), binary, binary, "", ""},
		{"too big", wsauth.ErrTooBig, tooBig, tooBig, "", ""},
	} {
		for _, authenticated := range []bool{false, true} {
			want, reason := row.before, row.reason
			conn := newScript(row.msg)
			var events []wsauth.Event
			if authenticated {
				want, reason = row.after, row.reason2
				conn = newScript(tokenMessage(mine), row.msg)
			}
			s, _ := attach(t, conn, func(e wsauth.Event) { events = append(events, e) })
			ctx, cancel := context.WithCancel(t.Context())
			if want == again {
				conn.in = append(conn.in, `{"text":"published"}`)
			}
			msg, err := s.Next(ctx)
			cancel()
			name := fmt.Sprintf("%s, authenticated %t", row.name, authenticated)
			if authenticated {
				if len(conn.wrote) == 0 || conn.wrote[0] != ok {
					t.Fatalf("%s: %q", name, conn.wrote)
				}
				conn.wrote, events = conn.wrote[1:], events[1:]
			}

			type outcome struct {
				wrote []string
				code  int
				err   error
			}
			expect := map[string]outcome{
				failed: {[]string{refusal}, 4401, wsauth.ErrAuthenticationFailed},
				bad:    {[]string{notJSON}, 1007, wsauth.ErrInvalidJSON},
				broken: {[]string{notJSON}, 1007, wsauth.ErrInvalidUTF8},
				binary: {[]string{notJSON}, 1003, wsauth.ErrBinary},
				tooBig: {nil, 1009, wsauth.ErrTooBig},
				passed: {nil, 0, nil},
				again:  {conn.wrote, 0, nil},
			}[want]
			if !slices.Equal(conn.wrote, expect.wrote) || conn.code != expect.code || conn.reason != "" || !errors.Is(err, expect.err) {
				t.Errorf("%s: wrote %q, closed %d %q, error %v; want %+v", name, conn.wrote, conn.code, conn.reason, err, expect)
			}
			if want == again && (len(conn.wrote) != 1 || !strings.HasPrefix(conn.wrote[0], `{"status":"authenticated","expires_at":`)) {
				t.Errorf("%s: wrote %q", name, conn.wrote)
			}
			if want == passed && string(msg) != row.msg || want == again && string(msg) != `{"text":"published"}` {
				t.Errorf("%s: returned %q", name, msg)
			}
			if want != passed && want != again {
				if msg != nil {
					t.Errorf("%s: returned %q", name, msg)
				}
				if _, err := s.Next(t.Context()); !errors.Is(err, wsauth.ErrSessionClosed) {
					t.Errorf("%s: goes on after its end: %v", name, err)
				}
				if err := s.Reply(t.Context(), []byte("{}")); !errors.Is(err, wsauth.ErrSessionClosed) {
					t.Errorf("%s: replies after its end: %v", name, err)
				}
			}
			if want == failed && (len(events) == 0 || events[0].Kind != wsauth.EventRefused || events[0].Reason != reason) {
				t.Errorf("%s: audit %+v, want %q", name, events, reason)
			}
			for _, e := range events {
				if line := fmt.Sprintf("%+v", e); strings.Contains(line, mine) || strings.Contains(line, "eyJ") {
					t.Errorf("%s: a token in the audit: %s", name, line)
				}
			}
			s.Close(1000, "")
		}
	}
}

func TestReadLimits(t *testing.T) {
	conn := newScript(tokenMessage(live("pi-1")), `{}`)
	s, _ := attach(t, conn, nil)
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []int64{4 << 10, 64 << 10}; !slices.Equal(conn.limits, want) {
		t.Error(conn.limits)
	}
}

// An authentication ends exactly at its time, on the open connection.
func TestAuthorize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []wsauth.Event
		conn := newScript(tokenMessage(live("pi-1")), `{}`)
		s, v := attach(t, conn, func(e wsauth.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		})
		defer s.Close(1000, "")
		denied := func(p string) wsauth.Reason {
			err := s.Authorize(p)
			if err == nil {
				return ""
			}
			e, ok := errors.AsType[*wsauth.Error](err)
			if !ok || e.Permission != p {
				t.Fatal(err)
			}
			return e.Reason
		}
		if got := denied(wsauth.Publish); got != wsauth.ReasonNotAuthenticated {
			t.Error("before:", got)
		}
		if _, ok := s.Identity(); ok {
			t.Error("an identity before authentication")
		}
		s.Next(t.Context())
		if id, ok := s.Identity(); !ok || id.Subject != "pi-1" {
			t.Error(id, ok)
		}
		if got := denied(wsauth.Admin); got != wsauth.ReasonPermission {
			t.Error("admin:", got)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		if got := denied(wsauth.Publish); got != "" {
			t.Error("in the last instant:", got)
		}
		time.Sleep(time.Nanosecond)
		for range 2 {
			if got := denied(wsauth.Publish); got != wsauth.ReasonExpired {
				t.Error("after:", got)
			}
			if got := denied(wsauth.Admin); got != wsauth.ReasonExpired {
				t.Error("after, admin:", got)
			}
		}
		synctest.Wait()
		if len(events) != 3 || events[1].Kind != wsauth.EventDenied || events[1].Reason != wsauth.ReasonPermission ||
			events[2].Kind != wsauth.EventExpired || events[2].Reason != wsauth.ReasonExpired {
			t.Errorf("the end is to be audited once: %+v", events)
		}

		// A new token on the same connection renews the authentication.
		conn.in = []any{tokenMessage(live("pi-1")), `{}`}
		s.Next(t.Context())
		if got := denied(wsauth.Publish); got != "" {
			t.Error("renewed:", got)
		}
		// Without the key, the authentication ends.
		if err := v.Rotate(jwtauth.Key{Secret: other}); err != nil {
			t.Fatal(err)
		}
		if got := denied(wsauth.Publish); got != wsauth.ReasonRevoked {
			t.Error("key withdrawn:", got)
		}
	})
}

// stuck is a Conn whose methods wait forever, and Abort too if deaf is set.
type stuck struct {
	*script
	deaf    bool
	aborted chan struct{}
}

func (c *stuck) Write(context.Context, []byte) error { <-c.aborted; return errors.New("aborted") }
func (c *stuck) Close(int, string) error             { <-c.aborted; return errors.New("aborted") }

func (c *stuck) Abort() error {
	if c.deaf {
		<-c.aborted
		return nil
	}
	close(c.aborted)
	return nil
}

// A refused connection ends in time, whatever the Conn does.
func TestBoundedEnd(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			conn := &stuck{newScript(`{}`), deaf, make(chan struct{})}
			s, _ := attach(t, conn, nil)
			start := time.Now()
			if _, err := s.Next(t.Context()); !errors.Is(err, wsauth.ErrAuthenticationFailed) {
				t.Error(err)
			}
			bound := 2 * time.Second
			if deaf {
				bound *= 2
				close(conn.aborted)
			}
			if got := time.Since(start); got != bound {
				t.Errorf("took %v, want %v", got, bound)
			}
			if err := s.Close(1000, ""); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the second Close does not know how the first went:", err)
			}
		})
	}
}
