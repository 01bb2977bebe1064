package journal_test

import (
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
	"github.com/relayguard/relayguard/internal/machine"
)

const limited = "JOURNAL_FILE_LIMIT"

// alone runs the test in a process of its own, and returns true in that
// process. The limit that full sets is for all files of a process, even for
// those of the testing package.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(limited) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), limited+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// full limits each file of this process to limit bytes. As on a full disk, the
// write that exceeds the limit writes a part and then fails.
func full(t testing.TB, limit uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	set := func(limit uint64) {
		var r syscall.Rlimit
		err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r)
		if r.Cur = min(limit, r.Max); err == nil {
			err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lift = func() { set(math.MaxUint64) }
	t.Cleanup(lift)
	set(limit)
	return lift
}

func TestFullDisk(t *testing.T) {
	if !alone(t) {
		return
	}
	cfg := config(t.TempDir())
	l := open(t, cfg, 0)
	add(t, l, "a", "b")
	size := uint64(0)
	segs, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.segment"))
	if info, err := os.Stat(segs[0]); err == nil {
		size = uint64(info.Size())
	}
	for room := range uint64(60) { // the write may fail at each byte of the record
		lift := full(t, size+room)
		if _, err := l.Append(ctx, []byte("lost")); !hasReason(err, journal.ReasonFull) {
			t.Fatalf("append: %v", err)
		}
		lift()
	}
	lift := full(t, 30)
	if _, err := l.Replace(ctx, nil, []byte("lost")); !hasReason(err, journal.ReasonFull) {
		t.Fatalf("replace: %v", err)
	}
	want(t, l, "a", "b")
	lift()
	add(t, l, "c")
	l.Close()
	l = open(t, cfg, 0)
	want(t, l, "a", "b", "c")
	if names, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.*")); len(names) != 2 {
		t.Errorf("%v are left", names)
	}
}

// keeper opens a log with KeepGoing and records the calls of OnState.
func keeper(t testing.TB, cfg journal.Config) (*history.Log, *journal.Journal, *[]error) {
	t.Helper()
	states := new([]error)
	cfg.KeepGoing = true
	cfg.OnState = func(err error) { *states = append(*states, err) }
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	l, err := history.Open(ctx, history.Config{Store: j})
	if err != nil {
		t.Fatal(err)
	}
	return l, j, states
}

func TestKeepGoing(t *testing.T) {
	if !alone(t) {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t.TempDir())
		l, j, states := keeper(t, cfg)
		add(t, l, "a")
		lift := full(t, 30)
		add(t, l, "b", "c")
		if len(*states) != 1 || !hasReason((*states)[0], journal.ReasonFull) || !hasReason(j.Err(), journal.ReasonFull) {
			t.Fatalf("states %v, now %v", *states, j.Err())
		}
		time.Sleep(10 * time.Second)
		add(t, l, "d") // tries, but fails
		lift()
		add(t, l, "e") // too soon to try again
		if j.Err() == nil || len(*states) != 1 {
			t.Fatalf("states %v, now %v", *states, j.Err())
		}
		time.Sleep(10 * time.Second)
		add(t, l, "f")
		if j.Err() != nil || len(*states) != 2 || (*states)[1] != nil {
			t.Fatalf("states %v, now %v", *states, j.Err())
		}
		crashed := config(t.TempDir())
		copyDir(t, cfg.Dir, crashed.Dir, "*.*")
		again, _, _ := keeper(t, crashed)
		want(t, again, "a", "b", "c", "d", "e", "f")
		if !again.Since(l.Position()).Reset {
			t.Error("numbers of the time in memory may come again, and no new epoch")
		}
	})
}

