package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

var units = []struct {
	file, installed, pkg string
}{
	{"relay.service", "/usr/local/bin/relay", "./examples/server"},
	{"relay-device.service", "/usr/local/bin/relay-device", "./examples/device"},
}

// TestUnits has systemd read the units, and say how much of the machine they leave open.
func TestUnits(t *testing.T) {
	analyze := program(t, "systemd-analyze", "systemd")
	for _, unit := range units {
		t.Run(unit.file, func(t *testing.T) {
			text := shipped(t, unit.file)
			if !strings.Contains(text, "\nExecStart="+unit.installed+"\n") {
				t.Fatalf("it does not start %s", unit.installed)
			}
			// systemd looks for the program, which is not installed here.
			words := strings.NewReplacer("="+unit.installed+"\n", "="+build(t, unit.pkg)+"\n", "="+unit.installed+" ", "="+build(t, unit.pkg)+" ")
			path := filepath.Join(t.TempDir(), unit.file)
			if err := os.WriteFile(path, []byte(words.Replace(text)), 0o644); err != nil {
				t.Fatal(err)
			}
			// It warns of a setting that it does not know, and says nothing where all is well.
			if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			// In tenths: 2.0 of 10, where a unit without hardening has 9.6.
			if out, err := exec.Command(analyze, "security", "--no-pager", "--offline=true", "--threshold=20", path).CombinedOutput(); err != nil {
				t.Errorf("systemd-analyze security: %v\n%s", err, out)
			}
		})
	}
}

// TestUnitLetsTheServerWork runs the server under strace and compares what it asks of the kernel with what the unit lets
// through.
func TestUnitLetsTheServerWork(t *testing.T) {
	analyze := program(t, "systemd-analyze", "systemd")
	strace := program(t, "strace", "strace")
	allowed := map[string]bool{}
	for _, call := range calls(t, analyze, []string{"@default"}) { // which systemd adds to every list
		allowed[call] = true
	}
	for line := range strings.Lines(shipped(t, "relay.service")) {
		if filter, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter="); ok {
			filter, deny := strings.CutPrefix(filter, "~")
			for _, call := range calls(t, analyze, strings.Fields(filter)) {
				allowed[call] = !deny
			}
		}
	}
	if !allowed["read"] || allowed["reboot"] || allowed["setuid"] {
		t.Fatalf("the unit's filter is not understood: %d calls", len(allowed))
	}
	out := filepath.Join(t.TempDir(), "calls")
	server := relay.New(t, "AUTH_DIR="+t.TempDir(), "HISTORY_DIR="+t.TempDir(), "HISTORY_KEY=PVpLzpAmPvH0hqZ0mRVTvgBRVbVnNrLmzaBtLzLLdNE")
	server.Under = []string{strace, "-D", "-f", "-qq", "-o", out}
	server.Start()
	device := dial(t, "ws://"+server.Addr+"/ws", nil)
	write(t, device, `{"token":"`+server.Token()+`"}`)
	read(t, device, `"authenticated"`)
	write(t, device, `{"text":"under watch","id":"1"}`)
	read(t, device, `"ack"`)
	if answer := server.Verb("health"); answer != "ready" {
		t.Errorf("health: %q", answer)
	}
	server.Stop()
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	for line := range strings.Lines(string(text)) {
		// PID CALL(…
		_, call, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, _, isCall := strings.Cut(strings.TrimSpace(call), "(")
		if isCall && word.MatchString(name) && !slices.Contains(used, name) {
			used = append(used, name)
		}
	}
	if !slices.Contains(used, "accept4") || !slices.Contains(used, "fsync") {
		t.Fatalf("the server did not work: it used %q", used)
	}
	for _, call := range used {
		if !allowed[call] {
			t.Errorf("the server uses %s, which the unit forbids", call)
		}
	}
}

// word tells a call from strace's own remarks.
var word = regexp.MustCompile(`^[a-z0-9_]+$`)

// calls are those that sets and names of systemd stand for.
func calls(t *testing.T, analyze string, names []string) (all []string) {
	t.Helper()
	for _, name := range names {
		if !strings.HasPrefix(name, "@") {
			all = append(all, name)
			continue
		}
		out, err := exec.Command(analyze, "syscall-filter", "--no-pager", name).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSpace(line)
			if line == "" || line == name || strings.HasPrefix(line, "#") {
				continue
			}
			all = append(all, calls(t, analyze, []string{line})...)
		}
	}
	return all
}
