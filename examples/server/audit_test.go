package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/trail"
)

// refuse shows a bad token from a stranger's address.
func (s *testSite) refuse(client string) {
	s.t.Helper()
	p := s.viewer(from(client)...)
	p.send(`{"token":"` + testkit.Forge("wrong", hs256, claims(testDevice, time.Now().Add(time.Hour))) + `"}`)
	p.end()
}

// The operator can read the events of the audit, the newest last, without the
// tokens.
func TestAuditIsRead(t *testing.T) {
	s := start(t, func(c *config.Config) { trustLoopback(c); crowded(c) })
	if out := s.must("audit"); !strings.Contains(out, "Nothing has happened") {
		t.Error(out)
	}
	s.publisher()
	s.refuse("192.0.2.7")
	s.must("block", "192.0.2.7")
	var list []trail.Entry
	out := s.must("audit", "-json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, strings.Join([]string{string(e.Kind), e.Outcome, e.Addr}, " "))
	}
	if want := "[operator done 127.0.0.1 auth authenticated 127.0.0.1 auth refused 192.0.2.7 block operator 192.0.2.7/32 operator done 127.0.0.1]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	text := s.must("audit", "-n", "4") // the last two are calls
	if strings.Contains(text, "authenticated") || !strings.Contains(text, "reason=signature") || !strings.Contains(text, "192.0.2.7/32") {
		t.Error(text)
	}
	if leak.MatchString(out + text) {
		t.Error("a token is told")
	}
	op := s.operator()
	for _, query := range []string{"n=1001", "n=-1", "n=x", "since=yesterday", "follow=perhaps"} {
		if res, _ := op.call("GET", "/audit?"+query); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", query, res.Status)
		}
	}
	if _, body := op.call("GET", "/audit?since="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)); strings.TrimSpace(body) != "[]" {
		t.Error(body)
	}
	if code, out := s.verb("audit", "-n", "1001"); code != exitUsage {
		t.Error(out)
	}
}

// A follower sees new events until it leaves or the server stops. There are at
// most eight followers.
func TestAuditIsFollowed(t *testing.T) {
	s := start(t, func(c *config.Config) { trustLoopback(c); crowded(c) })
	s.refuse("192.0.2.1")
	env := environment(map[string]string{"OPERATOR_ADDR": s.op})
	follow := func(ctx context.Context, args ...string) (out *testkit.Log, code chan int) {
		out, code = new(testkit.Log), make(chan int, 1)
		go func() { code <- run(ctx, append([]string{"audit", "-f"}, args...), env, out, out) }()
		return out, code
	}
	ctx, interrupt := context.WithCancel(t.Context())
	first, firstEnd := follow(ctx)
	second, secondEnd := follow(t.Context(), "-json", "-n", "0")
	testkit.Eventually(t, "followed by two", func() bool { return s.srv.Trail.Followers() == 2 && strings.Contains(first.String(), "192.0.2.1") })
	s.refuse("192.0.2.2")
	testkit.Eventually(t, "seen by both", func() bool {
		return strings.Contains(first.String(), "192.0.2.2") && strings.Contains(second.String(), "192.0.2.2")
	})
	if strings.Contains(second.String(), "192.0.2.1\"") {
		t.Error("-n 0 prints an old event")
	}
	interrupt()
	if code := <-firstEnd; code != exitOK {
		t.Errorf("interrupted: exit code %d: %s", code, first)
	}
	testkit.Eventually(t, "followed by one", func() bool { return s.srv.Trail.Followers() == 1 })

	op := operatorAt(&testSite{t: t, cfg: s.cfg, addr: s.op})
	for range 7 {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.op+"/audit?follow=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+op.token)
		res, err := (&http.Transport{}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = io.Copy(io.Discard, res.Body); res.Body.Close() })
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
	}
	if res, _ := op.call("GET", "/audit?follow=true"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the ninth: %s", res.Status)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if code := <-secondEnd; code != exitFailed || !strings.Contains(second.String(), "stops") {
		t.Errorf("after the stop: exit code %d: %s", code, second)
	}
}

// A value that a stranger has chosen cannot control a terminal.
func TestAuditIsQuoted(t *testing.T) {
	columns := auditColumns(trail.Entry{Time: time.Now(), Kind: trail.KindAuth, Device: "a b\x1b[2J", Detail: "origin \"x\" \u202e"})
	if got := strings.Join(columns, " "); strings.ContainsAny(got, "\x1b\u202e") || !strings.Contains(got, `device="a b\x1b[2J"`) {
		t.Errorf("%q", got)
	}
}

// A hundred bad tokens are reported once as suspicious, in the log, the metrics
// and the audit, and so are three floods.
func TestSuspicionIsToldOnce(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { trustLoopback(c); crowded(c); production(c); c.MaxAttempts = 10_000 })
	for range 40 {
		s.refuse("192.0.2.7")
	}
	for i := range 20 {
		if p, _ := connect(t, s.addr, append(from("192.0.2.8"), "Origin", fmt.Sprintf("https://evil%d.example", i))...); p != nil {
			t.Fatal("a foreign origin is let in")
		}
	}
	for range 3 { // three connections that flood
		c := upgraded(t, s.addr)
		c.write(bytes.Repeat(clientFrame(finPing, nil), 150))
		if _, code := parse(t, c.rest()); code != 1008 {
			t.Error("a flood is ended with", code)
		}
	}
	// The server counts and suspects after it has sent the close frame, and
	// forgets a connection last.
	testkit.Eventually(t, "every connection has ended", func() bool { return s.srv.Relay.Len() == 0 })
	told := map[string]string{}
	for _, e := range s.logs.Events("suspicious") {
		if told[e["outcome"].(string)] != "" {
			t.Errorf("told twice: %v", e)
		}
		told[e["outcome"].(string)] = fmt.Sprint(e["addr"], " ", e["count"])
	}
	want := map[string]string{"failures": "192.0.2.7 6", "churn": "192.0.2.7 31", "origins": "192.0.2.8 6", "floods": "127.0.0.1 1"}
	op := s.operator()
	if n := op.metric(`relayguard_connections_ended_total{cause="flood"}`); n != 3 {
		t.Error("connections ended for a flood:", n)
	}
	for kind, line := range want {
		if told[kind] != line {
			t.Errorf("%s: %q, want %q", kind, told[kind], line)
		}
		if n := op.metric(`relayguard_suspicious_total{outcome="` + kind + `"}`); n != 1 {
			t.Errorf("%s: metric %v", kind, n)
		}
	}
	if out := s.must("audit", "-n", "1000"); strings.Count(out, "suspicious") != 4 {
		t.Error(out)
	}
	for line := range strings.Lines(s.logs.String()) { // the format that other programs read
		if strings.Contains(line, `"suspicious"`) && !strings.Contains(line, `"msg":"suspicious","outcome":"`) {
			t.Error(line)
		}
	}
}
