package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// small makes a journal, closes it, and returns the names of its two files.
func small(t testing.TB, cfg journal.Config) (segment, key string) {
	t.Helper()
	l := open(t, cfg, 0)
	l.Replace(ctx, []byte("note"), []byte("a"), []byte("b"))
	add(t, l, "c", "dd")
	if err := l.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	l.Close()
	segs, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.segment"))
	keys, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.key"))
	if len(segs) != 1 || len(keys) != 1 {
		t.Fatalf("%v and %v are left", segs, keys)
	}
	return segs[0], keys[0]
}

// memory is a directory in memory, if there is one, so that the syncs of
// thousands of journals do not wear out a disk.
var memory = func() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}()

// load copies the directory of cfg, gives one file another content, and returns
// what Load and OnDropped report for the copy.
func load(t testing.TB, cfg journal.Config, file string, content []byte) (history.Saved, []journal.Dropped, error) {
	t.Helper()
	var dropped []journal.Dropped
	from := cfg.Dir
	dir, err := os.MkdirTemp(memory, "relayguard-journal-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg.Dir = dir
	copyDir(t, from, cfg.Dir, "*.*")
	if err := os.WriteFile(filepath.Join(cfg.Dir, filepath.Base(file)), content, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.OnDropped = func(d journal.Dropped) { dropped = append(dropped, d) }
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	saved, err := j.Load(ctx)
	return saved, dropped, err
}

func describe(s history.Saved) string {
	text := fmt.Sprintf("%x %d %d %d %s %v", s.ID, s.Epoch, s.Last, s.NoteEpoch, s.Note, s.Finished)
	for _, e := range s.Entries {
		text += fmt.Sprintf(" %d@%d=%s", e.Seq, e.At.UnixNano(), e.Data)
	}
	return text
}

func TestEveryBitFlipped(t *testing.T) {
	cfg := config(t.TempDir())
	segment, key := small(t, cfg)
	for _, file := range []string{segment, key} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		whole, dropped, err := load(t, cfg, file, content)
		if err != nil || len(dropped) > 0 {
			t.Fatal(err, dropped)
		}
		refused := 0
		for bit := range len(content) * 8 {
			content[bit/8] ^= 1 << (bit % 8)
			got, dropped, err := load(t, cfg, file, content)
			content[bit/8] ^= 1 << (bit % 8)
			switch {
			case err != nil && (hasReason(err, journal.ReasonCorrupt) || hasReason(err, journal.ReasonWrongKey)):
				refused++
			case err != nil:
				t.Errorf("%s, bit %d: %v", filepath.Ext(file), bit, err)
			case describe(got) != describe(whole) || len(dropped) > 0:
				t.Errorf("%s, bit %d: %s, dropped %v", filepath.Ext(file), bit, describe(got), dropped)
			}
		}
		t.Logf("%s: %d of %d flips are errors", filepath.Ext(file), refused, len(content)*8)
	}
}

// A segment that is cut at any byte can be loaded. The result is the beginning
// of what was there, and the loss is reported.
func TestCutAtEveryByte(t *testing.T) {
	cfg := config(t.TempDir())
	segment, _ := small(t, cfg)
	content, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	whole, _, _ := load(t, cfg, segment, content)
	most := 0
	for size := range content {
		for _, zeros := range []int{0, len(content) - size} { // some file systems fill up with zeros
			got, dropped, err := load(t, cfg, segment, append(bytes.Clone(content[:size]), make([]byte, zeros)...))
			if zeros > 0 && err != nil && hasReason(err, journal.ReasonCorrupt) {
				continue // zeros within a record look like damage
			}
			if err != nil {
				t.Fatalf("cut at %d: %v", size, err)
			}
			n := len(got.Entries)
			if n > len(whole.Entries) || describe(history.Saved{Entries: got.Entries}) != describe(history.Saved{Entries: whole.Entries[:n]}) {
				t.Fatalf("cut at %d: %s", size, describe(got))
			}
			if got.ID != whole.ID || got.Last < 2 {
				t.Fatalf("cut at %d: the log is not itself: %s", size, describe(got))
			}
			lost := n < len(whole.Entries)
			if len(dropped) > 0 && got.Epoch == whole.Epoch {
				t.Fatalf("cut at %d: numbers would be used twice", size)
			}
			if n < 2 && (len(dropped) != 1 || dropped[0].Missing == 0) {
				t.Fatalf("cut at %d: %d entries of the first two are left, reported %v", size, n, dropped)
			}
			if !lost {
				most++
			}
		}
	}
	if most == 0 {
		t.Error("nothing but losses: the cuts in the closing record are not among them")
	}
}

// A crash between any two steps of a rewriting leaves files of both
// generations. The state is that of the highest generation with a key file.
func TestLeftovers(t *testing.T) {
	cfg := config(t.TempDir())
	l := open(t, cfg, 0)
	add(t, l, "a")
	first := t.TempDir()
	copyDir(t, cfg.Dir, first, "*.*")
	l.Replace(ctx, nil, []byte("b"))
	second := t.TempDir()
	copyDir(t, cfg.Dir, second, "*.*")
	l.Close()
	for _, row := range []struct {
		why              string
		from1, from2     string
		rename, to, want string
	}{
		{"segment written, key not", "*.*", "*.segment", "", "", "a"},
		{"key written, not renamed", "*.*", "*.*", "key", "key.tmp", "a"},
		{"key renamed, nothing destroyed", "*.*", "*.*", "", "", "b"},
		{"old key destroyed", "*.segment", "*.*", "", "", "b"},
	} {
		cfg := config(t.TempDir())
		copyDir(t, second, cfg.Dir, row.from2)
		if row.rename != "" {
			names, _ := filepath.Glob(filepath.Join(cfg.Dir, "*."+row.rename))
			os.Rename(names[0], names[0]+".tmp")
		}
		copyDir(t, first, cfg.Dir, row.from1)
		l := open(t, cfg, 0)
		t.Log(row.why)
		want(t, l, row.want)
		names, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.*"))
		if len(names) != 2 {
			t.Errorf("%s: %v are left", row.why, names)
		}
		add(t, l, "c")
		l.Close()
		want(t, open(t, cfg, 0), row.want, "c")
	}
}

// Load refuses a segment with a record that was moved, doubled or taken out.
func TestRecordsKeepTheirPlace(t *testing.T) {
	cfg := config(t.TempDir())
	segment, key := small(t, cfg)
	content, _ := os.ReadFile(segment)
	const magic, a = 21, 8 + 28 + 29 + 1 // frame, nonce and tag, fields, one letter
	note := magic + 8 + 28 + 1 + 4
	entryA, entryB := content[note:note+a], content[note+a:note+2*a]
	head, tail := content[:note], content[note+2*a:]
	if !bytes.Equal(entryA[:8], entryB[:8]) || entryA[3] != a-8 {
		t.Fatal("these are not two records")
	}
	for why, parts := range map[string][][]byte{
		"swapped":   {head, entryB, entryA, tail},
		"doubled":   {head, entryA, entryA, entryB, tail},
		"taken out": {head, entryB, tail},
	} {
		if _, _, err := load(t, cfg, segment, bytes.Join(parts, nil)); !hasReason(err, journal.ReasonCorrupt) {
			t.Errorf("%s: %v", why, err)
		}
	}
	os.Remove(segment)
	j, _ := journal.Open(cfg)
	defer j.Close()
	if _, err := j.Load(ctx); !hasReason(err, journal.ReasonCorrupt) {
		t.Errorf("a key without its segment: %v", err)
	}
	if _, err := os.Stat(key); err != nil {
		t.Errorf("after an error nothing may be destroyed: %v", err)
	}
}

// Times are loaded as they were saved, even those before 1970 and the zero
// time.
func TestTimes(t *testing.T) {
	cfg := config(t.TempDir())
	for _, at := range []time.Time{{}, time.Unix(-1, 5), time.Unix(1<<33, 999_999_999)} {
		j, _ := journal.Open(cfg)
		j.Load(ctx)
		if err := j.Replace(ctx, history.Saved{ID: 1, Last: 1, Entries: []history.Entry{{Seq: 1, At: at}}}); err != nil {
			t.Fatal(err)
		}
		j.Close()
		j, _ = journal.Open(cfg)
		if s, err := j.Load(ctx); err != nil || !s.Entries[0].At.Equal(at) {
			t.Errorf("%v came back as %v, %v", at, s.Entries[0].At, err)
		}
		j.Close()
	}
}

// For any content of a segment, Load returns an error or a beginning of what
// was written.
func FuzzSegment(f *testing.F) {
	cfg := config(f.TempDir())
	segment, _ := small(f, cfg)
	content, err := os.ReadFile(segment)
	if err != nil {
		f.Fatal(err)
	}
	whole, _, _ := load(f, cfg, segment, content)
	f.Add(content)
	f.Add(content[:60])
	f.Add(append(bytes.Clone(content), content...))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, _, err := load(t, cfg, segment, content)
		n := len(got.Entries)
		switch {
		case err != nil && !hasReason(err, journal.ReasonCorrupt):
			t.Fatal(err)
		case err == nil && (n > len(whole.Entries) ||
			describe(history.Saved{Entries: got.Entries}) != describe(history.Saved{Entries: whole.Entries[:n]})):
			t.Fatalf("%q holds %s", content, describe(got))
		}
	})
}
