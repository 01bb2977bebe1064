package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

var units = []struct {
	file, installed, pkg string
	start                string // how the unit's ExecStart begins
}{
	{"relay.service", "/usr/local/bin/relay", "./examples/server", "/usr/local/bin/relay\n"},
	{"relay-device.service", "/usr/local/bin/relay-device", "./examples/device", "/usr/local/bin/relay-device\n"},
	{"relay-backup.service", "/usr/local/bin/relay", "./examples/server", "/bin/sh -ec 'exec /usr/local/bin/relay export "},
}

// TestUnits lets systemd check the units and rate their access to the machine.
func TestUnits(t *testing.T) {
	analyze := program(t, "systemd-analyze", "systemd")
	for _, unit := range units {
		t.Run(unit.file, func(t *testing.T) {
			text := shipped(t, unit.file)
			if !strings.Contains(text, "\nExecStart="+unit.start) {
				t.Fatalf("it does not start %s", unit.installed)
			}
			// systemd looks for the program, which is not installed here.
			path := filepath.Join(t.TempDir(), unit.file)
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, unit.installed, build(t, unit.pkg))), 0o644); err != nil {
				t.Fatal(err)
			}
			// systemd prints a warning for an unknown setting. If all is well,
			// it prints nothing.
			if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			// The threshold is in tenths: 2.0 of 10. A unit without hardening
			// has 9.6.
			if out, err := exec.Command(analyze, "security", "--no-pager", "--offline=true", "--threshold=20", path).CombinedOutput(); err != nil {
				t.Errorf("systemd-analyze security: %v\n%s", err, out)
			}
		})
	}
}

// TestUnitsLetTheProgramsWork runs both programs under strace, and checks that
// their units permit their system calls. It cannot run the units themselves,
// because that needs systemd as the machine's first process.
func TestUnitsLetTheProgramsWork(t *testing.T) {
	strace := program(t, "strace", "strace")
	dir := t.TempDir()
	under := func(name string) []string {
		return []string{strace, "-D", "-f", "-qq", "-o", filepath.Join(dir, name)}
	}
	server := relay.New(t, "AUTH_DIR="+t.TempDir(), "HISTORY_DIR="+t.TempDir(), "HISTORY_KEY=PVpLzpAmPvH0hqZ0mRVTvgBRVbVnNrLmzaBtLzLLdNE",
		"OPERATOR_ADDR=unix:"+filepath.Join(dir, "operator.sock"),
		"ACCESS_TOKEN_LIFETIME=2s") // so that the device refreshes at once
	server.Under = under("relay.service")
	server.Start()
	token := put(t, dir, "token.json", server.Verb("token", "-pair"))
	words := append(under("relay-device.service"), build(t, "./examples/device"), "-relay", "ws://"+server.Addr+"/ws",
		"-token-file", token, "-state", filepath.Join(dir, "lives"), "-simulate-memory", "64")
	device := exec.Command(words[0], words[1:]...)
	var log bytes.Buffer // strace writes to it too, so Wait waits for both
	device.Stderr = &log
	if err := device.Start(); err != nil {
		t.Fatal(err)
	}
	viewer := dial(t, "ws://"+server.Addr+"/ws", nil)
	read(t, viewer, `"text"`)
	server.Logged(`"pair_rotated"`)
	_ = device.Process.Signal(syscall.SIGTERM)
	if err := device.Wait(); err != nil {
		t.Errorf("the device ended with %v\n%s", err, &log)
	}
	// The device can end before the server has forgotten its session.
	testkit.Eventually(t, "no session is left", func() bool { return strings.HasPrefix(server.Verb("sessions"), "No connection may publish now.") })
	if answer := server.Verb("health"); answer != "ready" {
		t.Errorf("health: %q", answer)
	}
	server.Stop()
	permits(t, "relay.service", filepath.Join(dir, "relay.service"), "accept4", "fsync", "socket")
	permits(t, "relay-device.service", filepath.Join(dir, "relay-device.service"), "connect", "openat", "socket", "renameat")
}

// permits checks that a unit permits all system calls of a trace. The calls in
// must have to be in the trace, because the program cannot work without them.
func permits(t *testing.T, unit, trace string, must ...string) {
	t.Helper()
	analyze, text := program(t, "systemd-analyze", "systemd"), shipped(t, unit)
	allowed := map[string]bool{}
	for _, call := range calls(t, analyze, []string{"@default"}) { // systemd adds this set to every list
		allowed[call] = true
	}
	for line := range strings.Lines(text) {
		if filter, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter="); ok {
			filter, deny := strings.CutPrefix(filter, "~")
			for _, call := range calls(t, analyze, strings.Fields(filter)) {
				allowed[call] = !deny
			}
		}
	}
	if !allowed["read"] || allowed["reboot"] || allowed["setuid"] {
		t.Fatalf("%s: its filter is not understood: %d calls", unit, len(allowed))
	}
	families := []string{"AF_INET", "AF_INET6"}
	if unit == "relay.service" {
		families = append(families, "AF_UNIX") // the operator's socket
	}
	if !strings.Contains(text, "\nMemoryDenyWriteExecute=yes\n") ||
		!strings.Contains(text, "\nRestrictAddressFamilies="+strings.Join(families, " ")+"\n") {
		t.Fatalf("%s permits memory that is written and executed, or other sockets", unit)
	}
	traced, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	for line := range strings.Lines(string(traced)) {
		// PID CALL(…
		_, call, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, arguments, isCall := strings.Cut(strings.TrimSpace(call), "(")
		if !isCall || !word.MatchString(name) {
			continue
		}
		family, _, _ := strings.Cut(arguments, ",")
		if name == "socket" && !slices.Contains(families, family) ||
			strings.Contains(arguments, "PROT_WRITE|PROT_EXEC") {
			t.Errorf("%s forbids %s", unit, call)
		}
		if !slices.Contains(used, name) {
			used = append(used, name)
		}
	}
	for _, call := range must {
		if !slices.Contains(used, call) {
			t.Errorf("%s: the program did not %s, so it did not work: %q", unit, call, used)
		}
	}
	for _, call := range used {
		if !allowed[call] {
			t.Errorf("%s forbids %s, which is used", unit, call)
		}
	}
}

// word matches the name of a system call, but not strace's own remarks.
var word = regexp.MustCompile(`^[a-z0-9_]+$`)

// calls returns the system calls of systemd's sets and names.
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
