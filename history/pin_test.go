package history_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

// pinsOf pins every word of data that is KEY=VALUE. Without a value, the key has
// none from then on.
func pinsOf(data []byte) (pins []history.Pin) {
	for word := range strings.FieldsSeq(string(data)) {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case ok && value == "":
			pins = append(pins, history.Pin{Key: key})
		case ok:
			pins = append(pins, history.Pin{Key: key, Data: []byte(value)})
		}
	}
	return pins
}

// pinned returns pins as text, in the order of their keys.
func pinned(pins []history.Pin) string {
	list := []string{}
	for _, p := range pins {
		list = append(list, fmt.Sprintf("%s=%s@%d", p.Key, p.Data, p.Seq))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func wantPins(t *testing.T, what string, b history.Batch, want string) {
	t.Helper()
	if got := pinned(b.Pins()); got != want {
		t.Errorf("%s: pins %q, want %q", what, got, want)
	}
}

func TestPinsOutliveTheirEntries(t *testing.T) {
	store := &fakeStore{}
	cfg := history.Config{Keep: 2, TrimAt: 2, Pins: pinsOf, Store: store}
	l := open(t, cfg)
	wantPins(t, "an empty log", l.Since(history.Oldest()), "")
	start := add(t, l, "a=1 one")
	wantPins(t, "a kept entry gives the value itself", l.Since(history.Oldest()), "")
	wantPins(t, "for a reader after it, it is a pin", l.Since(start), "a=1@1")
	add(t, l, "b=1", "two")
	wantPins(t, "its entry is dropped", l.Since(history.Oldest()), "a=1@1")
	add(t, l, "three", "four", "five")
	wantPins(t, "and so is the next", l.Since(history.Oldest()), "a=1@1 b=1@2")
	want(t, "the entries are gone", l.Since(start), false, "", 3, "four", "five")
	wantPins(t, "for a reader that missed some", l.Since(start), "a=1@1 b=1@2")
	wantPins(t, "after a restart", open(t, cfg).Since(history.Oldest()), "a=1@1 b=1@2")
	mid := add(t, l, "a=2")
	add(t, l, "six")
	wantPins(t, "in the middle", l.Since(mid), "a=2@7 b=1@2")
	wantPins(t, "before the first kept entry, the older value", l.Since(history.Oldest()), "a=1@1 b=1@2")

	for _, row := range []struct {
		why  string
		seqs []uint64
		n    int
		want string
	}{
		{"the note's number is no entry's", []uint64{0}, 0, "a=2@7 b=1@2"},
		{"a dropped entry has nothing left but its pin", []uint64{2}, 1, "a=2@7"},
		{"once", []uint64{2}, 0, "a=2@7"},
		{"a kept entry: the value before is there again", []uint64{7}, 1, "a=1@1"},
		{"the last value", []uint64{1, 99}, 1, ""},
	} {
		before := l.Position()
		n, err := l.Delete(ctx0, row.seqs...)
		if n != row.n || err != nil || l.Since(before).Reset != (n > 0) {
			t.Errorf("%s: %d erased, %v", row.why, n, err)
		}
		wantPins(t, row.why, l.Since(l.Position()), row.want)
		wantPins(t, row.why+", restarted", open(t, cfg).Since(l.Position()), row.want)
	}

	l.Replace(ctx0, []byte("a=3 b=3"))
	wantPins(t, "a note pins too", l.Since(history.Oldest()), "a=3@0 b=3@0")
	add(t, l, "b=", "x", "y")
	wantPins(t, "until an entry takes the value back", l.Since(history.Oldest()), "a=3@0")
	l.Replace(ctx0, []byte("a=4"), []byte("a=4"), []byte("x"))
	wantPins(t, "unless it is an entry", l.Since(history.Oldest()), "")
	if n, err := l.Delete(ctx0, l.Position().Seq()-1); n != 1 || err != nil {
		t.Error(n, err)
	}
	wantPins(t, "which can be erased", l.Since(l.Position()), "")
	l.Clear(ctx0, nil)
	wantPins(t, "a Clear", l.Since(history.Oldest()), "")
}

// Pins stay when age has dropped everything, in every process.
func TestPinsAndAge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, a, b, _, _ := two(t, history.Config{Pins: pinsOf, MaxAge: time.Minute})
		add(t, a, "a=1", "b=2")
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for _, l := range []*history.Log{a, b} {
			want(t, "after two minutes", l.Since(history.Oldest()), false, "", 0)
			wantPins(t, "after two minutes", l.Since(history.Oldest()), "a=1@1 b=2@2")
		}
	})
}

