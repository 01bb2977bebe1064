package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

var (
	ctx  = context.Background()
	key1 = bytes.Repeat([]byte{1}, journal.KeySize)
	key2 = bytes.Repeat([]byte{2}, journal.KeySize)
)

func config(dir string) journal.Config { return journal.Config{Dir: dir, Keys: [][]byte{key1}} }

// open returns a log with a journal. It fails the test if it cannot be opened.
func open(t testing.TB, cfg journal.Config, keep int) *history.Log {
	t.Helper()
	l, err := tryOpen(t, cfg, keep)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tryOpen(t testing.TB, cfg journal.Config, keep int) (*history.Log, error) {
	t.Helper()
	j, err := journal.Open(cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { j.Close() })
	l, err := history.Open(ctx, history.Config{Keep: keep, Store: j})
	if err != nil {
		j.Close()
	}
	return l, err
}

func add(t testing.TB, l *history.Log, data ...string) {
	t.Helper()
	for _, d := range data {
		if _, err := l.Append(ctx, []byte(d)); err != nil {
			t.Fatal(err)
		}
	}
}

func texts(b history.Batch) (list []string) {
	for _, e := range b.Entries {
		list = append(list, string(e.Data))
	}
	return list
}

func want(t testing.TB, l *history.Log, data ...string) {
	t.Helper()
	if got := texts(l.Since(history.Oldest())); !slices.Equal(got, data) {
		t.Fatalf("kept %q, want %q", got, data)
	}
}

func hasReason(err error, reason journal.Reason) bool {
	var e *journal.Error
	return errors.As(err, &e) && e.Reason == reason
}

// copyDir copies the files of a journal whose names match pattern.
func copyDir(t testing.TB, from, to, pattern string) {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(from, pattern))
	if len(names) == 0 {
		t.Fatal("nothing to copy")
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(name)), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReopen(t *testing.T) {
	for _, policy := range []journal.Sync{journal.SyncAlways, journal.SyncInterval, journal.SyncNever} {
		cfg := config(t.TempDir())
		cfg.Sync = policy
		l := open(t, cfg, 0)
		add(t, l, "a", "b", "")
		pos := l.Position()
		before := l.Since(history.Oldest()).Entries
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, cfg, 0)
		want(t, l, "a", "b", "")
		for i, e := range l.Since(history.Oldest()).Entries {
			if e.Seq != before[i].Seq || !e.At.Equal(before[i].At) {
				t.Errorf("policy %d: entry %d is %v, was %v", policy, i, e, before[i])
			}
		}
		if l.Position() != pos {
			t.Errorf("policy %d: an orderly restart moved %v to %v", policy, pos, l.Position())
		}
		l.Replace(ctx, []byte("note"), []byte("c"), []byte("d"))
		add(t, l, "e")
		l.Delete(ctx, 4)
		l.Close()
		l = open(t, cfg, 0)
		want(t, l, "d", "e")
		if b := l.Since(pos); !b.Reset || string(b.Note) != "note" {
			t.Errorf("policy %d: epoch or note is lost: %+v", policy, b)
		}
		l.Close()
	}
}

// The numbers of lost entries are used again for other entries, so a new epoch
// must begin if entries can have been lost. Otherwise the epoch goes on.
func TestEpochAfterCrash(t *testing.T) {
	for policy, reset := range map[journal.Sync]bool{journal.SyncAlways: false, journal.SyncInterval: true, journal.SyncNever: true} {
		cfg := config(t.TempDir())
		cfg.Sync = policy
		l := open(t, cfg, 0)
		add(t, l, "a", "b")
		crashed := cfg
		crashed.Dir = t.TempDir()
		copyDir(t, cfg.Dir, crashed.Dir, "*.*")
		again := open(t, crashed, 0)
		want(t, again, "a", "b")
		if got := again.Since(l.Position()).Reset; got != reset {
			t.Errorf("policy %d: reset %v, want %v", policy, got, reset)
		}
	}
}

func TestTrim(t *testing.T) {
	cfg := config(t.TempDir())
	l := open(t, cfg, 10)
	text := strings.Repeat("x", 1000)
	for i := range 200 {
		add(t, l, fmt.Sprint(i, text))
	}
	kept := texts(l.Since(history.Oldest()))
	l.Close()
	if n := dirSize(t, cfg.Dir); n > 60<<10 {
		t.Errorf("%d bytes on disk for %d entries of 1,000", n, len(kept))
	}
	want(t, open(t, cfg, 10), kept...)
}

func dirSize(t testing.TB, dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, _ := e.Info()
		n += info.Size()
	}
	return n
}

// Entries that retention dropped are not loaded, even if their records are
// still in the segment.
func TestTrimIsRemembered(t *testing.T) {
	cfg := config(t.TempDir())
	l := open(t, cfg, 2)
	add(t, l, "a", "b", "c")
	l.Close()
	want(t, open(t, cfg, 2), "b", "c")
}

func TestModes(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "new"))
	l := open(t, cfg, 0)
	add(t, l, "a")
	l.Clear(ctx, nil)
	filepath.WalkDir(cfg.Dir, func(name string, d fs.DirEntry, err error) error {
		info, _ := d.Info()
		if perm := info.Mode().Perm(); perm != 0o600 && !d.IsDir() || perm != 0o700 && d.IsDir() {
			t.Errorf("%s has mode %v", name, perm)
		}
		return err
	})
}

func TestOneProcessAtATime(t *testing.T) {
	cfg := config(t.TempDir())
	l := open(t, cfg, 0)
	if _, err := journal.Open(cfg); !hasReason(err, journal.ReasonLocked) {
		t.Errorf("second: %v", err)
	}
	l.Close()
	open(t, cfg, 0)
}

