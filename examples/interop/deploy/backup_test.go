package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/internal/freeport"
)

// TestBackup lets systemd check the timer, and runs the unit's command as
// systemd would, on a real server. The backup is encrypted, and the server can
// import it again.
func TestBackup(t *testing.T) {
	analyze, keygen := program(t, "systemd-analyze", "systemd"), program(t, "age-keygen", "age")
	dir := t.TempDir()
	server := relay.New(t, "OPERATOR_ADDR="+freeport.Addr(t), "AUTH_DIR="+t.TempDir(), "HISTORY_DIR="+t.TempDir(),
		"HISTORY_KEY=PVpLzpAmPvH0hqZ0mRVTvgBRVbVnNrLmzaBtLzLLdNE")

	unit := strings.ReplaceAll(shipped(t, "relay-backup.service"), "/usr/local/bin/relay", server.Binary())
	put(t, dir, "relay-backup.service", unit)
	timer := put(t, dir, "relay-backup.timer", shipped(t, "relay-backup.timer"))
	if out, err := exec.Command(analyze, "verify", "--man=no", timer).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	if out, err := exec.Command(analyze, "calendar", regexp.MustCompile(`(?m)^OnCalendar=(.*)$`).FindStringSubmatch(shipped(t, "relay-backup.timer"))[1]).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}

	// systemd's own escapes in ExecStart.
	command := regexp.MustCompile(`(?m)^ExecStart=/bin/sh -ec '([^']*)'$`).FindStringSubmatch(unit)
	if command == nil {
		t.Fatal("the unit's command is not understood")
	}
	script := strings.NewReplacer("$$", "$", "%%", "%").Replace(command[1])
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	clock := t.TempDir() // so that the day does not change meanwhile
	if err := os.WriteFile(filepath.Join(clock, "date"), []byte("#!/bin/sh\n[ \"$*\" = +%u ] && echo 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	backup := func(env ...string) (string, error) {
		cmd := exec.Command("/bin/sh", "-ec", script)
		cmd.Env = append(append(server.Env(), "PATH="+clock+":"+os.Getenv("PATH"), "STATE_DIRECTORY="+state), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	files := func() []string {
		found, err := filepath.Glob(filepath.Join(state, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	identity := filepath.Join(dir, "key.txt")
	if out, err := exec.Command(keygen, "-o", identity).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	public, err := exec.Command(keygen, "-y", identity).Output()
	if err != nil {
		t.Fatal(err)
	}
	recipient := "BACKUP_RECIPIENT=" + strings.TrimSpace(string(public))

	server.Start()
	device := dial(t, "ws://"+server.Addr+"/ws", nil)
	write(t, device, `{"token":"`+server.Token()+`"}`)
	read(t, device, `"authenticated"`)
	write(t, device, `{"text":"worth keeping"}`)
	read(t, device, "worth keeping")

	for _, missing := range [][]string{nil, {"BACKUP_RECIPIENT="}, {"BACKUP_RECIPIENT=age1wrong"}} {
		if out, err := backup(missing...); err == nil || len(files()) > 0 {
			t.Errorf("with %q: %v, %q, %s", missing, err, files(), out)
		}
	}
	for range 2 { // the second replaces the first
		if out, err := backup(recipient); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	made := files()
	if len(made) != 1 || filepath.Base(made[0]) != "history-3.age" {
		t.Fatalf("the backups are %q", made)
	}
	text, err := os.ReadFile(made[0])
	if err != nil || !strings.HasPrefix(string(text), "age-encryption.org/") || strings.Contains(string(text), "worth keeping") {
		t.Errorf("%v: the backup begins with %.40q", err, text)
	}
	if info, err := os.Stat(made[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	server.Verb("erase", "-all")
	server.Verb("import", made[0], "-identity", identity)
	read(t, dial(t, "ws://"+server.Addr+"/ws", nil), "worth keeping")

	// Without a server, the backup reads HISTORY_DIR.
	server.Stop()
	if err := os.Remove(made[0]); err != nil {
		t.Fatal(err)
	}
	if out, err := backup(recipient); err != nil || len(files()) != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}

// The backup of the relay has no more rights than the relay.
func TestBackupIsConfined(t *testing.T) {
	settings := func(name string) (all []string) {
		for line := range strings.Lines(shipped(t, name)) {
			if regexp.MustCompile(`^(Capability|Ambient|NoNew|Protect|Private|DevicePolicy|RemoveIPC|Lock|MemoryDeny|RestrictN|RestrictR|RestrictS|SystemCall|IPAddress|UMask)`).MatchString(line) {
				all = append(all, line)
			}
		}
		return all
	}
	if got, want := strings.Join(settings("relay-backup.service"), ""), strings.Join(settings("relay.service"), ""); got != want {
		t.Errorf("the backup's settings are\n%s\nand the relay's\n%s", got, want)
	}
}
