package refresh_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// A thief who refreshes has a session until the device refreshes: then both
// lose theirs. This also works if everything happens at the beginning of one
// second, the unit of "iat".
func TestIssuerReuseEndsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, err := wsauth.New(wsauth.Config{Verifier: newHS256(t)})
		if err != nil {
			t.Fatal(err)
		}
		i, _ := newIssuer(t, func(c *refresh.Config) {
			c.OnRevoked = func(r refresh.Revocation) { gate.Revoke(r.Family.Subject, r.IssuedBefore) }
		})
		first := issueNow(t, i)
		stolen, err := i.Refresh(t.Context(), first.RefreshToken, wsauth.Peer{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.Refresh(t.Context(), stolen.RefreshToken, wsauth.Peer{}); err != nil {
			t.Fatal(err)
		}
		var sessions []*wsauth.Session
		for _, p := range []refresh.Pair{first, stolen} {
			s := gate.Attach(&script{[]string{`{"token":"` + p.Token + `"}`, "{}"}}, wsauth.Peer{})
			defer s.Close(1000, "")
			if _, err := s.Next(t.Context()); err != nil || s.Authorize(wsauth.Publish) != nil {
				t.Fatal("not authenticated:", err)
			}
			sessions = append(sessions, s)
		}
		if _, err := i.Refresh(t.Context(), first.RefreshToken, wsauth.Peer{}); reasonOf(t, err) != wsauth.ReasonReused {
			t.Fatal(err)
		}
		for n, s := range sessions {
			denied, ok := errors.AsType[*wsauth.Error](s.Authorize(wsauth.Publish))
			if !ok || denied.Reason != wsauth.ReasonRevoked {
				t.Errorf("session %d: %v", n, denied)
			}
		}
		if _, err := gate.Verify(t.Context(), []byte(stolen.Token), time.Now()); err == nil {
			t.Error("the stolen access token is still good")
		}
	})
}
