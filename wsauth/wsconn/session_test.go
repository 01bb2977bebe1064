package wsconn_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

var secret = []byte("a secret of the tests, long enough to be one")

func newGate(t testing.TB) (*wsauth.Gate, *jwtauth.Verifier) {
	t.Helper()
	v, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{Secret: secret}}, Subjects: []string{"pi-1", "pi-2"}})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: v, CloseTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	return gate, v
}

// sign returns a token of a new verifier, which may have other devices, keys
// and times.
func sign(t testing.TB, device string, key []byte, at time.Time) string {
	t.Helper()
	v, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{Secret: key}}, Subjects: []string{device}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := v.SignAt(wsauth.ClaimSet{Subject: device, Scope: []string{wsauth.Publish}, ExpiresAt: at.Add(time.Hour)}, at)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// serveSessions only reads; it publishes nothing.
func serveSessions(t testing.TB, cfg wsconn.Config) *server {
	gate, _ := newGate(t)
	return serve(t, cfg, func(c *wsconn.Conn) {
		s := gate.Attach(c, wsauth.Peer{})
		defer s.Close(1000, "")
		for {
			if _, err := s.Next(context.Background()); err != nil {
				return
			}
		}
	})
}

// Every invalid token gets the same bytes as an answer.
func TestRefusalsAreIdenticalOnTheWire(t *testing.T) {
	leakCheck(t)
	s := serveSessions(t, orderly)
	now := time.Now()
	valid := sign(t, "pi-1", secret, now)
	want := "\x81\x21" + `{"error":"Authentication failed"}` + "\x88\x02\x11\x31"
	for name, message := range map[string]string{
		"unknown device": `{"token":"` + sign(t, "pi-3", secret, now) + `"}`,
		"bad signature":  `{"token":"` + sign(t, "pi-1", secret[1:], now) + `"}`,
		"expired":        `{"token":"` + sign(t, "pi-1", secret, now.Add(-2*time.Hour)) + `"}`,
		"malformed":      `{"token":"` + valid + `="}`,
		"no text":        `{"token":5}`,
		"none":           `{"text":"hi"}`,
	} {
		c := s.dial(t)
		c.send(t, opText, message)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
		c.send(t, opClose, closing(4401, ""))
		if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil {
			t.Errorf("%s: then %q %v", name, rest, err)
		}
	}
}

// The read limit is 4 KiB before authentication and 64 KiB after it.
func TestLimitsFollowTheSession(t *testing.T) {
	token := `{"token":"` + sign(t, "pi-1", secret, time.Now()) + `"}`
	text := func(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }
	s := serveSessions(t, orderly)
	for _, row := range []struct {
		name     string
		messages []string
		code     int
	}{
		{"too big before a token", []string{text(4097)}, 1009},
		{"as big as may be before a token", []string{text(4096)}, 4401},
		{"too big after a token", []string{token, text(65537)}, 1009},
		{"as big as may be after a token", []string{token, text(65536), "x"}, 1007},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := s.dial(t)
			for _, m := range row.messages {
				c.send(t, opText, m)
			}
			c.wantClose(t, row.code, "")
		})
	}
}

// A client that authenticates and then stalls inside a frame can be
// disconnected like any other.
func TestStalledPublisherEnds(t *testing.T) {
	leakCheck(t)
	gate, _ := newGate(t)
	ended := make(chan error, 1)
	s := serve(t, orderly, func(c *wsconn.Conn) {
		session := gate.Attach(c, wsauth.Peer{})
		go func() {
			_, err := session.Next(context.Background())
			ended <- err
		}()
		for session.Authorize(wsauth.Publish) != nil {
			<-time.After(time.Millisecond)
		}
		session.Close(1001, "")
	})
	c := s.dial(t)
	c.send(t, opText, `{"token":"`+sign(t, "pi-1", secret, time.Now())+`"}`)
	c.Write(header(opText, 1<<40))
	c.wantClose(t, 1001, "")
	within(t, "Next", func() {
		if err := <-ended; !errors.Is(err, wsconn.ErrClosed) && !errors.Is(err, wsauth.ErrSessionClosed) {
			t.Error(err)
		}
	})
}
