package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// withAuth gives the server an AUTH_DIR.
func withAuth(dir string) func(*config.Config) {
	return func(c *config.Config) {
		c.AuthDir, c.AccessLifetime, c.RefreshLifetime = dir, 15*time.Minute, time.Hour
		c.Devices = []string{testDevice, "pi-2"}
		crowded(c)
	}
}

// withBriefAuth gives the devices tokens that expire within the test, and not
// before a slow machine has used them.
func withBriefAuth(dir string) func(*config.Config) {
	return func(c *config.Config) { withAuth(dir)(c); c.AccessLifetime = 5 * time.Second }
}

func (s *testSite) pair(device string) refresh.Pair {
	s.t.Helper()
	p, err := authority.NewPair(s.t.Context(), site.Grants(s.cfg), refresh.Grant{Subject: device})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// refresh exchanges a refresh token over HTTP.
func (s *testSite) refresh(token string) (status int, token1, refresh1 string) {
	s.t.Helper()
	res, err := http.Post("http://"+s.addr+authority.RefreshPath, "application/json", strings.NewReader(`{"refresh_token":"`+token+`"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Token        string `json:"token"`
		RefreshToken string `json:"refresh_token"`
	}
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			s.t.Fatal(err)
		}
	}
	return res.StatusCode, answer.Token, answer.RefreshToken
}

// A device with refresh tokens renews its permission on the open connection. If
// it does not renew in time, it loses the permission, and it gets the
// permission back on the same connection.
func guideRefresh(t *testing.T) {
	s := start(t, withBriefAuth(t.TempDir()))
	first := s.pair(testDevice)
	p := s.viewer()
	p.authenticate(first.Token)

	p.await(func(m map[string]any) bool { return m["status"] == "expiring" })
	status, second, next := s.refresh(first.RefreshToken)
	if status != http.StatusOK || second == first.Token || next == first.RefreshToken {
		t.Fatalf("status %d, or nothing new", status)
	}
	p.authenticate(second)
	p.send(`{"text":"a","id":"1"}`)
	p.await(func(m map[string]any) bool { return m["ack"] == "1" })
	p.await(func(m map[string]any) bool { return m["status"] == "viewer" }) // it was not renewed again

	status, third, _ := s.refresh(next)
	if status != http.StatusOK {
		t.Fatal(status)
	}
	p.authenticate(third)
	p.send(`{"text":"b","id":"2"}`)
	p.await(func(m map[string]any) bool { return m["ack"] == "2" })
}

// A refresh token that is used twice has two holders. Both lose every token at
// once, and the open session ends.
func TestReusedRefreshToken(t *testing.T) {
	s := start(t, withAuth(t.TempDir()))
	stolen := s.pair(testDevice)
	_, token, next := s.refresh(stolen.RefreshToken)
	p := s.viewer()
	p.authenticate(token)
	_, _, last := s.refresh(next) // ends the grace of the previous token
	if status, _, _ := s.refresh(stolen.RefreshToken); status != http.StatusUnauthorized {
		t.Errorf("the thief got %d", status)
	}
	p.await(func(m map[string]any) bool { return m["status"] == "viewer" })
	if status, _, _ := s.refresh(last); status != http.StatusUnauthorized {
		t.Errorf("the owner got %d", status)
	}
	if len(s.logs.Events("auth")) == 0 || !strings.Contains(s.logs.String(), `"outcome":"family_revoked"`) {
		t.Errorf("not in the audit:\n%s", s.logs)
	}
}

// An address that keeps guessing refresh tokens may send no token, on the
// WebSocket too, and may still watch.
func TestRefreshPenalty(t *testing.T) {
	s := start(t, func(c *config.Config) { withAuth(t.TempDir())(c); c.Failures = 3 })
	good := s.pair(testDevice)
	for range 3 {
		if status, _, _ := s.refresh("guess"); status != http.StatusUnauthorized {
			t.Fatal(status)
		}
	}
	if status, _, _ := s.refresh(good.RefreshToken); status != http.StatusForbidden {
		t.Errorf("a blocked address got %d", status)
	}
	if !s.barred("127.0.0.1") {
		t.Error("on the WebSocket, tokens are accepted")
	}
}

// barred reports whether a valid token from an address is refused. The address
// may watch in either case.
func (s *testSite) barred(addr string) bool {
	s.t.Helper()
	p := s.viewer(from(addr)...)
	p.send(`{"token":"` + s.token(testDevice, time.Hour) + `"}`)
	m := p.await(func(m map[string]any) bool { return m["status"] != nil || m["error"] != nil })
	p.cut()
	return m["error"] == "Authentication failed"
}

// A penalty is for guesses. A device that is at home behind the same address is
// not locked out by them, and neither is one whose genuine tokens are refused
// for another reason than being wrong.
func TestPenaltySparesDevices(t *testing.T) {
	s := start(t, func(c *config.Config) {
		trustLoopback(c)
		crowded(c)
		c.Failures, c.DeviceSessions = 3, 1
		c.Devices = []string{testDevice, "pi-2"}
	})
	const museum, away = "192.0.2.50", "192.0.2.51"
	device := s.viewer(from(museum)...)
	device.authenticate(s.token("pi-2", time.Hour))
	for range 5 {
		s.refuse(museum)
	}
	if s.barred(museum) {
		t.Error("guesses of a neighbour lock a publishing device's address out")
	}
	device.leave()
	// A connection is forgotten after the end of its session was audited.
	testkit.Eventually(t, "the device has left", func() bool { return s.srv.Relay.Len() == 0 })
	for range 3 {
		s.refuse(museum)
	}
	if !s.barred(museum) {
		t.Error("without a device, guesses are free")
	}

	// The only session of the device is open elsewhere.
	other := s.viewer()
	other.authenticate(s.token(testDevice, time.Hour))
	expired := testkit.Forge(testSecret, hs256, claims(testDevice, time.Now().Add(-time.Hour)))
	for range 5 {
		for _, token := range []string{s.token(testDevice, time.Hour), expired} {
			p := s.viewer(from(away)...)
			p.send(`{"token":"` + token + `"}`)
			p.end()
		}
	}
	other.leave()
	testkit.Eventually(t, "the session has ended", func() bool { return s.srv.Relay.Len() == 0 })
	if s.barred(away) {
		t.Error("genuine tokens count as guesses")
	}
}

func TestNoRefreshWithoutDirectory(t *testing.T) {
	if res, _ := start(t, nil).do("POST", authority.RefreshPath); res.StatusCode != http.StatusNotFound {
		t.Errorf("got %d", res.StatusCode)
	}
}

// Pairs and revocations outlast the server.
func TestAuthSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, withAuth(dir))
	kept, lost := s.pair(testDevice), s.pair("pi-2")
	old := s.token("pi-2", time.Hour)
	if code, out := s.verb("revoke", "pi-2"); code != 0 || !strings.Contains(out, "1 families of refresh tokens") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, withAuth(dir))
	if status, _, _ := s.refresh(kept.RefreshToken); status != http.StatusOK {
		t.Errorf("the pair that was there before: %d", status)
	}
	if status, _, _ := s.refresh(lost.RefreshToken); status != http.StatusUnauthorized {
		t.Errorf("the revoked pair: %d", status)
	}
	if _, code := parse(t, answerTo(t, s, `{"token":"`+old+`"}`)); code != 4401 {
		t.Errorf("the revoked token: %d", code)
	}
	if info, err := os.Stat(filepath.Join(dir, "revocations.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
}

// JSON cannot hold every offset that a call can send. Such a time does not keep
// later revocations out of the file.
func TestRevocationOfAnOddTime(t *testing.T) {
	s := start(t, withAuth(t.TempDir()))
	code, out := s.verb("revoke", "-before", "2026-11-24T18:00:00+24:00", testDevice)
	if code != 0 || !strings.Contains(out, "are revoked") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if code, out := s.verb("revoke", "pi-2"); code != 0 {
		t.Errorf("exit code %d: %s", code, out)
	}
	text, err := os.ReadFile(filepath.Join(s.cfg.AuthDir, "revocations.json"))
	var kept map[string]time.Time
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil || len(kept) != 2 {
		t.Errorf("%s %v", text, err)
	}
}

// If a family of refresh tokens began before the time, all access tokens until
// now are revoked, and the answer reports that. Without such a family, tokens
// issued since the time stay valid.
func TestRevokedBefore(t *testing.T) {
	for _, line := range []bool{false, true} {
		s := start(t, withAuth(t.TempDir()))
		if line {
			s.pair(testDevice)
		}
		before := time.Now().Add(time.Second) // the family, if any, is older
		young, err := verifier(t, s.cfg).SignAt(wsauth.ClaimSet{
			Subject: testDevice, IssuedAt: before.Add(time.Second), ExpiresAt: before.Add(time.Hour),
		}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		p := s.viewer()
		p.authenticate(young)
		done, err := s.srv.Authority.Revoke(t.Context(), "a test", testDevice, before)
		if err != nil || (done.Families == 1) != line || done.Before.Equal(before) == line {
			t.Errorf("with a family %t: %+v %v", line, done, err)
		}
		if !line && done.Sessions != 0 {
			t.Errorf("a token issued since is revoked: %+v", done)
		}
	}
}

// If two reloads overlap, the secrets that were read first do not stay in
// force.
func TestReloadsAreOneAfterTheOther(t *testing.T) {
	s := start(t, nil)
	old := environment(map[string]string{"JWT_SECRET": newSecret()})
	reading, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := func(name string) (string, bool) {
		v, ok := old(name)
		if name == "LOG_FORMAT" { // after the secret
			once.Do(func() { close(reading); <-goOn })
		}
		return v, ok
	}
	s.env.Store(&slow)
	var both sync.WaitGroup
	both.Go(func() { _ = s.srv.Reload() })
	<-reading
	next := environment(nil)
	s.env.Store(&next)
	both.Go(func() { _ = s.srv.Reload() })
	close(goOn)
	both.Wait()
	s.publisher()
}

// The operator lists the connections that may publish, ends one, and revokes a
// device's tokens. Both take effect on open connections at once.
func guideSessions(t *testing.T) {
	s := start(t, func(c *config.Config) {
		withAuth(t.TempDir())(c)
		c.DeviceSessions, c.OverSessions = 2, wsauth.OverLimitReplace
	})
	if code, out := s.verb("sessions"); code != 0 || !strings.Contains(out, "No connection") {
		t.Errorf("exit code %d: %s", code, out)
	}
	first, second, third := s.publisher(), s.publisher(), s.viewer()
	third.authenticate(s.token(testDevice, time.Hour))
	if _, code := first.end(); code != 4409 {
		t.Errorf("one too many replaces the oldest: code %d", code)
	}

	code, out := s.verb("sessions", "-json")
	var list []struct{ ID, Device, Addr string }
	if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil || len(list) != 2 || list[0].Device != testDevice || list[0].Addr != "127.0.0.1" {
		t.Fatalf("exit code %d: %s", code, out)
	}
	if code, out := s.verb("sessions"); code != 0 || !strings.Contains(out, list[0].ID) || !strings.Contains(out, testDevice) {
		t.Errorf("exit code %d: %s", code, out)
	}
	if code, out := s.verb("sessions", "-end", list[0].ID); code != 0 || !strings.Contains(out, "ended") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if _, code := second.end(); code != 1008 {
		t.Errorf("ended: code %d", code)
	}
	if code, out := s.verb("sessions", "-end", list[0].ID); code != exitFailed || !strings.Contains(out, "404") {
		t.Errorf("ended twice: exit code %d: %s", code, out)
	}
	if code, out := s.verb("revoke", testDevice); code != 0 || !strings.Contains(out, "1 sessions") {
		t.Errorf("exit code %d: %s", code, out)
	}
	third.await(func(m map[string]any) bool { return m["status"] == "viewer" })
}

// A role has its permissions, and a token's scope can only reduce them.
func guideRoles(t *testing.T) {
	s := start(t, crowded)
	for _, row := range []struct {
		why              string
		grant            refresh.Grant
		publish, operate bool
	}{
		{"no role is publisher", refresh.Grant{}, true, false},
		{"publisher", refresh.Grant{Role: "publisher"}, true, false},
		{"admin may both", refresh.Grant{Role: "admin"}, true, true},
		{"limited to one", refresh.Grant{Role: "admin", Scope: []string{wsauth.Admin}}, false, true},
		{"limited to the other", refresh.Grant{Role: "admin", Scope: []string{wsauth.Publish}}, true, false},
		{"a scope adds nothing", refresh.Grant{Scope: []string{wsauth.Admin}}, false, false},
	} {
		row.grant.Subject = testDevice
		token, err := authority.Sign(site.Grants(s.cfg), row.grant, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		p := s.viewer()
		p.authenticate(token)
		p.send(`{"text":"x","id":"1"}`)
		m := p.await(func(m map[string]any) bool { return m["ack"] != nil || m["status"] != nil })
		if published := m["ack"] != nil; published != row.publish {
			t.Errorf("%s: publish: got %t", row.why, published)
		}
		res, _ := (&testSite{t: t, addr: s.op}).get("/sessions", "Authorization", "Bearer "+token)
		if may := res.StatusCode == http.StatusOK; may != row.operate {
			t.Errorf("%s: operate: got %s", row.why, res.Status)
		}
		p.leave()
	}
	// The operator's own tokens open nothing else.
	own, err := authority.OperatorToken(s.cfg.Keys(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, code := parse(t, answerTo(t, s, `{"token":"`+own+`"}`)); code != 4401 {
		t.Errorf("an operator's token on the WebSocket: %d", code)
	}
}

// Every outcome is logged with the device, the address and the time, and
// without the token.
func guideAudit(t *testing.T) {
	s := start(t, func(c *config.Config) { withBriefAuth(t.TempDir())(c); c.Production = true })
	pair := s.pair(testDevice)
	p := s.viewer()
	p.authenticate(pair.Token)
	_, second, _ := s.refresh(pair.RefreshToken)
	p.authenticate(second)
	s.refresh("guess")
	answerTo(t, s, `{"token":"guess"}`)
	connect(t, s.addr, "Origin", "https://evil.example")
	p.await(func(m map[string]any) bool { return m["status"] == "viewer" })
	p.authenticate(s.token(testDevice, time.Hour))
	s.verb("revoke", testDevice)
	p.await(func(m map[string]any) bool { return m["status"] == "viewer" })
	p.leave()
	for _, outcome := range []string{
		"authenticated", "refreshed", "refused", "pair_rotated", "pair_refused", "expired", "revoked", "family_revoked", "origin_refused", "ended",
	} {
		testkit.Eventually(t, outcome+" is in the audit", func() bool {
			for _, e := range s.logs.Events("auth") {
				if e["outcome"] == outcome {
					return e["time"] != nil && e["addr"] != nil
				}
			}
			return false
		})
	}
	for _, secret := range []string{pair.Token, pair.RefreshToken, second} {
		if strings.Contains(s.logs.String(), secret) {
			t.Error("a token is in the log")
		}
	}
}

// The operator can change the secret of a running server with a command, with
// and without a grace for old tokens.
func guideRotate(t *testing.T) {
	const renewed = "Zk3vQ8wB1nXy6MrT0uHc5LdJ2sGpFa7E"
	secret, previous := testSecret, ""
	cfg := testConfig(t)
	srv := start(t, crowded)
	env := func(name string) (string, bool) {
		switch name {
		case "JWT_SECRET":
			return secret, true
		case "JWT_SECRET_PREVIOUS":
			return previous, true
		}
		return environment(nil)(name)
	}
	srv.env.Store(&env)
	device := srv.publisher()
	// This is the work of the operator's call. A test cannot change the
	// environment of its own process.
	secret, previous = renewed, testSecret
	if err := srv.srv.Reload(); err != nil {
		t.Fatal(err)
	}
	device.send(`{"text":"still here","id":"1"}`)
	device.await(func(m map[string]any) bool { return m["ack"] == "1" })
	srv.viewer().authenticate(testkit.Forge(renewed, hs256, claims(testDevice, time.Now().Add(time.Hour))))
	if code, out := srv.verb("keys"); code != 0 || !strings.Contains(out, "current") || !strings.Contains(out, "previous") {
		t.Errorf("exit code %d, with a token of the previous key: %s", code, out)
	}
	previous = ""
	if err := srv.srv.Reload(); err != nil {
		t.Fatal(err)
	}
	device.await(func(m map[string]any) bool { return m["status"] == "viewer" })
	if token, err := newToken(cfg, testDevice, time.Hour); err != nil {
		t.Fatal(err)
	} else if _, code := parse(t, answerTo(t, srv, `{"token":"`+token+`"}`)); code != 4401 {
		t.Errorf("the old secret is still valid: %d", code)
	}
	if code, out := srv.verb("keys"); code != exitFailed || !strings.Contains(out, "did not prove") {
		t.Errorf("an operator with the old secret: exit code %d: %s", code, out)
	}
}
