package journal_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// A log with a journal that is reopened at random, after Close or after a
// crash, has the same entries as a log in memory that was never closed.
func TestModel(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 0))
		dir, err := os.MkdirTemp(memory, "relayguard-journal-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		cfg := config(dir)
		cfg.Sync = journal.Sync(seed % 3)
		cfg.KeepGoing = seed%2 == 0
		l := open(t, cfg, 20)
		model, err := history.Open(ctx, history.Config{Keep: 20})
		if err != nil {
			t.Fatal(err)
		}
		both := func(do func(l *history.Log) error) {
			t.Helper()
			for _, l := range []*history.Log{l, model} {
				if err := do(l); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		for step := range 300 {
			data := fmt.Appendf(nil, "%d %0*d", step, random.IntN(2000), 0)
			seq := model.Position().Seq() - uint64(random.IntN(20))
			switch what := random.IntN(100); {
			case what < 80:
				both(func(l *history.Log) error { _, err := l.Append(ctx, data); return err })
			case what < 85:
				both(func(l *history.Log) error { _, err := l.Replace(ctx, data, data, nil); return err })
			case what < 90:
				both(func(l *history.Log) error { _, err := l.Delete(ctx, seq); return err })
			case what < 95:
				if err := l.Close(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				l = open(t, cfg, 20)
			default: // a crash: another journal opens a copy of the files
				other, err := os.MkdirTemp(memory, "relayguard-journal-")
				if err != nil {
					t.Fatal(err)
				}
				defer os.RemoveAll(other)
				copyDir(t, cfg.Dir, other, "*.*")
				l.Close()
				cfg.Dir = other
				l = open(t, cfg, 20)
			}
			// After a crash, the oldest entries that were just dropped may be
			// there until the next clean-up.
			got, want := l.Since(history.Oldest()).Entries, model.Since(history.Oldest()).Entries
			got = got[max(len(got)-len(want), 0):]
			if !slices.EqualFunc(got, want, func(a, b history.Entry) bool { return a.Seq == b.Seq && string(a.Data) == string(b.Data) }) {
				t.Fatalf("seed %d, step %d: %d entries, want %d", seed, step, len(got), len(want))
			}
			if l.Position().Seq() != model.Position().Seq() {
				t.Fatalf("seed %d, step %d: at %d, want %d", seed, step, l.Position().Seq(), model.Position().Seq())
			}
		}
		l.Close()
	}
}
