//go:build unix

package refresh_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// A directory in which others can write is refused with the reason, at the
// start and when it becomes such a directory later.
func TestDirStoreUnsafe(t *testing.T) {
	must := func(t *testing.T, errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		why  string
		make func(t *testing.T, dir string) // dir exists
		want string                         // empty: it is used
	}{
		{"its own", func(*testing.T, string) {}, ""},
		{"readable by others, who see only hashes of hashes", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o755)) }, ""},
		{"the group's, as of a volume of Kubernetes", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o770|os.ModeSetgid)) }, ""},
		{"everyone's", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) }, "is writable by everyone"},
		{"everyone's, like /tmp", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777|os.ModeSticky)) }, "is writable by everyone"},
		{"writable by all but the group", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o703)) }, "is writable by everyone"},
		{"a link", func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
		}, "is a symbolic link"},
		{"a link to nothing", func(t *testing.T, dir string) { must(t, os.Remove(dir), os.Symlink(dir+".real", dir)) }, "is a symbolic link"},
		{"a file", func(t *testing.T, dir string) { must(t, os.Remove(dir), os.WriteFile(dir, nil, 0o600)) }, "is not a directory"},
		{"another user's", func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			must(t, os.Chown(dir, 65534, -1))
		}, "belongs to user 65534"},
	} {
		for _, path := range []string{"state", "state/"} {
			t.Run(row.why+"/"+path, func(t *testing.T) {
				// A link above the directory is the operator's own choice.
				above := filepath.Join(t.TempDir(), "above")
				must(t, os.Mkdir(above+".real", 0o700), os.Symlink(above+".real", above))
				dir := filepath.Join(above, "state")
				must(t, os.Mkdir(dir, 0o700))
				early := newDir(t, dir, 0)
				i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = early })
				if row.want == "" {
					issue(t, i, "pi-1")
				}
				row.make(t, dir)

				s, err := refresh.NewDirStore(above+"/"+path, 0)
				_, inUse := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1"}, now)
				_, listed := i.FamiliesAt(t.Context(), now)
				_, _, loaded := early.Load(t.Context(), strings.Repeat("a", 32))
				_, rotated := early.Rotate(t.Context(), refresh.StoredFamily{}, 0)
				_, _, removed := early.Remove(t.Context(), strings.Repeat("a", 32))
				for what, err := range map[string]error{"new": err, "create": inUse, "list": listed, "load": loaded, "rotate": rotated, "remove": removed} {
					switch {
					case row.want == "" && err != nil:
						t.Errorf("%s: %v", what, err)
					case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), dir)):
						t.Errorf("%s: %v, want %q", what, err, row.want)
					}
				}
				if (s == nil) != (row.want != "") {
					t.Error("store", s)
				}
			})
		}
	}
}

// Nothing that lies in the directory is followed, opened or left behind.
func TestDirStoreTraps(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 0) })
	p, q, r := issue(t, i, "pi-1"), issue(t, i, "pi-2"), issue(t, i, "pi-2")
	file := func(p refresh.Pair) string {
		return filepath.Join(dir, strings.TrimSuffix(p.TokenID, ".1")+".family")
	}
	stale := time.Now().Add(-time.Hour)
	half := file(p) + ".ABCDEF.new"
	for path, set := range map[string]func(string) error{
		file(p) + ".new": func(path string) error { return os.Symlink(outside, path) }, // the name of earlier versions
		half: func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, stale, stale))
		},
		file(q): func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
		file(r): func(path string) error { return errors.Join(os.Remove(path), os.Symlink(outside, path)) },
		filepath.Join(dir, "notes.new"): func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, stale, stale))
		},
	} {
		if err := set(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
		t.Error(err)
	}
	for _, trap := range []refresh.Pair{q, r} {
		_, err := i.RefreshAt(t.Context(), trap.RefreshToken, wsauth.Peer{}, now)
		if _, ok := errors.AsType[*wsauth.UnavailableError](err); !ok {
			t.Errorf("what is no file: %v", err)
		}
	}
	if text, err := os.ReadFile(outside); string(text) != "precious" || err != nil {
		t.Errorf("outside: %q %v", text, err)
	}
	newDir(t, dir, 0)
	if _, err := os.Lstat(half); !errors.Is(err, os.ErrNotExist) {
		t.Error("what a crash left is still there:", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "notes.new")); err != nil {
		t.Error("a foreign file is gone:", err)
	}
}

