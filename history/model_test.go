package history_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
)

// model is the simplest implementation of a log: it holds every entry that was
// ever appended. Its positions are an epoch and a length.
type model struct {
	cfg    history.Config
	all    []modelEntry
	kept   []int // indices into all
	floor  int   // retention has dropped all entries before this index
	epoch  int
	note   string
	noteAt int
}

type modelEntry struct {
	data string
	at   time.Time
}

type modelPos struct{ epoch, read int }

func (m *model) bytes() (n int) {
	for _, i := range m.kept {
		n += len(m.all[i].data)
	}
	return n
}

func (m *model) append(data string, at time.Time) {
	m.kept = append(m.kept, len(m.all))
	m.all = append(m.all, modelEntry{data, at})
}

func (m *model) retain(now time.Time) {
	for len(m.kept) > 0 && now.Sub(m.all[m.kept[0]].at) >= m.cfg.MaxAge {
		m.drop()
	}
	if len(m.kept) > m.cfg.TrimAt {
		for len(m.kept) > m.cfg.Keep {
			m.drop()
		}
	}
	if int64(m.bytes()) > m.cfg.MaxBytes {
		for int64(m.bytes()) > m.cfg.MaxBytes-m.cfg.MaxBytes/6 && len(m.kept) > 1 {
			m.drop()
		}
	}
}

func (m *model) drop() {
	m.floor = m.kept[0] + 1
	m.kept = m.kept[1:]
	m.note = ""
}

func (m *model) since(p modelPos) (reset bool, note string, missed uint64, data []string) {
	reset = p.epoch != m.epoch
	if p.epoch < m.noteAt {
		note = m.note
	}
	if !reset && p.read < m.floor {
		missed = uint64(m.floor - p.read)
	}
	for _, i := range m.kept {
		if reset || i >= p.read {
			data = append(data, m.all[i].data)
		}
	}
	return reset, note, missed, data
}

// TestModel makes the same random calls of a log and of the model, and after
// each call compares the batches of every cursor.
func TestModel(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		cfg := history.Config{Keep: 1 + rng.IntN(8), MaxAge: 50 * time.Minute, MaxBytes: int64(40 + rng.IntN(60))}
		cfg.TrimAt = cfg.Keep + rng.IntN(5)
		runModel(t, fmt.Sprintf("seed %d", seed), cfg, rng, 1500)
	}
}

func runModel(t *testing.T, name string, cfg history.Config, rng *rand.Rand, steps int) {
	t.Helper()
	ctx := context.Background()
	l, m := open(t, cfg), &model{cfg: cfg}
	now := time.Now() // the age timer uses the real time
	type pair struct {
		pos   history.Position
		model modelPos
	}
	cursors := make([]pair, 6)
	for i := range cursors {
		cursors[i].pos = l.Position()
	}
	text := func() string { return fmt.Sprintf("%0*d", 1+rng.IntN(12), len(m.all)) }
	for step := range steps {
		switch n := rng.IntN(100); {
		case n < 70:
			now = now.Add(time.Duration(rng.IntN(300)) * time.Second)
			data := text()
			l.AppendAt(ctx, []byte(data), now)
			m.append(data, now)
			m.retain(now)
		case n < 80:
			now = now.Add(time.Duration(rng.IntN(40)) * time.Minute)
			l.Expire(now)
			m.retain(now)
		case n < 90 && len(m.all) > 0:
			victim := max(len(m.all)-rng.IntN(12), 1)
			gone, _ := l.Delete(ctx, uint64(victim))
			at := slices.Index(m.kept, victim-1)
			if (gone == 1) != (at >= 0) {
				t.Fatalf("%s, step %d: deleted %d, model has it at %d", name, step, gone, at)
			}
			if at >= 0 {
				m.kept = slices.Delete(slices.Clone(m.kept), at, at+1)
				m.epoch++
			}
		case n < 93:
			// As if they were appended now.
			var data [][]byte
			m.kept, m.floor = nil, len(m.all)
			at := now
			for range rng.IntN(2 * cfg.TrimAt) {
				data = append(data, []byte(text()))
				m.append(string(data[len(data)-1]), at)
			}
			m.epoch++
			m.note, m.noteAt = fmt.Sprint("note ", step), m.epoch
			l.ReplaceAt(ctx, now, []byte(m.note), data...)
			m.retain(now)
		}
		for i := range cursors {
			c := &cursors[i]
			reset, note, missed, data := m.since(c.model)
			b := l.Since(c.pos)
			want(t, fmt.Sprintf("%s, step %d, cursor %d", name, step, i), b, reset, note, missed, data...)
			if t.Failed() {
				t.FailNow()
			}
			if rng.IntN(5) < i { // the higher i, the more often; cursor 0 never reads
				token, _ := history.ParsePosition(b.To.String())
				*c = pair{token, modelPos{m.epoch, len(m.all)}}
			}
		}
		reset, _, missed, data := m.since(modelPos{m.epoch, m.floor})
		want(t, fmt.Sprintf("%s, step %d, oldest", name, step), l.Since(history.Oldest()), reset, "", missed, data...)
		if s := l.Stats(); s.Entries != len(m.kept) || s.Bytes != int64(m.bytes()) {
			t.Fatalf("%s, step %d: %+v", name, step, s)
		}
	}
}
