package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// A reader with a position of a time that the directory has lost gets a Reset,
// whatever happened before and after the copy was made. Positions from before
// the copy go on, as over every orderly restart.
func TestRestoredFromCopy(t *testing.T) {
	type step = func(l *history.Log)
	append3 := func(l *history.Log) {
		for _, text := range []string{"x1", "x2", "x3"} {
			l.Append(ctx, []byte(text))
		}
	}
	clear := func(l *history.Log) { l.Clear(ctx, []byte("note")) }
	remove := func(l *history.Log) { l.Delete(ctx, 1); l.Append(ctx, []byte("x")) }
	for _, row := range []struct {
		why        string
		live       bool // the copy is made while the log is open
		lost, then step
	}{
		{"appended in a later opening", false, append3, append3},
		{"appended in the opening that was copied", true, append3, append3},
		{"nothing appended afterwards", false, append3, func(*history.Log) {}},
		{"cleared in both times", false, clear, clear},
		{"cleared in both times, copied while open", true, clear, clear},
		{"cleared in the lost time", true, func(l *history.Log) { clear(l); append3(l) }, append3},
		{"cleared afterwards", false, append3, func(l *history.Log) { clear(l); append3(l) }},
		{"deleted in both times", true, remove, remove},
	} {
		t.Run(row.why, func(t *testing.T) {
			cfg, backup := config(t.TempDir()), config(t.TempDir())
			l := open(t, cfg, 0)
			add(t, l, "a")
			before := l.Position()
			l.Close()
			l = open(t, cfg, 0)
			add(t, l, "b")
			kept := l.Position()
			if !row.live {
				l.Close()
			}
			copyDir(t, cfg.Dir, backup.Dir, "*.*")
			if !row.live {
				l = open(t, cfg, 0)
			}
			row.lost(l)
			var lost []history.Position
			for seq := kept.Seq(); seq < l.Position().Seq(); seq++ {
				lost = append(lost, l.Since(kept).First(int(seq-kept.Seq())+1).To)
			}
			lost = append(lost, l.Position())
			l.Close()

			l = open(t, backup, 0)
			goesOn := func(when string) {
				t.Helper()
				for _, pos := range []history.Position{before, kept} {
					if b := l.Since(pos); b.Reset {
						t.Errorf("%s: a reader from before the copy, at %d, gets a Reset", when, pos.Seq())
					}
				}
			}
			goesOn("restored")
			for _, pos := range lost {
				if b := l.Since(pos); !b.Reset {
					t.Errorf("restored: a reader that has read the lost %d gets %q and no Reset", pos.Seq(), texts(b))
				}
			}
			epoch := l.Since(history.Oldest())
			row.then(l)
			if !l.Since(epoch.To).Reset {
				goesOn("later")
			}
			for range 2 { // and after a restart
				for _, pos := range lost {
					if b := l.Since(pos); !b.Reset {
						t.Errorf("later: a reader that has read the lost %d gets %q and no Reset", pos.Seq(), texts(b))
					}
				}
				l.Close()
				l = open(t, backup, 0)
			}
		})
	}
}

// A position stays valid over many restarts, with and without appends, and its
// token stays as short as it was. Only the last 64 openings in which something
// was appended are remembered.
func TestPositionsOverRestarts(t *testing.T) {
	for _, policy := range []bool{true, false} { // whether each opening appends
		cfg := config(t.TempDir())
		cfg.Dir = filepath.Join(cfg.Dir, "h")
		l := open(t, cfg, 0)
		add(t, l, "a", "b")
		first := l.Position()
		for i := range 60 {
			l.Close()
			l = open(t, cfg, 0)
			if policy {
				add(t, l, fmt.Sprint(i))
			} else if l.Position() != first {
				t.Fatalf("restart %d moved %v to %v", i, first, l.Position())
			}
			if b := l.Since(first); b.Reset || b.From != first || policy && len(b.Entries) != i+1 {
				t.Fatalf("restart %d: %v, reset %v, %d entries", i, b.From, b.Reset, len(b.Entries))
			}
		}
		if n := len(l.Position().String()); n > 16 {
			t.Errorf("%s has %d characters", l.Position(), n)
		}
		for range 10 {
			l.Close()
			l = open(t, cfg, 0)
			add(t, l, "x")
		}
		if b := l.Since(first); b.Reset != policy {
			t.Errorf("appending %v: after 70 openings, reset %v", policy, b.Reset)
		}
		if b := l.Since(history.Oldest()); b.Reset || len(b.Entries) == 0 {
			t.Error("a new reader gets a Reset")
		}
		l.Close()
	}
}

// A batch that is read in parts gives positions that stay valid, whichever
// opening appended the entries.
func TestPositionsOfParts(t *testing.T) {
	cfg := config(t.TempDir())
	l := open(t, cfg, 0)
	for i := range 6 {
		add(t, l, fmt.Sprint(i))
		if i%2 == 1 {
			l.Close()
			l = open(t, cfg, 0)
		}
	}
	var got []string
	for pos := history.Oldest(); ; {
		b := l.Since(pos).First(1)
		if b.Empty() {
			break
		}
		if b.Reset {
			t.Fatalf("a Reset at %v", pos)
		}
		pos = b.To
		got = append(got, texts(b)...)
		l.Close()
		l = open(t, cfg, 0)
	}
	if !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5"}) {
		t.Errorf("got %q", got)
	}
}

// What a failed change of an earlier version left is recognised: the newest key
// file is overwritten, and the state before is whole.
func TestOverwrittenKey(t *testing.T) {
	for _, row := range []struct {
		why     string
		damage  func(key []byte) []byte
		without bool // the state before is missing
		opens   bool
	}{
		{"overwritten with noise", func(b []byte) []byte { return slices.Repeat([]byte{0x5a}, len(b)) }, false, true},
		{"overwritten in part", func(b []byte) []byte { return append(slices.Repeat([]byte{1}, 60), b[60:]...) }, false, true},
		{"nothing written", func([]byte) []byte { return nil }, false, true},
		{"no other state", func(b []byte) []byte { return slices.Repeat([]byte{0x5a}, len(b)) }, true, false},
		{"one bit of the sealed part", func(b []byte) []byte { b[70] ^= 1; return b }, false, false},
	} {
		cfg := config(t.TempDir())
		l := open(t, cfg, 0)
		add(t, l, "before")
		saved := t.TempDir()
		copyDir(t, cfg.Dir, saved, "*.*")
		l.Clear(ctx, nil)
		l.Close()
		keys, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.key"))
		key, _ := os.ReadFile(keys[0])
		os.WriteFile(keys[0], row.damage(key), 0o600)
		if !row.without {
			copyDir(t, saved, cfg.Dir, "*.*")
		}
		warned := 0
		cfg.OnWarning = func(err error) { warned++ }
		l, err := tryOpen(t, cfg, 0)
		if (err == nil) != row.opens || (warned == 1) != row.opens {
			t.Errorf("%s: %v, %d warnings", row.why, err, warned)
		}
		if err == nil {
			want(t, l, "before")
			l.Close()
		} else if !hasReason(err, journal.ReasonCorrupt) && !hasReason(err, journal.ReasonWrongKey) || strings.Contains(err.Error(), "before") {
			t.Errorf("%s: %v", row.why, err)
		}
	}
}
