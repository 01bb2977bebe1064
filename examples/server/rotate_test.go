package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// The operator changes the secret of a running server: first with a grace for
// tokens that the old secret signed, then without.
func TestSecretsAreReloaded(t *testing.T) {
	const newSecret = "Zk3vQ8wB1nXy6MrT0uHc5LdJ2sGpFa7E"
	dir := t.TempDir()
	current, previous := filepath.Join(dir, "secret"), filepath.Join(dir, "previous")
	write := func(name, secret string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(current, testSecret)
	write(previous, "")
	p := launch(t, true, t.TempDir(), []string{
		"JWT_SECRET_FILE=" + current, "JWT_SECRET_PREVIOUS_FILE=" + previous, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t),
	})
	s := &testSite{t: t, addr: p.addr, cfg: testConfig(t)}
	reloads := 0
	reload := func(event string) {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		reloads++
		testkit.Eventually(t, event, func() bool {
			return len(p.stderr.Events("secrets reloaded"))+len(p.stderr.Events("secrets not reloaded")) == reloads
		})
		if len(p.stderr.Events(event)) == 0 {
			t.Fatalf("no %q in\n%s", event, p.stderr)
		}
	}
	signed := func(secret string) string {
		return testkit.Forge(secret, hs256, claims(testDevice, time.Now().Add(time.Hour)))
	}

	device := s.viewer()
	device.authenticate(signed(testSecret))

	write(current, newSecret)
	write(previous, testSecret)
	reload("secrets reloaded")
	device.send(`{"text":"still here","id":"1"}`)
	device.await(func(m map[string]any) bool { return m["ack"] == "1" })
	s.viewer().authenticate(signed(testSecret))
	s.viewer().authenticate(signed(newSecret))

	write(current, "short")
	reload("secrets not reloaded")
	s.viewer().authenticate(signed(newSecret))

	write(current, newSecret)
	write(previous, "")
	reload("secrets reloaded")
	device.await(func(m map[string]any) bool { return m["status"] == "viewer" }) // the server reports it at once, without a message of the device
	if _, code := parse(t, answerTo(t, s, `{"token":"`+signed(testSecret)+`"}`)); code != 4401 {
		t.Errorf("the old secret is still accepted: code %d", code)
	}
	s.viewer().authenticate(signed(newSecret))
}