// A write that fails leaves nothing behind, and the old content in place. A
// file that another process is writing stays.
func TestDirStoreLeavesNoLitter(t *testing.T) {
	dir := t.TempDir()
	s := newDir(t, dir, 0)
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = s })
	p := issue(t, i, "pi-1")
	writing := families(t, dir)[0] + ".ABCDEF.new"
	if err := os.WriteFile(writing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	obstacle := strings.Repeat("b", 32)
	if err := os.MkdirAll(filepath.Join(dir, obstacle+".family", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Create(t.Context(), refresh.StoredFamily{Family: refresh.Family{ID: obstacle}}, now); err == nil {
			t.Error("written over a directory")
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Error(entries, err)
	}
	if _, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
		t.Error(err)
	}
}

// A file system that cannot sync a directory is no failure, and a failure after
// the commit says that the change was made.
func TestDirStoreSync(t *testing.T) {
	for _, row := range []struct {
		err error
		ok  bool
	}{
		{nil, true},
		{&os.PathError{Op: "sync", Path: ".", Err: syscall.EINVAL}, true},
		{&os.PathError{Op: "sync", Path: ".", Err: syscall.ENOTSUP}, true},
		{&os.PathError{Op: "sync", Path: ".", Err: syscall.EIO}, false},
		{&os.PathError{Op: "sync", Path: ".", Err: syscall.ENOSPC}, false},
	} {
		dir := t.TempDir()
		s := newDir(t, dir, 0)
		i, r := newIssuer(t, func(c *refresh.Config) { c.Store = s })
		p, doomed := issue(t, i, "pi-1"), issue(t, i, "pi-2")
		restore := refresh.SetSyncDir(func(*os.File) error { return row.err })
		check := func(what string, err error, says string) {
			t.Helper()
			switch {
			case row.ok != (err == nil), !row.ok && !errors.Is(err, row.err):
				t.Errorf("%v: %s: %v", row.err, what, err)
			case !row.ok && !strings.Contains(err.Error(), says):
				t.Errorf("%v: %s says %q", row.err, what, err)
			}
		}
		const made = "the change was made"
		_, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now)
		check("refresh", err, made)
		again, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now.Add(time.Second))
		if err != nil || !strings.HasSuffix(again.TokenID, ".2") {
			t.Errorf("%v: the answer is not given again: %v", row.err, err)
		}
		next := family(t, s, again.TokenID)
		if rotated, err := s.Rotate(t.Context(), next, next.Generation-1); !rotated {
			t.Errorf("%v: made and denied: %v", row.err, err)
		}
		before := len(families(t, dir))
		_, err = i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1"}, now)
		check("issue", err, "")
		if after := len(families(t, dir)); (after > before) != row.ok {
			t.Errorf("%v: a family that no one can use: %d, then %d", row.err, before, after)
		}
		found, err := i.RevokeFamilyAt(t.Context(), strings.TrimSuffix(doomed.TokenID, ".1"), now)
		check("revoke", err, made)
		if !found || len(r.revoked) != 1 {
			t.Errorf("%v: a revocation that was made is not reported: %t", row.err, found)
		}
		restore()
	}
}

// family returns the generation after the one of a token ID.
func family(t testing.TB, s refresh.Store, tokenID string) refresh.StoredFamily {
	t.Helper()
	id, _, _ := strings.Cut(tokenID, ".")
	f, found, err := s.Load(t.Context(), id)
	if !found || err != nil {
		t.Fatal(found, err)
	}
	f.Generation++
	return f
}
