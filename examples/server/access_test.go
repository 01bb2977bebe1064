package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// operatorCalls are all calls on the operator's listener, each with the
// permission that it needs beside admin.
var operatorCalls = []struct{ method, path, pattern, permission string }{
	{"GET", "/metrics", "GET /metrics", "metrics"},
	{"GET", "/sessions", "GET /sessions", "sessions"},
	{"GET", "/families", "GET /families", "sessions"},
	{"GET", "/watching", "GET /watching", "sessions"},
	{"GET", "/keys", "GET /keys", "sessions"},
	{"GET", "/audit", "GET /audit", "audit"},
	{"GET", "/reports", "GET /reports", "audit"},
	{"GET", "/blocks", "GET /blocks", "blocks"},
	{"GET", "/debug/pprof/heap", "GET /debug/pprof/{profile}", "profile"},
	{"DELETE", "/sessions/none", "DELETE /sessions/{id}", ""},
	{"DELETE", "/families/none", "DELETE /families/{id}", ""},
	{"POST", "/families/none/prolong", "POST /families/{id}/prolong", ""},
	{"DELETE", "/devices/none/revoke", "DELETE /devices/{device}/revoke", ""},
	{"POST", "/devices/pi-2/revoke", "POST /devices/{device}/revoke", ""},
	{"POST", "/keys/reload", "POST /keys/reload", ""},
	{"POST", "/blocks?prefix=192.0.2.7", "POST /blocks", ""},
	{"DELETE", "/blocks/192.0.2.7", "DELETE /blocks/{prefix...}", ""},
	{"GET", "/history/export", "GET /history/export", ""},
	{"POST", "/history/import", "POST /history/import", ""},
	{"DELETE", "/history/1", "DELETE /history/{seq}", ""},
	{"DELETE", "/history", "DELETE /history", ""},
	{"GET", "/lives", "GET /lives", ""},
	{"DELETE", "/lives/none", "DELETE /lives/{id}", ""},
	{"DELETE", "/lives", "DELETE /lives", ""},
	{"POST", "/hold", "POST /hold", ""},
	{"DELETE", "/hold", "DELETE /hold", ""},
	{"GET", "/nothing", "", ""},
}

