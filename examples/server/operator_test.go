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
