// Package machine gives tests what they need of the machine, or says that it is
// missing.
package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// Missing skips a test for which the machine lacks a part, or fails it if
// CI=true: CI has every part. how names the missing part, and what to install.
func Missing(t testing.TB, how string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(how)
	}
	t.Skip(how)
}

// ordinary is the ID of a user and a group that own no files on Linux.
const ordinary = 65534

// RunAsOrdinaryUser runs the test t once more as an ordinary user if this
// process runs as root, and reports whether it did so. If that run fails, t
// fails. It needs the program setpriv, see [Missing].
func RunAsOrdinaryUser(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	as := func(args ...string) *exec.Cmd {
		id := strconv.Itoa(ordinary)
		return exec.Command("setpriv", append([]string{"--reuid=" + id, "--regid=" + id, "--clear-groups"}, args...)...)
	}
	if out, err := as("true").CombinedOutput(); err != nil {
		Missing(t, "cannot run as an ordinary user: install setpriv (on Debian: apt-get install util-linux), or run the tests as one: "+err.Error()+" "+string(out))
	}
	// An ordinary user cannot enter the directories of the test and its binary.
	dir, err := os.MkdirTemp("", "ordinary")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "test")
	if err := os.WriteFile(binary, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	cmd := as(binary, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as an ordinary user: %v\n%s", err, out)
	}
	return true
}