// A token for one purpose is good for no other, and no call leaves without a
// trace of its caller.
func TestOperatorCalls(t *testing.T) {
	s := start(t, func(c *config.Config) { crowded(c); c.Devices = []string{testDevice, "pi-2"} })
	for _, role := range []string{"", "publisher", "metrics", "auditor", "profiler", "admin"} {
		authorization := ""
		if role != "" {
			token, err := authority.Sign(site.Grants(s.cfg), refresh.Grant{Subject: testDevice, Role: role}, time.Hour, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			authorization = "bearer " + token // the scheme has no case
		}
		for _, c := range operatorCalls {
			allowed := slices.Contains(authority.Roles(nil)[role], wsauth.Admin) || c.permission != "" && slices.Contains(authority.Roles(nil)[role], c.permission)
			_, last := s.srv.Trail.Newest(1, time.Time{})
			res, body := (&testSite{t: t, addr: s.op}).do(c.method, c.path, "Authorization", authorization)
			refused := res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden
			switch {
			case refused == allowed:
				t.Errorf("role %q: %s %s is answered %s", role, c.method, c.path, res.Status)
			case refused && (role == "") != (res.StatusCode == http.StatusUnauthorized):
				t.Errorf("role %q: %s %s is answered %s: %s", role, c.method, c.path, res.Status, body)
			}
			if refused || c.pattern == "GET /metrics" {
				continue // refusals are thinned, and readings of the metrics are counted only
			}
			entries, _ := s.srv.Trail.After(last)
			found := slices.ContainsFunc(entries, func(e trail.Entry) bool {
				path, _, _ := strings.Cut(c.path, "?")
				want := c.method + " " + path
				return e.Kind == "operator" && e.Device == testDevice && e.TokenID != "" && e.Addr == "127.0.0.1" && (e.Detail == want || c.pattern == "")
			})
			if !found {
				t.Errorf("role %q: %s %s leaves no trace: %+v", role, c.method, c.path, entries)
			}
		}
	}
	logged := s.logs.Events("operator call")
	for _, c := range operatorCalls {
		method, path := c.method, c.path
		path, _, _ = strings.Cut(path, "?")
		if c.pattern == "GET /metrics" || c.pattern == "" {
			continue
		}
		if !slices.ContainsFunc(logged, func(e map[string]any) bool {
			return e["call"] == method+" "+path && e["by"] == testDevice && e["token_id"] != ""
		}) {
			t.Errorf("%s %s is not in the log", method, path)
		}
	}
	if !slices.ContainsFunc(logged, func(e map[string]any) bool { return e["outcome"] == "refused" }) {
		t.Error("no refusal is in the log")
	}
	if leak.MatchString(s.logs.String()) {
		t.Error("a token is in the log")
	}
	op := s.operator()
	for _, series := range []string{
		`relayguard_operator_calls_total{call="DELETE /history",outcome="done"}`, `relayguard_operator_calls_total{call="GET /history/export",outcome="refused"}`,
		`relayguard_operator_calls_total{call="other",outcome="failed"}`,
	} {
		if op.metric(series) == 0 {
			t.Errorf("%s is 0", series)
		}
	}
	if got := time.Unix(int64(op.metric("relayguard_metrics_token_expires_timestamp_seconds")), 0); time.Until(got) < 50*time.Minute {
		t.Errorf("the token of the metrics expires at %v", got)
	}
}

// A program that listens at the port that the server has left gets no token:
// not if it answers like a server, and not if it passes requests on to one.
func TestImpostorGetsNoToken(t *testing.T) {
	s := start(t, crowded)
	for _, row := range []struct {
		why   string
		serve func(conn net.Conn, seen io.Writer)
	}{
		{"answers everything with success", func(conn net.Conn, seen io.Writer) {
			buf := make([]byte, 4096)
			for {
				n, err := conn.Read(buf)
				_, _ = seen.Write(buf[:n])
				if err != nil {
					return
				}
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
			}
		}},
		{"closes", func(net.Conn, io.Writer) {}},
		{"passes on to the server on another port", func(conn net.Conn, seen io.Writer) {
			server, err := net.Dial("tcp", s.op)
			if err != nil {
				return
			}
			defer server.Close()
			go func() { _, _ = io.Copy(conn, server) }()
			_, _ = io.Copy(io.MultiWriter(seen, server), conn)
		}},
	} {
		t.Run(row.why, func(t *testing.T) {
			ln := loopback(t)
			defer ln.Close()
			seen := new(testkit.Log)
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					serving.Go(func() { defer conn.Close(); row.serve(conn, seen) })
				}
			})
			for _, args := range [][]string{{"sessions"}, {"revoke", testDevice}, {"export"}, {"audit", "-f"}, {"keys", "-reload"}} {
				var out bytes.Buffer
				code := run(t.Context(), args, environment(map[string]string{"OPERATOR_ADDR": ln.Addr().String()}), &out, &out)
				if code != exitFailed || !strings.Contains(out.String(), "did not prove") {
					t.Errorf("%q: exit code %d: %s", args, code, &out)
				}
			}
			ln.Close()
			serving.Wait() // the impostor has read all that was sent
			if text := seen.String(); leak.MatchString(text) || strings.Contains(strings.ToLower(text), "authorization") {
				t.Errorf("the impostor was sent %q", text)
			}
		})
	}
}