// What a reader has after a batch is what all entries and the note pin,
// whichever of them are kept, in every process.
func TestPinsModel(t *testing.T) {
	for seed := range uint64(50) {
		bubble(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			cfg := history.Config{Keep: 3, TrimAt: 5, Pins: pinsOf}
			h, a, b, _, _ := two(t, cfg)
			store := &fakeStore{}
			cfg.Store = store
			single := open(t, cfg)
			all := map[string]string{} // the model
			for step := range 200 {
				word := fmt.Sprintf("%c=%d", 'a'+rune(rnd.IntN(6)), step)
				key, value, _ := strings.Cut(word, "=")
				replace := rnd.IntN(40) == 0
				if replace {
					all = map[string]string{}
				}
				if rnd.IntN(3) > 0 {
					all[key] = value
				} else {
					word = "nothing"
				}
				l := []*history.Log{a, b}[rnd.IntN(2)]
				for _, l := range []*history.Log{l, single} {
					if replace {
						l.Replace(ctx0, []byte(word))
					} else {
						add(t, l, word)
					}
				}
				synctest.Wait()
				if rnd.IntN(20) == 0 {
					cfg := cfg
					cfg.Store = store
					single = open(t, cfg)
				}
				if rnd.IntN(20) == 0 {
					cfg := h.keep
					cfg.Origin = h.port()
					b = open(t, cfg)
				}
				want := []string{}
				for k, v := range all {
					want = append(want, k+"="+v)
				}
				slices.Sort(want)
				for i, l := range []*history.Log{a, b, single} {
					batch := l.Since(history.Last(rnd.IntN(4)))
					got := map[string]string{}
					for _, p := range batch.Pins() {
						got[p.Key] = string(p.Data)
					}
					for _, e := range batch.Entries {
						for _, p := range pinsOf(e.Data) {
							got[p.Key] = string(p.Data)
						}
					}
					list := []string{}
					for k, v := range got {
						list = append(list, k+"="+v)
					}
					if slices.Sort(list); !slices.Equal(list, want) {
						t.Fatalf("seed %d, step %d, log %d: %v, want %v", seed, step, i, list, want)
					}
				}
			}
		})
	}
}

// A failover that brings an erased value back does not show it.
func TestErasedPinsStayErased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, a, _, _, _ := two(t, history.Config{Keep: 1, TrimAt: 1, Pins: pinsOf})
		add(t, a, "a=secret", "b=1", "x")
		before := h.saved
		before.Earlier = []history.Head{{Line: 7, Epoch: before.Epoch, Last: before.Last}}
		if n, err := a.Delete(ctx0, 1); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		synctest.Wait()
		wantPins(t, "erased", a.Since(history.Oldest()), "b=1@2")
		h.do(func() { h.saved = before; h.saved.Line = 8 })
		synctest.Wait()
		wantPins(t, "after the failover", a.Since(history.Oldest()), "b=1@2")
		if got := pinned(h.saved.Pins); got != "b=1@2" {
			t.Errorf("the engine still has %q", got)
		}
	})
}

// A process that was behind learns at once of what retention has dropped and of
// what was erased. It does not take the one for the other.
func TestDroppedIsNotErased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, a, b, pa, _ := two(t, history.Config{Keep: 1, TrimAt: 3, Pins: pinsOf})
		add(t, b, "a=secret", "b=1")
		synctest.Wait()
		h.do(func() { pa.held = true })
		add(t, b, "x", "y")
		if n, err := b.Delete(ctx0, 1); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		h.do(func() { pa.held = false })
		synctest.Wait()
		wantPins(t, "the process that was behind", a.Since(history.Oldest()), "b=1@2")
		wantPins(t, "the other", b.Since(history.Oldest()), "b=1@2")
		if got := pinned(h.saved.Pins); got != "b=1@2" {
			t.Errorf("the engine has %q", got)
		}
	})
}

func TestKeepWeight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// An entry weighs as much as it has letters x.
		cfg := history.Config{
			Keep: 1000, KeepWeight: 10, Weigh: func(data []byte) int64 { return int64(strings.Count(string(data), "x")) },
		}
		h, a, b, pa, _ := two(t, cfg)
		h.keep = cfg
		single := open(t, cfg)
		for i, row := range []struct {
			why  string
			data string
			kept int
		}{
			{"much that weighs nothing", "long, but light", 1},
			{"less than the limit", "xxxxxxxx", 2},
			{"up to a fifth more", "xxxx", 3},
			{"what is left must weigh enough", "xx", 3},
			{"a heavy one makes all others superfluous", "xxxxxxxxxxxxxxxxxxxxxxx", 1},
			{"and stays, since without it too little is left", "x", 2},
		} {
			add(t, a, row.data)
			add(t, single, row.data)
			synctest.Wait()
			for j, l := range []*history.Log{a, b, single} {
				if got := len(l.Since(history.Oldest()).Entries); got != row.kept {
					t.Errorf("%d, log %d: %s: %d kept, want %d", i, j, row.why, got, row.kept)
				}
			}
		}
		if s := single.Stats(); s.TrimmedByWeight != 4 {
			t.Errorf("%d trimmed by weight, want 4", s.TrimmedByWeight)
		}
		if got := pa.trimmed(); !slices.Equal(got, []uint64{1, 4}) {
			t.Errorf("the engine was told %v", got)
		}
		_, err := history.Open(ctx0, history.Config{KeepWeight: -1})
		wantConfig(t, err, "Config.KeepWeight", history.ConfigNegative)
	})
}

func wantConfig(t *testing.T, err error, field string, reason history.ConfigReason) {
	t.Helper()
	if err == nil || err.Error() != (&history.ConfigError{Field: field, Reason: reason}).Error() {
		t.Errorf("%v, want %s", err, field)
	}
}
