package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/operate"
)

// The operator blocks an address at once, and the policy bars an address from
// sending tokens after failures.
func guideBlocking(t *testing.T) {
	s := start(t, func(c *config.Config) { trustLoopback(c); c.Failures = 3 })
	watcher := s.viewer(from("192.0.2.1")...)
	s.must("block", "192.0.2.1", "-for", "1h")
	if _, code := watcher.end(); code != 1008 {
		t.Errorf("an open connection ends with %d", code)
	}
	for range 3 {
		s.refuse("192.0.2.2")
	}
	if _, res := connect(t, s.addr, from("192.0.2.1")...); res.StatusCode != http.StatusForbidden {
		t.Errorf("a blocked address: %s", res.Status)
	}
	if !s.barred("192.0.2.2") {
		t.Error("after three failures, tokens are still read")
	}
	s.viewer(from("192.0.2.3")...)
}

// Each step of an incident is a command, and the audit shows all steps.
func guideIncident(t *testing.T) {
	s := start(t, withAuth(t.TempDir()))
	watcher, device := s.viewer(), s.viewer()
	device.authenticate(s.pair(testDevice).Token)
	device.send(`{"text":"to be cleared"}`)
	watcher.texts(1)

	s.must("keys", "-reload")
	s.must("block", "198.51.100.0/24")
	var sessions []operate.Session
	if err := json.Unmarshal([]byte(s.must("sessions", "-json")), &sessions); err != nil || len(sessions) != 1 {
		t.Fatalf("%v, %v", sessions, err)
	}
	if out := s.must("sessions", "-end", sessions[0].ID, "-json"); out != "{\"done\":true}\n" {
		t.Error(out)
	}
	if _, code := device.end(); code != 1008 {
		t.Errorf("the session ends with %d", code)
	}
	// The end is audited after the close frame, and before the connection is
	// forgotten.
	testkit.Eventually(t, "only the watcher is left", func() bool { return s.srv.Relay.Len() == 1 })
	s.must("revoke", testDevice)
	if out := s.must("erase", "-all", "-json"); out != "{\"done\":true}\n" {
		t.Error(out)
	}
	watcher.await(func(m map[string]any) bool { return m["type"] != nil })
	if out := s.must("export"); strings.Contains(out, "to be cleared") {
		t.Error("the history is not cleared")
	}
	out := s.must("audit")
	for _, want := range []string{"authenticated", "ended", "198.51.100.0/24"} {
		if !strings.Contains(out, want) {
			t.Errorf("the audit has no %s:\n%s", want, out)
		}
	}
}
