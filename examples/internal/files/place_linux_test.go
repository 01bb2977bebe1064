package files_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/files"
	"github.com/relayguard/relayguard/examples/internal/testkit"
)

const nobody = 65534

// apart runs f on a thread of its own, which ends with f: what f does to its
// mounts and its user concerns no other test.
func apart(t *testing.T, prepare func() error, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "mounting a file and being another user take root: run this test as root")
	}
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked, so that the thread ends
		if err := prepare(); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Skip("not possible here: ", err)
	}
}

// mounted mounts the file source over target, for this thread.
func mounted(source, target string) func() error {
	return func() error {
		if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
			return err
		}
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return err
		}
		return syscall.Mount(source, target, "", syscall.MS_BIND, "")
	}
}

// asNobody makes this thread's file operations those of a user without rights.
func asNobody() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSGID, nobody, 0, 0); errno != 0 {
		return errno
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Where a file cannot be renamed over, either it is written in place, or the
// slot is refused before the caller does anything irrevocable. Commit never
// fails after Reserve.
func TestIrreplaceableFiles(t *testing.T) {
	for _, row := range []struct {
		why      string
		dir      os.FileMode // with the sticky bit as 0o1000
		file     os.FileMode
		owner    int
		mount    bool
		writable bool
	}{
		{"a directory of its own", 0o777, 0o600, nobody, false, true},
		{"a mounted file", 0o777, 0o666, 0, true, true},
		{"a foreign file that all may write, in a sticky directory", 0o1777, 0o666, 0, false, true},
		{"a foreign file that only its owner may write, there", 0o1777, 0o644, 0, false, false},
		{"its own file in a sticky directory", 0o1777, 0o600, nobody, false, true},
		{"a directory that only its owner may write", 0o755, 0o600, nobody, false, true},
		{"and a file of that owner", 0o755, 0o644, 0, false, false},
	} {
		for _, replace := range []bool{false, true} {
			t.Run(row.why, func(t *testing.T) {
				top := t.TempDir()
				for _, d := range []string{top, filepath.Dir(top)} { // for the other user
					if err := os.Chmod(d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				dir := filepath.Join(top, "d")
				path, real := filepath.Join(dir, "f"), filepath.Join(dir, "..", "real")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				for _, path := range []string{path, real} {
					write(t, path, "old content")
					if err := os.Chmod(path, row.file); err != nil {
						t.Fatal(err)
					}
					if os.Geteuid() == 0 {
						if err := os.Chown(path, row.owner, 0); err != nil {
							t.Fatal(err)
						}
					}
				}
				mode := row.dir & 0o777
				if row.dir&0o1000 != 0 {
					mode |= os.ModeSticky
				}
				if err := os.Chmod(dir, mode); err != nil {
					t.Fatal(err)
				}
				prepare := asNobody
				if row.mount {
					prepare = mounted(real, path)
				}
				apart(t, prepare, func() {
					if replace {
						err := files.Replace(path, []byte("new"))
						check(t, err, row.writable, path, "new")
						return
					}
					slot, err := files.Reserve(path, 4096)
					if check(t, err, row.writable, path, ""); err != nil {
						return
					}
					if got := strings.TrimRight(content(t, path), " "); got != "old content" {
						t.Errorf("reserving made it %q", got)
					}
					slot.Discard()
					if got := content(t, path); got != "old content" {
						t.Errorf("discarding made it %q", got)
					}
					if slot, err = files.Reserve(path, 4096); err == nil {
						err = slot.Commit([]byte("new"))
					}
					check(t, err, true, path, "new")
				})
				only(t, dir, "f")
				if want := map[bool]string{false: "old content", true: "new"}[row.mount]; !t.Skipped() && content(t, real) != want {
					t.Errorf("the mounted file holds %q, want %q", content(t, real), want)
				}
			})
		}
	}
}

func check(t *testing.T, err error, good bool, path, want string) {
	t.Helper()
	switch {
	case good && err != nil:
		t.Error(err)
	case !good && (err == nil || !strings.Contains(err.Error(), filepath.Dir(path))):
		t.Errorf("%v, want an error that names the directory", err)
	case !good:
		want = "old content"
	}
	if got := content(t, path); want != "" && got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
}
