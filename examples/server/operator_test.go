package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// A violation that a browser reports is counted, and only the operator can read
// the counts.
func guideReports(t *testing.T) {
	operator := "127.0.0.1:" + freePort(t)
	env := []string{"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "OPERATOR_ADDR=" + operator}
	p := launch(t, true, t.TempDir(), env)

	const report = `{"csp-report":{"document-uri":"https://relay.example/","effective-directive":"script-src-elem","blocked-uri":"https://evil.example/x.js"}}`
	for range 3 {
		res, err := http.Post("http://"+p.addr+"/csp-reports", "application/csp-report", strings.NewReader(report))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNoContent {
			t.Errorf("a report got %s", res.Status)
		}
	}

	read := launch(t, false, t.TempDir(), env, "reports")
	if code := read.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, read.stderr)
	}
	for _, want := range []string{"3 reports accepted", "script-src-elem", "https://evil.example"} {
		if !strings.Contains(read.stdout.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, read.stdout)
		}
	}

	s := &testSite{t: t, addr: operator, cfg: testConfig(t)}
	publisher := s.token(testDevice, time.Hour)
	admin, err := verifier(t, s.cfg).Sign(wsauth.ClaimSet{Subject: testDevice, Role: "admin", ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, authorization string
		want                int
	}{
		{"no token", "", 401}, {"a publisher", "Bearer " + publisher, 403}, {"no bearer", admin, 401}, {"an operator", "Bearer " + admin, 200},
		{"in lower case", "bearer " + admin, 200}, {"in capitals, and two spaces", "BEARER  " + admin, 200},
		{"another scheme", "Basic " + admin, 401}, {"a longer scheme", "Bearerx " + admin, 401},
	} {
		if res, _ := s.get("/reports", "Authorization", row.authorization); res.StatusCode != row.want {
			t.Errorf("%s: got %d, want %d", row.name, res.StatusCode, row.want)
		}
	}
	if res, _ := (&testSite{t: t, addr: p.addr}).get("/reports", "Authorization", "Bearer "+admin); res.StatusCode != 404 {
		t.Errorf("on the public listener: got %d, want 404", res.StatusCode)
	}
}

// Profiles are on the operator's listener alone, also those that take a while.
func TestProfiles(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	op := s.operator()
	for _, row := range []struct{ path, begins, why string }{
		{"/debug/pprof/heap", "\x1f\x8b", "compressed, as the tool reads it"},
		{"/debug/pprof/goroutine?debug=1", "goroutine profile:", "for a person"},
		{"/debug/pprof/profile?seconds=1", "\x1f\x8b", "the processor's time"},
	} {
		res, body := op.call("GET", row.path)
		if res.StatusCode != http.StatusOK || !strings.HasPrefix(body, row.begins) {
			t.Errorf("%s (%s): %s, %.40q", row.path, row.why, res.Status, body)
		}
	}
	for _, path := range []string{"/debug/pprof/cmdline", "/debug/pprof/none"} {
		if res, _ := op.call("GET", path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	if res, _ := s.get("/debug/pprof/heap"); res.StatusCode != http.StatusNotFound {
		t.Errorf("the public listener answers %s", res.Status)
	}
}