// A journal cannot accept the end of a log in memory only, as it can an entry:
// no later append would write it.
func TestFinishNeedsTheMedium(t *testing.T) {
	if !alone(t) {
		return
	}
	l, _, _ := keeper(t, config(t.TempDir()))
	add(t, l, "a")
	lift := full(t, 30)
	if err := l.Finish(ctx); !hasReason(err, journal.ReasonFull) || l.Finished() {
		t.Fatalf("finished %v, %v", l.Finished(), err)
	}
	add(t, l, "b") // KeepGoing
	lift()
	if err := l.Finish(ctx); err != nil || !l.Finished() {
		t.Fatalf("with space again: %v", err)
	}
}

// On a full disk, a Clear destroys the old entries, and new ones are in memory.
func TestKeepGoingClears(t *testing.T) {
	if !alone(t) {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t.TempDir())
		l, j, _ := keeper(t, cfg)
		add(t, l, "secret")
		lift := full(t, 30)
		if keys, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.key")); len(keys) != 1 {
			t.Fatal(keys)
		}
		// The key file is longer than the limit, so even overwriting it fails.
		if _, err := l.Clear(ctx, nil); err == nil {
			t.Error("what can still be read is not cleared")
		}
		want(t, l, "secret")
		lift()
		lift = full(t, 160) // enough to overwrite the key, too little for another segment
		if _, err := l.Replace(ctx, nil, []byte(strings.Repeat("x", 200))); err != nil {
			t.Fatal(err)
		}
		if names, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.*")); len(names) != 0 || j.Err() == nil {
			t.Errorf("%v are left, state %v", names, j.Err())
		}
		add(t, l, "y")
		lift()
		if err := l.Close(); err != nil { // writes everything
			t.Fatal(err)
		}
		want(t, open(t, cfg, 0), strings.Repeat("x", 200), "y")
	})
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	l := open(t, config(filepath.Join(dir, "journal")), 0)
	add(t, l, "a")
	parent := filepath.Join(dir, "parent")
	for _, name := range []string{parent, filepath.Join(dir, "journal")} {
		if err := os.MkdirAll(name, 0o500); err != nil {
			t.Fatal(err)
		}
		os.Chmod(name, 0o500)
		defer os.Chmod(name, 0o700)
	}
	if os.Geteuid() == 0 {
		// Root may write everywhere, so this thread becomes another user for
		// file accesses.
		os.Chown(filepath.Join(dir, "journal"), 65534, -1)
		os.Chmod(parent, 0o555)
		os.Chmod(filepath.Dir(dir), 0o755) // the parent directory, so that the user reaches dir
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := syscall.Setfsuid(65534); err != nil {
			machine.Missing(t, "cannot act as another user: run this as root with CAP_SETUID, or as an ordinary user: "+err.Error())
		}
		defer syscall.Setfsuid(0)
	}
	if _, err := journal.Open(config(filepath.Join(parent, "journal"))); !hasReason(err, journal.ReasonReadOnly) {
		t.Errorf("nowhere to begin: %v", err)
	}
	if _, err := l.Clear(ctx, nil); !hasReason(err, journal.ReasonReadOnly) {
		t.Errorf("clear: %v", err)
	}
	want(t, l, "a")
	add(t, l, "b") // the segment is open, so appends still work
}

// Entries that retention drops are removed from the disk, even without an
// append.
func TestPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t.TempDir())
		j, err := journal.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l, err := history.Open(ctx, history.Config{Store: j, MaxAge: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		add(t, l, strings.Repeat("a", 2000))
		before := dirSize(t, cfg.Dir)
		time.Sleep(time.Hour + 2*time.Minute)
		synctest.Wait()
		if l.Stats().Entries != 0 || dirSize(t, cfg.Dir) > before-2000 {
			t.Errorf("%d entries, %d bytes of %d", l.Stats().Entries, dirSize(t, cfg.Dir), before)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t.TempDir())
		cfg.Sync, cfg.Every = journal.SyncInterval, time.Minute
		l := open(t, cfg, 0)
		for range 3 {
			add(t, l, "a")
			time.Sleep(time.Minute)
		}
		add(t, l, "b")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // a timer that still runs must not use the closed journal
		want(t, open(t, cfg, 0), "a", "a", "a", "b")
	})
}