func TestConfig(t *testing.T) {
	_, err := journal.Open(journal.Config{Keys: [][]byte{key1, key1[1:]}, Sync: 7, Every: -1})
	for _, w := range []journal.ConfigError{
		{"Config.Dir", journal.ConfigMissing}, {"Config.Keys[1]", journal.ConfigKeySize},
		{"Config.Sync", journal.ConfigUnknown}, {"Config.Every", journal.ConfigNegative},
	} {
		if !strings.Contains(err.Error(), w.Error()) || !errors.Is(err, w.Reason) {
			t.Errorf("%v: not reported in %v", w, err)
		}
	}
	if _, err := journal.Open(journal.Config{Dir: t.TempDir()}); !errors.Is(err, journal.ConfigMissing) {
		t.Errorf("no key: %v", err)
	}
}

func TestWrongKey(t *testing.T) {
	cfg := config(t.TempDir())
	l := open(t, cfg, 0)
	add(t, l, "a")
	l.Close()
	wrong := cfg
	wrong.Keys = [][]byte{key2}
	j, err := journal.Open(wrong)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Load(ctx); !hasReason(err, journal.ReasonWrongKey) {
		t.Errorf("wrong key: %v", err)
	}
	// If the caller ignores the error, Replace must not destroy the entries.
	if err := j.Replace(ctx, history.Saved{ID: 1}); err == nil {
		t.Error("replaced what could not be loaded")
	}
	j.Close()
	want(t, open(t, cfg, 0), "a")
}

func TestRotation(t *testing.T) {
	cfg := config(t.TempDir())
	l := open(t, cfg, 0)
	add(t, l, "a")
	l.Close()

	ring := cfg
	ring.Keys = [][]byte{key2, key1}
	j, err := journal.Open(ring)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = history.Open(ctx, history.Config{Store: j}); err != nil {
		t.Fatal(err)
	}
	want(t, l, "a")
	if err := j.Rewrap(ctx); err != nil {
		t.Fatal(err)
	}
	add(t, l, "b")
	l.Close()

	if _, err := tryOpen(t, cfg, 0); !hasReason(err, journal.ReasonWrongKey) {
		t.Errorf("the old key still opens it: %v", err)
	}
	cfg.Keys = ring.Keys[:1]
	want(t, open(t, cfg, 0), "a", "b")
}

// After an erasure, an older copy of the segment must be unreadable, even with
// the master key. With a copy of the old key file it is readable, so key files
// must not be in backups.
func TestClearedIsUnreadable(t *testing.T) {
	for name, erase := range map[string]func(l *history.Log){
		"Clear":   func(l *history.Log) { l.Clear(ctx, nil) },
		"Replace": func(l *history.Log) { l.Replace(ctx, nil, []byte("b")) },
		"Delete":  func(l *history.Log) { l.Delete(ctx, 1) },
	} {
		cfg := config(t.TempDir())
		backup, full := config(t.TempDir()), config(t.TempDir())
		l := open(t, cfg, 0)
		add(t, l, "secret")
		copyDir(t, cfg.Dir, backup.Dir, "*.segment")
		copyDir(t, cfg.Dir, full.Dir, "*.*")
		oldKeys, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.key"))
		held, err := os.Open(oldKeys[0]) // stands for the blocks that a removed file leaves on the disk
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		before, _ := os.ReadFile(oldKeys[0])
		erase(l)
		l.Close()

		after := make([]byte, len(before))
		held.ReadAt(after, 0)
		if bytes.Equal(before[40:], after[40:]) {
			t.Errorf("%s: the key is removed, but not overwritten", name)
		}
		// Try to open the copy with the key file that is there now.
		copyDir(t, cfg.Dir, backup.Dir, "*.key")
		segs, _ := filepath.Glob(filepath.Join(backup.Dir, "*.segment"))
		keys, _ := filepath.Glob(filepath.Join(backup.Dir, "*.key"))
		if len(segs) != 1 || len(keys) != 1 {
			t.Fatalf("%s: %v %v", name, segs, keys)
		}
		os.Rename(segs[0], strings.TrimSuffix(keys[0], ".key")+".segment")
		if _, err := tryOpen(t, backup, 0); !hasReason(err, journal.ReasonCorrupt) {
			t.Errorf("%s: the copy opens: %v", name, err)
		}
		want(t, open(t, full, 0), "secret")
	}
}

// A directory that version 1 of the format wrote keeps its entries and its
// positions.
func TestVersion1(t *testing.T) {
	cfg := journal.Config{Dir: t.TempDir(), Keys: [][]byte{bytes.Repeat([]byte{7}, journal.KeySize)}}
	copyDir(t, "testdata/version1", cfg.Dir, "*.*")
	var cleared, one history.Position // before the note, and after the entry "one"
	if err := errors.Join(cleared.UnmarshalText([]byte("tYka9O2GI7IAAQ")), one.UnmarshalText([]byte("tYka9O2GI7IBAg"))); err != nil {
		t.Fatal(err)
	}
	for opening := range 3 {
		l := open(t, cfg, 0)
		if b := l.Since(cleared); !b.Reset || string(b.Note) != "note" || !slices.Equal(texts(b)[:2], []string{"one", "two"}) {
			t.Fatalf("opening %d: note %q, entries %q", opening, b.Note, texts(b))
		}
		if b := l.Since(one); b.Reset || len(b.Entries) != 1+opening || string(b.Entries[0].Data) != "two" {
			t.Errorf("opening %d: after %v: %+v", opening, one, b)
		}
		add(t, l, "more")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