// On a Unix socket no token crosses, and no secret is needed.
func TestOperatorSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "operator.sock")
	env := []string{"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "OPERATOR_ADDR=unix:" + path}
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false) // as a crash leaves it
	stale.Close()

	p := launch(t, true, t.TempDir(), env)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != fs.ModeSocket {
		t.Fatalf("%v, %v: want a socket for its owner alone", info, err)
	}
	// The commands have another secret, as after a change that the server has
	// not read yet.
	changed := append(slices.Clone(env), "JWT_SECRET="+strings.ToUpper(testSecret))
	if out, _ := runVerb(t, 0, changed, "sessions"); !strings.Contains(out, "No connection") {
		t.Errorf("sessions: %s", out)
	}
	runVerb(t, 0, changed, "keys", "-reload")
	var calls []map[string]any
	want := []string{"GET /sessions", "GET /watching", "POST /keys/reload"}
	testkit.Eventually(t, "the calls are logged", func() bool {
		calls = p.stderr.Events("operator call")
		return len(calls) >= len(want)
	})
	if len(calls) != len(want) {
		t.Errorf("%v", calls)
	}
	for i, call := range want {
		if calls[i]["call"] != call || calls[i]["by"] != fmt.Sprint("uid ", os.Getuid()) || calls[i]["token_id"] != "" {
			t.Errorf("want %s: %v", call, calls[i])
		}
	}
	second := launch(t, false, t.TempDir(), append(slices.Clone(env), "PORT="+freePort(t)))
	if code := second.wait(); code != exitFailed || !strings.Contains(second.stderr.String(), "another server listens") {
		t.Errorf("a second server: exit code %d: %s", code, second.stderr)
	}
	runVerb(t, 0, env, "sessions") // the first one still answers
	if code := p.terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := launch(t, false, t.TempDir(), env)
	if code := third.wait(); code != exitFailed || !strings.Contains(third.stderr.String(), "not a socket") {
		t.Errorf("a file in the way: exit code %d: %s", code, third.stderr)
	}
	if text, _ := os.ReadFile(path); string(text) != "mine" {
		t.Error("the file is gone")
	}
}

// If no server runs, there is no socket, and the commands on the history use
// its directory.
func TestNoServerAtTheSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := append(durable(t, filepath.Join(dir, "history")), "OPERATOR_ADDR=unix:"+filepath.Join(dir, "operator.sock"))
	s, p := serving(t, env)
	s.publisher().publish("kept")
	if code := p.terminate(); code != exitOK {
		t.Fatal(p.stderr)
	}
	if out, _ := runVerb(t, 0, env, "export"); !strings.Contains(out, "kept") {
		t.Errorf("exported: %s", out)
	}
	if _, told := runVerb(t, exitFailed, env, "sessions"); !strings.Contains(told, "is the server running") {
		t.Error(told)
	}
}

// After a change of the secret, the commands reach the server before it has
// read the new one, and so can have it read.
func TestCallsBetweenChangeAndReload(t *testing.T) {
	s := start(t, crowded)
	for _, row := range []struct {
		why  string
		env  map[string]string
		code int
	}{
		{"the new secret, and the server's as the previous one", map[string]string{"JWT_SECRET": strings.ToUpper(testSecret), "JWT_SECRET_PREVIOUS": testSecret}, exitOK},
		{"the server's, and an older one", map[string]string{"JWT_SECRET": testSecret, "JWT_SECRET_PREVIOUS": strings.ToUpper(testSecret)}, exitOK},
		{"another secret alone", map[string]string{"JWT_SECRET": strings.ToUpper(testSecret)}, exitFailed},
	} {
		row.env["OPERATOR_ADDR"] = s.op
		var out bytes.Buffer
		if code := run(context.Background(), []string{"keys", "-reload"}, environment(row.env), &out, &out); code != row.code {
			t.Errorf("%s: exit code %d: %s", row.why, code, &out)
		}
	}
}

