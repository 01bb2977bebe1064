//go:build unix

package socket_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/socket"
)

func listen(t *testing.T, path string, access socket.Access) (net.Listener, error) {
	t.Helper()
	ln, err := socket.Listen(t.Context(), net.ListenConfig{}, "unix:"+path, access)
	if err == nil {
		t.Cleanup(func() { ln.Close() })
	}
	return ln, err
}

// names returns the names of the files in dir.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// The socket has its mode and its group from the moment at which others see it,
// and is the only file that is left.
func TestAccess(t *testing.T) {
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		groups = append(groups, 4711) // root may choose any group
	}
	for _, group := range append(groups, -1) {
		dir := testkit.ShortDir(t)
		access := socket.Access{Mode: 0o660, Group: strconv.Itoa(group)}
		if group < 0 {
			access, group = socket.Owner, os.Getegid()
		}
		path := filepath.Join(dir, "relay.sock")
		ln, err := listen(t, path, access)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != fs.ModeSocket|access.Mode || int(info.Sys().(*syscall.Stat_t).Gid) != group {
			t.Errorf("group %d: %v %+v", group, info.Mode(), info.Sys())
		}
		if ln.Addr().String() != path || ln.Addr().Network() != "unix" {
			t.Errorf("its address is %v", ln.Addr())
		}
		if got := names(t, dir); len(got) != 1 {
			t.Errorf("the directory has %q", got)
		}
		if err := ln.Close(); err != nil || len(names(t, dir)) != 0 {
			t.Errorf("after Close: %v, %q", err, names(t, dir))
		}
	}
}

// In a directory with the setgid bit, the socket gets the group of the
// directory, of which the server's user need not be a member.
func TestGroupOfDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		testkit.Missing(t, "giving a directory to a group without being a member takes root: run this test as root")
	}
	dir := testkit.ShortDir(t)
	if err := errors.Join(os.Chown(dir, -1, 4711), os.Chmod(dir, 0o750|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "relay.sock")
	if _, err := listen(t, path, socket.Access{Mode: 0o660}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Sys().(*syscall.Stat_t).Gid != 4711 || info.Mode().Perm() != 0o660 {
		t.Errorf("%+v, %v", info, err)
	}
}

// Only a socket on which nothing listens is replaced.
func TestWhatIsThere(t *testing.T) {
	for _, row := range []struct {
		why  string
		put  func(t *testing.T, path string)
		says string // empty: it is replaced
	}{
		{"nothing", func(*testing.T, string) {}, ""},
		{"a socket that a crash has left", func(t *testing.T, path string) {
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			ln.(*net.UnixListener).SetUnlinkOnClose(false)
			ln.Close()
		}, ""},
		{"a socket that a server listens on", func(t *testing.T, path string) {
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
		}, "another server listens on"},
		{"a file", func(t *testing.T, path string) { write(t, path) }, "exists and is not a socket"},
		{"a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "exists and is not a socket"},
		{"a link to a socket of another server, which may be stale", func(t *testing.T, path string) {
			if err := os.Symlink(path+".other", path); err != nil {
				t.Fatal(err)
			}
		}, "exists and is not a socket"},
	} {
		t.Run(row.why, func(t *testing.T) {
			dir := testkit.ShortDir(t)
			path := filepath.Join(dir, "relay.sock")
			row.put(t, path)
			before := len(names(t, dir))
			ln, err := listen(t, path, socket.Owner)
			if row.says != "" {
				if err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), path) {
					t.Errorf("%v, want %q", err, row.says)
				}
				if len(names(t, dir)) != before {
					t.Errorf("the directory has %q", names(t, dir))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				if conn, err := ln.Accept(); err == nil {
					conn.Close()
				}
			}()
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		})
	}
}

// Each error says what to change.
func TestErrors(t *testing.T) {
	dir := testkit.ShortDir(t)
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "file"))
	for _, row := range []struct {
		why, path string
		access    socket.Access
		says      string
		asRoot    bool // if it happens to root, too
	}{
		{"no directory", filepath.Join(dir, "none", "s"), socket.Owner, "the directory of the socket", true},
		{"a directory of others", filepath.Join(closed, "s"), socket.Owner, "let it write to the directory", false},
		{"a file for a directory", filepath.Join(dir, "file", "s"), socket.Owner, "not a directory", true},
		{"an unknown group", filepath.Join(dir, "s"), socket.Access{Mode: 0o660, Group: "no-such-group"}, `no group "no-such-group"`, true},
		{"a group of others", filepath.Join(dir, "s"), socket.Access{Mode: 0o660, Group: "4711"}, "must be a member", false},
	} {
		if os.Geteuid() == 0 && !row.asRoot {
			continue
		}
		_, err := listen(t, row.path, row.access)
		if err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want %q", row.why, err, row.says)
		}
	}
	if err := (socket.Access{Group: "no-such-group"}).Check(filepath.Join(dir, "s")); err == nil {
		t.Error("Check finds no fault in an unknown group")
	}
	if err := socket.Owner.Check(filepath.Join(dir, "none", "s")); err == nil {
		t.Error("Check finds no fault in a directory that does not exist")
	}
	if err := socket.Owner.Check(filepath.Join(dir, "s")); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("the directory has %q", got)
	}
}

// A path of the greatest length has room for the name while it is made.
func TestLongestPath(t *testing.T) {
	dir := testkit.ShortDir(t)
	path := filepath.Join(dir, strings.Repeat("n", socket.MaxPath-len(dir)-1))
	if _, err := listen(t, path, socket.Owner); err != nil {
		t.Error(err)
	}
}

// A server that ends late removes no socket of its successor.
func TestCloseSparesSuccessor(t *testing.T) {
	path := filepath.Join(testkit.ShortDir(t), "relay.sock")
	ln, err := listen(t, path, socket.Owner)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, path, socket.Owner); err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
}
