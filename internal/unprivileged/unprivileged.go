// Package unprivileged runs tests of what only root may do as another user.
package unprivileged

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// nobody is a user that owns no files on the usual systems.
const nobody = 65534

// Run runs the test t as the user nobody if this process is root's, and reports
// whether it did so. t fails if that run fails. If the machine cannot do so, Run
// skips t, or fails it if CI=true.
func Run(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	as := func(args ...string) *exec.Cmd {
		id := strconv.Itoa(nobody)
		return exec.Command("setpriv", append([]string{"--reuid=" + id, "--regid=" + id, "--clear-groups"}, args...)...)
	}
	if out, err := as("true").CombinedOutput(); err != nil {
		why := "cannot run as another user: install setpriv (on Debian: apt-get install util-linux), or test as an ordinary user"
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v %s", why, err, out)
		}
		t.Skipf("%s: %v %s", why, err, out)
	}
	// The directories of the test and of its binary are root's alone.
	dir, err := os.MkdirTemp("", "unprivileged")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := filepath.Join(dir, "test")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := as(binary, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as another user: %v\n%s", err, out)
	}
	return true
}