// A revocation can be taken back, does not reach into the future, and asks
// before it revokes a device that no one knows.
func TestRevokeVerb(t *testing.T) {
	dir := t.TempDir()
	s := start(t, withAuth(dir))
	old := s.token(testDevice, time.Hour)
	if code, out := s.verb("revoke", testDevice); code != exitOK {
		t.Fatal(out)
	}
	if _, code := parse(t, answerTo(t, s, `{"token":"`+old+`"}`)); code != 4401 {
		t.Errorf("the revoked token: %d", code)
	}
	if code, out := s.verb("revoke", "-undo", testDevice); code != exitOK || !strings.Contains(out, "taken back") {
		t.Errorf("exit code %d: %s", code, out)
	}
	s.viewer().authenticate(old)
	if text, err := os.ReadFile(filepath.Join(dir, "revocations.json")); err != nil || strings.Contains(string(text), testDevice) {
		t.Errorf("%s, %v: the next start revokes it again", text, err)
	}
	for _, row := range []struct {
		why  string
		args []string
		code int
		want string
	}{
		{"nothing to take back", []string{"-undo", testDevice}, exitFailed, "no revocation of device " + testDevice},
		{"a slip of the keyboard", []string{"pi-l"}, exitFailed, "-force"},
		{"a device that was taken off the list", []string{"pi-9", "-force"}, exitOK, "pi-9"},
		{"a time in the future would refuse tokens that are not made yet", []string{"-before", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), testDevice}, exitFailed, "future"},
		{"a clock that is a little ahead", []string{"-before", time.Now().Add(30 * time.Second).UTC().Format(time.RFC3339), testDevice}, exitOK, ""},
		{"both", []string{"-undo", "-force", testDevice}, exitUsage, "leave out"},
		{"no device", nil, exitUsage, "name the device"},
	} {
		if code, out := s.verb(append([]string{"revoke"}, row.args...)...); code != row.code || !strings.Contains(out, row.want) {
			t.Errorf("%s: exit code %d: %s", row.why, code, out)
		}
	}
	for _, args := range [][]string{{"sessions", "-end", "none-such"}, {"families", "-end", "none-such"}, {"erase", "4711"}, {"unblock", "192.0.2.99"}} {
		if code, out := s.verb(args...); code != exitFailed || !strings.Contains(out, args[len(args)-1]) {
			t.Errorf("%q: exit code %d, and the answer does not name what is missing: %s", args, code, out)
		}
	}
}

// Hard ends have a countdown, and that of a family can be moved.
func TestFamilyIsProlonged(t *testing.T) {
	s := start(t, func(c *config.Config) { withAuth(t.TempDir())(c); c.RefreshLifetime = 100 * time.Hour })
	op := s.operator()
	if got := op.metric("relayguard_refresh_family_ends_timestamp_seconds"); got != 0 {
		t.Errorf("without a family: %v", got)
	}
	if got := op.metric("relayguard_certificate_expires_timestamp_seconds"); got != 0 {
		t.Errorf("without a certificate: %v", got)
	}
	s = start(t, func(c *config.Config) { *c = s.cfg })
	op = s.operator()
	s.pair(testDevice)
	first := s.pair("pi-2")
	if got := time.Unix(int64(op.metric("relayguard_refresh_family_ends_timestamp_seconds")), 0); time.Until(got) < 99*time.Hour || time.Until(got) > 100*time.Hour {
		t.Errorf("the first family ends at %v", got)
	}
	id, _, _ := strings.Cut(first.TokenID, ".")
	before := s.familyEnds(id)
	if out := s.must("families", "-prolong", id); !strings.Contains(out, "prolonged") {
		t.Error(out)
	}
	if after := s.familyEnds(id); after.Before(before) {
		t.Errorf("from %v to %v", before, after)
	}
	if status, _, _ := s.refresh(first.RefreshToken); status != http.StatusOK {
		t.Errorf("after that, a refresh is answered %d", status)
	}
	if code, out := s.verb("families", "-prolong", "none"); code != exitFailed || !strings.Contains(out, "none") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if code, out := s.verb("families", "-prolong", "-end", id); code != exitUsage {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// familyEnds returns when a family ends.
func (s *testSite) familyEnds(id string) time.Time {
	s.t.Helper()
	all, err := s.srv.Authority.Issuer().Families(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(f refresh.Family) bool { return f.ID == id })
	if i < 0 {
		s.t.Fatalf("no family %s in %v", id, all)
	}
	return all[i].EndsAt
}
