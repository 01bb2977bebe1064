package journal_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// pinsOf pins the value of a text that is KEY=VALUE.
func pinsOf(data []byte) []history.Pin {
	key, value, ok := bytes.Cut(data, []byte("="))
	switch {
	case !ok:
		return nil
	case len(value) == 0:
		value = nil
	}
	return []history.Pin{{Key: string(key), Data: value}}
}

func openPinned(t *testing.T, cfg journal.Config) *history.Log {
	t.Helper()
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := history.Open(ctx, history.Config{Keep: 3, TrimAt: 5, Store: j, Pins: pinsOf})
	if err != nil {
		j.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// values returns what a reader of everything knows of the keys.
func values(l *history.Log) string {
	all := map[string]string{}
	b := l.Since(history.Oldest())
	pins := b.Pins()
	for _, e := range b.Entries {
		pins = append(pins, pinsOf(e.Data)...)
	}
	for _, p := range pins {
		all[p.Key] = string(p.Data)
		if p.Data == nil {
			delete(all, p.Key)
		}
	}
	list := []string{}
	for k, v := range all {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// The pins on disk are those in memory, after a regular end and after a crash at
// any moment.
func TestPinsSurvive(t *testing.T) {
	for _, row := range []struct {
		why  string
		sync journal.Sync
	}{{"every append is synced", journal.SyncAlways}, {"an end that was not closed", journal.SyncNever}} {
		rnd := rand.New(rand.NewPCG(1, 2))
		cfg := config(t.TempDir())
		cfg.Sync = row.sync
		l := openPinned(t, cfg)
		for step := range 1000 {
			text := "plain"
			if rnd.IntN(3) == 0 {
				text = fmt.Sprintf("%c=%d", 'a'+rune(rnd.IntN(9)), step)
			} else if rnd.IntN(10) == 0 {
				text = fmt.Sprintf("%c=", 'a'+rune(rnd.IntN(9)))
			}
			switch rnd.IntN(60) {
			case 0:
				if _, err := l.Replace(ctx, []byte(text), []byte("x")); err != nil {
					t.Fatal(err)
				}
			case 1:
				if pins := l.Since(history.Oldest()).Pins(); len(pins) > 0 {
					if n, err := l.Delete(ctx, pins[0].Seq); pins[0].Seq > 0 && n != 1 || err != nil {
						t.Fatal(n, err)
					}
				}
			default:
				add(t, l, text)
			}
			want := values(l)
			if rnd.IntN(25) == 0 {
				crashed := cfg
				crashed.Dir = t.TempDir()
				copyDir(t, cfg.Dir, crashed.Dir, "*.*")
				if got := values(openPinned(t, crashed)); got != want {
					t.Fatalf("%s, step %d: after a crash %q, want %q", row.why, step, got, want)
				}
			}
			if rnd.IntN(25) == 0 {
				l.Close()
				l = openPinned(t, cfg)
				if got := values(l); got != want {
					t.Fatalf("%s, step %d: after a restart %q, want %q", row.why, step, got, want)
				}
			}
		}
	}
}

// A pin that was erased is not on disk any more, also for a holder of the key.
func TestErasedPinIsGone(t *testing.T) {
	cfg := config(t.TempDir())
	l := openPinned(t, cfg)
	add(t, l, "secret=1", "a", "b", "c", "d", "e", "f")
	if got := values(l); got != "secret=1" {
		t.Fatal(got)
	}
	before := t.TempDir()
	copyDir(t, cfg.Dir, before, "*.segment")
	if n, err := l.Delete(ctx, 1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	l.Close()
	if got := values(openPinned(t, cfg)); got != "" {
		t.Error("still there:", got)
	}
}
