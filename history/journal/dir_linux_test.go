package journal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// A directory that another user can change is refused with the reason, before
// anything in it is read or changed.
func TestUnsafeDirectories(t *testing.T) {
	for _, row := range []struct {
		why, says string
		root      bool // only root can arrange it
		make      func(dir string) error
	}{
		{"any user may write to it", "any user may write", false, func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777))
		}},
		{"any user may write to it, like /tmp", "any user may write", false, func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777|os.ModeSticky))
		}},
		{"another user owns it", "belongs to user 65534", true, func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 65534, 65534))
		}},
		{"a link", "link", false, func(dir string) error {
			return errors.Join(os.Mkdir(dir+"2", 0o700), os.Symlink(dir+"2", dir))
		}},
		{"a link to nowhere", "", false, func(dir string) error { return os.Symlink(dir+"2", dir) }},
		{"the lock is a link", "ordinary file", false, func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(dir+".x", []byte("precious"), 0o600), os.Symlink(dir+".x", filepath.Join(dir, "lock")))
		}},
	} {
		if row.root && os.Geteuid() != 0 {
			continue
		}
		dir := filepath.Join(t.TempDir(), "h")
		if err := row.make(dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{dir, dir + "/"} {
			j, err := journal.Open(config(name))
			if err == nil {
				j.Close()
			}
			if !hasReason(err, journal.ReasonUnsafe) && row.says != "" || err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%s: %v", row.why, err)
			}
		}
		if store, err := journal.ForSet(config(dir)); err != nil {
			t.Fatal(err)
		} else if s, err := store(ctx, "a", true); err == nil {
			s.Close() // a lock is no business of the set
			if !strings.Contains(row.why, "lock") {
				t.Errorf("%s: accepted for a set", row.why)
			}
			os.RemoveAll(filepath.Join(dir, "a"))
		} else if !hasReason(err, journal.ReasonUnsafe) {
			t.Errorf("%s: for a set: %v", row.why, err)
		}
		if row.says != "" {
			if entries, _ := os.ReadDir(dir); len(entries) > 1 {
				t.Errorf("%s: %v were made", row.why, entries)
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "h") // the group is no stranger: it loses its rights
	os.Mkdir(dir, 0o700)
	os.Chmod(dir, 0o770)
	l := open(t, config(dir), 0)
	add(t, l, "a")
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}

// No file that the journal makes or reads is one to which a link leads.
func TestNoLinkIsFollowed(t *testing.T) {
	precious := filepath.Join(t.TempDir(), "precious")
	content := []byte("precious")
	for _, name := range []string{"next-key", "next-segment", "0000000000000002.key", "0000000000000002.segment", "0000000000000002.key.tmp", "0000000000000003.key", "0000000000000003.segment"} {
		for _, inside := range []bool{false, true} {
			cfg := config(t.TempDir())
			to := precious
			if inside {
				to = filepath.Join(cfg.Dir, "precious")
			}
			os.WriteFile(to, content, 0o600)
			if inside {
				os.Symlink("precious", filepath.Join(cfg.Dir, name))
			} else {
				os.Symlink(to, filepath.Join(cfg.Dir, name))
			}
			if l, err := tryOpen(t, cfg, 0); err == nil {
				l.Append(ctx, []byte("a"))
				l.Clear(ctx, nil)
				l.Append(ctx, []byte("a"))
				l.Close()
			}
			if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: the file that it leads to holds %q, %v", name, got, err)
			}
		}
	}
}

// An erasure works while the process has no file descriptor left, as often as
// it is asked for.
func TestErasureWithoutDescriptors(t *testing.T) {
	if !alone(t) {
		return
	}
	cfg := config(t.TempDir())
	l := open(t, cfg, 0)
	l.Close()
	l = open(t, cfg, 0)
	add(t, l, "a")
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	r.Cur = 64
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	var held []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, f)
	}
	for i, do := range []func() error{
		func() error { _, err := l.Clear(ctx, nil); return err },
		func() error { _, err := l.Replace(ctx, nil, []byte("b"), []byte("c")); return err },
		func() error { _, err := l.Delete(ctx, 2); return err },
		func() error { _, err := l.Append(ctx, []byte("d")); return err },
		func() error { _, err := l.Clear(ctx, nil); return err },
		func() error { _, err := l.Append(ctx, []byte("e")); return err },
	} {
		if err := do(); err != nil {
			t.Errorf("change %d: %v", i+1, err)
		}
		// Other parts of the process take what the change freed.
		for f, err := os.Open(os.DevNull); err == nil; f, err = os.Open(os.DevNull) {
			held = append(held, f)
		}
	}
	for _, f := range held {
		f.Close()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, open(t, cfg, 0), "e")
}

