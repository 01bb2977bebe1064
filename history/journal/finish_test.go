package journal_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// A finished log is finished after every kind of restart, and after everything
// that writes the segment anew.
func TestFinishIsDurable(t *testing.T) {
	for _, row := range []struct {
		why   string
		sync  journal.Sync
		crash bool
		after func(t *testing.T, l *history.Log)
		want  []string
	}{
		{"an orderly restart", journal.SyncAlways, false, nil, []string{"a", "b"}},
		{"a crash", journal.SyncAlways, true, nil, []string{"a", "b"}},
		{"a crash, with entries that were not synced", journal.SyncNever, true, nil, []string{"a", "b"}},
		{"an erasure", journal.SyncAlways, true, func(t *testing.T, l *history.Log) {
			if n, err := l.Delete(ctx, 1); n != 1 || err != nil {
				t.Error(n, err)
			}
		}, []string{"b"}},
		{"a Clear", journal.SyncInterval, false, func(t *testing.T, l *history.Log) {
			if _, err := l.Clear(ctx, nil); err != nil {
				t.Error(err)
			}
		}, nil},
	} {
		cfg := config(t.TempDir())
		cfg.Sync = row.sync
		l := open(t, cfg, 0)
		add(t, l, "a", "b")
		if err := errors.Join(l.Finish(ctx), l.Finish(ctx)); err != nil {
			t.Fatalf("%s: %v", row.why, err)
		}
		if row.after != nil {
			row.after(t, l)
		}
		for range 2 {
			if row.crash {
				copied := config(t.TempDir())
				copied.Sync = row.sync
				copyDir(t, cfg.Dir, copied.Dir, "*.*")
				cfg = copied
			}
			l.Close()
			l = open(t, cfg, 0)
			want(t, l, row.want...)
			if _, err := l.Append(ctx, []byte("c")); !errors.Is(err, history.ErrFinished) || !l.Finished() {
				t.Errorf("%s: finished is %v, and Append returns %v", row.why, l.Finished(), err)
			}
		}
	}
}

// Each log of a set has its own directory, also on a file system that ignores
// case, and reading a name makes none.
func TestForSet(t *testing.T) {
	dir := t.TempDir()
	store, err := journal.ForSet(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := history.NewSet(history.SetConfig{Store: store, MaxLogs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	for _, name := range []string{"build-1", "Build-1"} {
		if _, _, err := logs.Acquire(ctx, name); !errors.Is(err, history.ErrNotExist) {
			t.Errorf("%s before it was made: %v", name, err)
		}
		l, release, err := logs.Create(ctx, name) // closes the one before
		if err != nil {
			t.Fatal(err)
		}
		add(t, l, name)
		if err := l.Finish(ctx); err != nil {
			t.Fatal(err)
		}
		release()
	}
	for _, name := range []string{"build-1", "Build-1"} {
		l, release, err := logs.Acquire(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		want(t, l, name)
		if !l.Finished() {
			t.Errorf("%s is no longer finished", name)
		}
		release()
	}
	got, _ := filepath.Glob(filepath.Join(dir, "*"))
	if want := []string{filepath.Join(dir, "!build-1"), filepath.Join(dir, "build-1")}; !slices.Equal(got, want) {
		t.Errorf("directories %q, want %q", got, want)
	}
	if _, err := journal.ForSet(journal.Config{}); !errors.Is(err, journal.ConfigMissing) {
		t.Errorf("no keys: %v", err)
	}
}

// As after Open, the caller may overwrite its keys after ForSet. Otherwise logs
// that are opened later would be encrypted under zeros.
func TestForSetCopiesKeys(t *testing.T) {
	cfg := config(t.TempDir())
	key := slices.Clone(cfg.Keys[0])
	cfg.Keys = [][]byte{slices.Clone(key)}
	store, err := journal.ForSet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	clear(cfg.Keys[0])
	for _, open := range []func(context.Context, string, bool) (history.Store, error){
		store,
		func(context.Context, string, bool) (history.Store, error) {
			return journal.Open(journal.Config{Dir: journal.SetDir(cfg.Dir, "a"), Keys: [][]byte{key}})
		},
	} {
		s, err := open(ctx, "a", true)
		if err != nil {
			t.Fatal(err)
		}
		l, err := history.Open(ctx, history.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

// The longest name that a Set accepts, in the spelling whose directory has the
// longest name, fits into the 255 bytes that file systems allow.
func TestLongestName(t *testing.T) {
	store, err := journal.ForSet(config(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := history.NewSet(history.SetConfig{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	name := strings.Repeat("A", 1000)
	for _, _, err = logs.Acquire(ctx, name); errors.Is(err, history.ErrName); _, _, err = logs.Acquire(ctx, name) {
		name = name[1:]
	}
	if !errors.Is(err, history.ErrNotExist) {
		t.Fatalf("%d characters: %v", len(name), err)
	}
	if _, _, err := logs.Create(ctx, name); err != nil {
		t.Errorf("%d characters: %v", len(name), err)
	}
}
