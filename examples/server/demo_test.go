package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/server/config"
)

// Within some minutes of the demonstration, the memory fills, and the full
// memory ends a life.
func TestDemoFillsItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mind, began := mortal(), time.Now()
		last, lives := 0.0, 0
		for lives < 3 {
			m, err := mind.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if m.Memory != nil {
				if m.Memory.PercentUsed < last {
					t.Fatalf("memory fell from %v to %v in mid-life", last, m.Memory.PercentUsed)
				}
				last = m.Memory.PercentUsed
			}
			if m.Restarting() {
				if lives > 0 && last < 98 {
					t.Errorf("a life ended at %v %%", last)
				}
				lives++
				last = 0
			}
		}
		if each := time.Since(began) / 2; each < time.Minute || each > 4*time.Minute {
			t.Errorf("a life lasts %v", each)
		}
	})
}

// A demonstration reads no variable of an installation on the same machine.
func TestDemoEnvironment(t *testing.T) {
	var cfg config.Config
	asked := func(name string) (string, bool) { return "installation", true }
	allowed := map[string]bool{"PORT": true, "TRUSTED_PROXIES": true, "RATE_LIMIT_CONNECTIONS": true, "RATE_LIMIT_WINDOW": true, "LOG_LEVEL": true, "LOG_FORMAT": true}
	env := demoEnvironment(asked)
	for _, v := range cfg.Spec().Vars {
		for _, name := range []string{v.Name, v.Name + "_FILE"} {
			if got, _ := env(name); (got == "installation") != allowed[name] {
				t.Errorf("%s: the demonstration sees %q", name, got)
			}
		}
	}
	for _, row := range []struct {
		host string
		ok   bool
		why  string
	}{
		{"0.0.0.0", true, "to be seen from a phone"},
		{"::1", true, "an address"},
		{"localhost", true, "as good as one"},
		{"my-laptop.example", false, "a shell's name for the machine, which the server cannot listen on"},
	} {
		if _, ok := demoEnvironment(func(string) (string, bool) { return row.host, true })("HOST"); ok != row.ok {
			t.Errorf("HOST=%s: taken %t, want %t: %s", row.host, ok, row.ok, row.why)
		}
	}
}