// An error after the commit says that the change is made: the log has it, and
// so has the directory. Before the commit, neither has.
func TestErrorsSayWhatWasDone(t *testing.T) {
	base := &faultDir{names: map[string]*inode{}, durable: map[string]*inode{}}
	f, err := openFaulty(base, false)
	if err != nil {
		t.Fatal(err)
	}
	add(t, f.log, "a")
	f.log.Close()
	made := 0
	for call := 0; ; call++ {
		dir := base.clone()
		if f, err = openFaulty(dir, false); err != nil {
			t.Fatal(err)
		}
		viewer := f.log.Reader(history.Latest())
		dir.calls, dir.faults = 0, map[int]fault{call: fails}
		_, err := f.log.Clear(ctx, nil)
		if dir.calls <= call {
			break
		}
		b, _ := viewer.TryNext()
		changed := b.Reset
		after, lerr := openFaulty(dir.crashed()["killed"], false)
		if lerr != nil {
			t.Fatal(lerr)
		}
		unfinished := errors.Is(err, history.ErrNotErased)
		if changed != (err == nil || unfinished) || changed != (after.texts() == "") {
			t.Errorf("call %d: %v, but the log has changed: %v, and the directory holds %q", call, err, changed, after.texts())
		}
		if unfinished {
			made++
			if f.j.Err() == nil {
				t.Errorf("call %d: the journal is not well", call)
			}
		}
	}
	if made == 0 {
		t.Error("no call failed after the commit")
	}
}

// Some file systems have no fsync for directories. The one of /proc is one of
// them.
func TestDirectoryWithoutSync(t *testing.T) {
	proc, err := os.Open("/proc/self")
	if err != nil {
		t.Skip("no /proc is mounted here: ", err)
	}
	defer proc.Close()
	if err := proc.Sync(); !errors.Is(err, syscall.EINVAL) {
		t.Skipf("this /proc syncs directories: %v", err)
	}
	if err := journal.SyncDirectory("/proc/self"); err != nil {
		t.Errorf("what cannot be done is an error: %v", err)
	}
}

// In a volume that belongs to root and to the group of the process, the mode of
// the directory cannot be changed. That is a warning.
func TestModeCannotBeChanged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can arrange it: run this as root")
	}
	dir := filepath.Join(t.TempDir(), "h")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 0, 65534), os.Chmod(dir, 0o770|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	for up := filepath.Dir(dir); up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		os.Chmod(up, 0o755)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := errors.Join(syscall.Setfsgid(65534), syscall.Setfsuid(65534)); err != nil {
		t.Skip("cannot act as another user: run this as root with CAP_SETUID and CAP_SETGID: ", err)
	}
	defer func() { syscall.Setfsuid(0); syscall.Setfsgid(0) }()
	cfg := config(dir)
	var warnings []error
	cfg.OnWarning = func(err error) { warnings = append(warnings, err) }
	l := open(t, cfg, 0)
	add(t, l, "a")
	l.Clear(ctx, nil)
	add(t, l, "b")
	l.Close()
	want(t, open(t, cfg, 0), "b")
	if len(warnings) != 2 || !hasReason(warnings[0], journal.ReasonReadOnly) {
		t.Errorf("warnings: %v", warnings)
	}
}

// The lock ends with Close, though a process that is being started has a copy of
// its file for a moment.
func TestLockEndsWithClose(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := filepath.EvalSymlinks(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	open, _ := filepath.Glob("/proc/self/fd/*")
	at := slices.IndexFunc(open, func(link string) bool {
		name, err := os.Readlink(link)
		return err == nil && name == lock
	})
	if at < 0 {
		t.Fatalf("no open file is %s", lock)
	}
	fd, err := strconv.Atoi(filepath.Base(open[at]))
	if err != nil {
		t.Fatal(err)
	}
	duplicate, err := syscall.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(duplicate)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = journal.Open(config(dir)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
