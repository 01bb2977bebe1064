package journal_test

import (
	"bytes"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// BenchmarkAppend measures an append of 200 bytes with each Sync, and in memory
// only. The time includes the rewriting of the segment about every 200 entries.
func BenchmarkAppend(b *testing.B) {
	data := bytes.Repeat([]byte("x"), 200)
	run := func(store func(b *testing.B) history.Store) func(b *testing.B) {
		return func(b *testing.B) {
			l, err := history.Open(ctx, history.Config{Store: store(b)})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Append(ctx, data); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("memory", run(func(*testing.B) history.Store { return nil }))
	for name, policy := range map[string]journal.Sync{"never": journal.SyncNever, "interval": journal.SyncInterval, "always": journal.SyncAlways} {
		b.Run(name, run(func(b *testing.B) history.Store {
			cfg := config(b.TempDir())
			cfg.Sync = policy
			j, err := journal.Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			return j
		}))
	}
}
