package history_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

var ctx0 = context.Background()

// two returns a hub and two logs that share it.
func two(t *testing.T, cfg history.Config) (h *hub, a, b *history.Log, pa, pb *port) {
	t.Helper()
	h = newHub()
	h.keep = cfg
	pa, pb = h.port(), h.port()
	cfg.Origin = pa
	a = open(t, cfg)
	cfg.Origin = pb
	b = open(t, cfg)
	return h, a, b, pa, pb
}

// bubble runs f in a bubble of package synctest.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestProcessesShareALog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, a, b, _, _ := two(t, history.Config{})
		reader := b.Reader(history.Latest())
		pos := add(t, a, "one", "two")
		want(t, "the process that appended reads it at once", a.Since(history.Oldest()), false, "", 0, "one", "two")
		synctest.Wait()
		want(t, "the other process", read(t, reader), false, "", 0, "one", "two")
		if b.Position() != pos || reader.Position() != pos {
			t.Errorf("the positions differ: %v, %v, %v", pos, b.Position(), reader.Position())
		}
		add(t, b, "three")
		synctest.Wait()
		want(t, "a position of the other process", a.Since(reader.Position()), false, "", 0, "three")

		if _, err := b.Replace(ctx0, []byte("note"), []byte("four")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want(t, "after the other has replaced it", a.Since(pos), true, "note", 0, "four")
		five := add(t, a, "five")
		if n, err := b.Delete(ctx0, five.Seq(), 99); n != 1 || err != nil {
			t.Error("deleted:", n, err)
		}
		if n, err := b.Delete(ctx0, 99); n != 0 || err != nil {
			t.Error("deleted what is not there:", n, err)
		}
		synctest.Wait()
		want(t, "after the other has deleted an entry", a.Since(five), true, "", 0, "four")
		if s := b.Stats(); s.Replaced != 1 || s.Deleted != 1 || s.Appended != 1 {
			t.Errorf("each process counts its own changes: %+v", s)
		}
	})
}

// A random sequence of changes from two processes reads in both like the same
// sequence in one log in memory.
func TestReplicaModel(t *testing.T) {
	for seed := range uint64(20) {
		bubble(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			limits := history.Config{Keep: 8, TrimAt: 10, MaxBytes: 200}
			_, a, b, _, _ := two(t, limits)
			single := open(t, limits)
			logs := []*history.Log{a, b}
			type pair struct{ shared, single history.Position }
			cursors := make([]pair, 6)
			for step := range 400 {
				time.Sleep(time.Second)
				l := logs[rng.IntN(2)]
				text := func() []byte { return fmt.Appendf(nil, "%0*d", 1+rng.IntN(30), step) }
				switch n := rng.IntN(10); {
				case n < 7:
					data := text()
					_, err := l.Append(ctx0, data)
					_, err2 := single.Append(ctx0, data)
					if err != nil || err2 != nil {
						t.Fatal(err, err2)
					}
				case n < 8:
					seq := single.Position().Seq() - uint64(rng.IntN(8))
					n, err := l.Delete(ctx0, seq)
					n2, err2 := single.Delete(ctx0, seq)
					if n != n2 || err != nil || err2 != nil {
						t.Fatalf("seed %d, step %d: deleted %d, %d", seed, step, n, n2)
					}
				default:
					if rng.IntN(4) > 0 {
						continue
					}
					note, data := text(), [][]byte{text(), text()}[:rng.IntN(3)]
					l.Replace(ctx0, note, data...)
					single.Replace(ctx0, note, data...)
				}
				synctest.Wait()
				for i := range cursors {
					c := &cursors[i]
					for _, l := range logs {
						got, ref := l.Since(c.shared), single.Since(c.single)
						want(t, fmt.Sprintf("seed %d, step %d, cursor %d", seed, step, i), got, ref.Reset, string(ref.Note), ref.Missed, texts(ref)...)
					}
					if rng.IntN(6) < i {
						*c = pair{l.Position(), single.Position()}
					}
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// AppendAfter and ReplaceAfter change a log only where the caller believes it
// is, in memory and with an Origin.
func TestChangesAfterAPosition(t *testing.T) {
	for _, row := range []struct {
		why   string
		at    func(l *history.Log) history.Position
		moved bool
	}{
		{"the log is there", func(l *history.Log) history.Position { return l.Position() }, false},
		{"the end of a batch is a position", func(l *history.Log) history.Position { return l.Since(history.Oldest()).To }, false},
		{"an entry came since", func(l *history.Log) history.Position {
			p := l.Position()
			add(t, l, "new")
			return p
		}, true},
		{"an entry was deleted since", func(l *history.Log) history.Position {
			p := l.Position()
			l.Delete(ctx0, p.Seq())
			return p
		}, true},
		{"everything was cleared since", func(l *history.Log) history.Position {
			p := l.Position()
			l.Clear(ctx0, nil)
			return p
		}, true},
		{"no log is at Oldest", func(*history.Log) history.Position { return history.Oldest() }, true},
		{"no log is at Latest", func(*history.Log) history.Position { return history.Latest() }, true},
		{"nor at one that is looked for", func(*history.Log) history.Position { return history.Last(1) }, true},
		{"the log is another", func(*history.Log) history.Position { return open(t, history.Config{}).Position() }, true},
	} {
		for what, change := range map[string]func(*history.Log, history.Position) (history.Position, error){
			"AppendAfter": func(l *history.Log, at history.Position) (history.Position, error) {
				return l.AppendAfter(ctx0, at, []byte("x"))
			},
			"ReplaceAfter": func(l *history.Log, at history.Position) (history.Position, error) {
				return l.ReplaceAfter(ctx0, at, []byte("note"), []byte("x"))
			},
		} {
			for where, origin := range map[string]history.Origin{"in memory": nil, "shared": newHub().port()} {
				why := fmt.Sprintf("%s, %s, %s", row.why, what, where)
				l := open(t, history.Config{Origin: origin})
				add(t, l, "old")
				at := row.at(l)
				before := l.Position()
				after, err := change(l, at)
				switch {
				case row.moved && (!errors.Is(err, history.ErrMoved) || l.Position() != before):
					t.Errorf("%s: %v", why, err)
				case !row.moved && (err != nil || after != l.Position() || after == before):
					t.Errorf("%s: %v at %v", why, err, after)
				}
			}
		}
	}
}

// A process that is behind the one that gave a position does not reset the
// reader. It does so only after the Origin was asked.
func TestPositionsAhead(t *testing.T) {
	for _, row := range []struct {
		why   string
		do    func(h *hub, a *history.Log) // while b gets no news
		token func(before, after history.Position) history.Position
		reset bool
		data  []string
	}{
		{"the entry comes", func(_ *hub, a *history.Log) { add(t, a, "two") }, latter, false, nil},
		{"a later one too", func(_ *hub, a *history.Log) { add(t, a, "two") }, former, false, []string{"two"}},
		{"the other process knows a later epoch", func(_ *hub, a *history.Log) { a.Clear(ctx0, nil); add(t, a, "two") }, latter, false, nil},
		{"the other process knows a later line", func(h *hub, a *history.Log) {
			h.do(func() { h.begin(8, 0) })
			synctest.Wait()
			add(t, a, "two")
		}, latter, false, nil},
		{"the number is made up", func(*hub, *history.Log) {}, forged(0, 900), true, []string{"one"}},
		{"the epoch is made up", func(*hub, *history.Log) {}, forged(3, 0), true, []string{"one"}},
		{"the position is of another log", func(*hub, *history.Log) {}, foreign, true, []string{"one"}},
		{"the entry is lost since", func(h *hub, a *history.Log) {
			add(t, a, "two")
			h.do(func() { h.begin(8, 1) })
		}, forged(0, 1), true, []string{"one"}},
	} {
		bubble(t, func(t *testing.T) {
			h, a, b, _, pb := two(t, history.Config{})
			before := add(t, a, "one")
			synctest.Wait()
			h.do(func() { pb.held = true })
			row.do(h, a)
			reader := b.Reader(row.token(before, a.Position()))
			got := make(chan history.Batch)
			go func() {
				ctx, cancel := context.WithTimeout(ctx0, time.Hour)
				defer cancel()
				b, _ := reader.Next(ctx)
				got <- b
			}()
			synctest.Wait()
			select {
			case b := <-got:
				t.Errorf("%s: got %+v before the news", row.why, b)
			default:
			}
			h.do(func() { pb.held = false })
			batch := <-got
			want(t, row.why, batch, row.reset, "", 0, row.data...)
		})
	}
}

func foreign(_, _ history.Position) history.Position {
	l, _ := history.Open(ctx0, history.Config{})
	return l.Position()
}

func former(before, _ history.Position) history.Position { return before }
func latter(_, after history.Position) history.Position  { return after }

// forged returns the position before, with other numbers.
func forged(epoch, seq uint64) func(_, _ history.Position) history.Position {
	return func(_, _ history.Position) history.Position {
		store := &fakeStore{saved: history.Saved{ID: 7, Epoch: epoch, Last: 1 + seq}}
		l, err := history.Open(ctx0, history.Config{Store: store})
		if err != nil {
			panic(err)
		}
		return l.Position()
	}
}

// A new line leaves numbers out. They are not missed, and what both lines had
// goes on without a reset.
func TestNewLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, a, b, _, _ := two(t, history.Config{Keep: 3, TrimAt: 3})
		a.Replace(ctx0, []byte("note"))
		empty := a.Position()
		add(t, a, "one", "two")
		two := a.Position()
		three := add(t, a, "three")
		synctest.Wait()
		h.do(func() { h.begin(8, 1) })
		synctest.Wait()
		for _, l := range []*history.Log{a, b} {
			want(t, "what both lines have", l.Since(two), false, "", 0)
			want(t, "what is lost", l.Since(three), true, "note", 0, "one", "two")
			want(t, "from before the log was cleared", l.Since(forgedEpoch0()), true, "note", 0, "one", "two")
		}
		for i := range 4 {
			add(t, b, fmt.Sprint(i))
		}
		synctest.Wait()
		want(t, "left-out numbers are not missed", a.Since(two), false, "", 1, "1", "2", "3")
		want(t, "from the beginning", a.Since(empty), false, "", 3, "1", "2", "3")
		if seqs := a.Since(two).Entries; seqs[0].Seq <= three.Seq() {
			t.Errorf("number %d is given twice", seqs[0].Seq)
		}
	})
}

func forgedEpoch0() history.Position { return forged(0, 0)(history.Position{}, history.Position{}) }

// A contradicting update changes nothing, and Follow is told.
func TestUpdatesThatContradict(t *testing.T) {
	for _, row := range []struct {
		why  string
		make func(s *history.Saved) // of the hub
	}{
		{"a hole", func(s *history.Saved) {
			s.Last += 2
			s.Entries = append(slices.Clone(s.Entries), history.Entry{Seq: s.Last})
		}},
		{"a new state whose numbers fall", func(s *history.Saved) {
			s.Epoch++
			s.Entries = []history.Entry{{Seq: 2}, {Seq: 1}}
		}},
		{"a new state without the end of its line", func(s *history.Saved) {
			s.Epoch++
			s.Earlier = []history.Head{{Line: 3, Epoch: 0, Last: s.Last + 1}}
		}},
		{"skipped numbers after the last", func(s *history.Saved) {
			s.Epoch++
			s.Skips = []history.Skip{{After: s.Last, Count: 1}}
		}},
		{"skipped numbers that overlap", func(s *history.Saved) {
			s.Epoch++
			s.Last += 9
			s.Skips = []history.Skip{{After: 1, Count: 4}, {After: 3, Count: 4}}
		}},
		{"skipped numbers that overflow", func(s *history.Saved) {
			s.Epoch++
			s.Skips = []history.Skip{{After: 1, Count: ^uint64(0)}}
		}},
	} {
		bubble(t, func(t *testing.T) {
			h, a, _, pa, _ := two(t, history.Config{})
			add(t, a, "one")
			h.do(func() { row.make(&h.saved) })
			synctest.Wait()
			want(t, row.why, a.Since(history.Oldest()), false, "", 0, "one")
			if len(pa.errs) != 1 {
				t.Errorf("%s: errors %v", row.why, pa.errs)
			}
		})
	}
}

// Limits of age follow the Origin's clock, also if it is an hour away from that
// of the process.
func TestAgeByTheOriginsClock(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
		bubble(t, func(t *testing.T) {
			h := newHub()
			h.ahead = ahead
			p := h.port()
			l := open(t, history.Config{MaxAge: 10 * time.Minute, Origin: p})
			add(t, l, "one")
			time.Sleep(9 * time.Minute)
			synctest.Wait()
			if n := l.Stats().Entries; n != 1 || len(p.trimmed()) != 0 {
				t.Errorf("ahead by %v: %d entries after nine minutes, trimmed %v", ahead, n, p.trimmed())
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if n := l.Stats().Entries; n != 0 || !slices.Equal(p.trimmed(), []uint64{1}) {
				t.Errorf("ahead by %v: %d entries after eleven minutes, trimmed %v", ahead, n, p.trimmed())
			}
		})
	}
}

// The Origin decides about limits of count and bytes by itself.
func TestTrimIsForAge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, a, _, pa, _ := two(t, history.Config{Keep: 1, TrimAt: 1, MaxBytes: 10})
		add(t, a, "one", "two", "1234567890")
		if n := a.Stats().Entries; n != 1 || len(pa.trimmed()) > 0 {
			t.Errorf("%d entries, trimmed %v", n, pa.trimmed())
		}
	})
}

func TestOriginFails(t *testing.T) {
	boom := errors.New("boom")
	h := newHub()
	h.fail = boom
	if _, err := history.Open(ctx0, history.Config{Origin: h.port()}); !errors.Is(err, boom) {
		t.Errorf("Open: %v", err)
	}
	h.fail = nil
	h.saved.NoteEpoch = 3
	if _, err := history.Open(ctx0, history.Config{Origin: h.port()}); err == nil {
		t.Error("Open takes a state that contradicts itself")
	}

	bubble(t, func(t *testing.T) {
		h, a, _, pa, _ := two(t, history.Config{})
		one := add(t, a, "one")
		h.do(func() { h.fail = boom })
		if _, err := a.Append(ctx0, nil); !errors.Is(err, boom) {
			t.Errorf("Append: %v", err)
		}
		if _, err := a.Clear(ctx0, nil); !errors.Is(err, boom) {
			t.Errorf("Clear: %v", err)
		}
		if _, err := a.Delete(ctx0, 1); !errors.Is(err, boom) {
			t.Errorf("Delete: %v", err)
		}
		if err := a.Finish(ctx0); !errors.Is(err, boom) {
			t.Errorf("Finish: %v", err)
		}
		want(t, "readers are served meanwhile", a.Since(history.Oldest()), false, "", 0, "one")
		h.do(func() { h.fail, pa.deaf = nil, true })
		if _, err := a.AppendAfter(ctx0, one, []byte("two")); !errors.Is(err, history.ErrUncertain) {
			t.Errorf("no answer: %v", err)
		}
		synctest.Wait()
		want(t, "a change whose answer was lost", a.Since(one), false, "", 0, "two")
		h.do(func() { pa.deaf = false })

		// A change is made, but its news does not come.
		h.do(func() { pa.held = true })
		if pos, err := a.Append(ctx0, []byte("three")); err != nil || pos.Seq() != 3 {
			t.Errorf("without news: %v, %v", pos, err)
		}
		ended, cancel := context.WithCancel(ctx0)
		cancel()
		if _, err := a.Append(ended, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end of its context: %v", err)
		}
	})
}

func TestSharedLogEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, a, b, pa, _ := two(t, history.Config{})
		add(t, a, "one")
		if err := a.Finish(ctx0); err != nil || !a.Finished() {
			t.Fatal(err)
		}
		synctest.Wait()
		reader := b.Reader(history.Oldest())
		want(t, "the last entry", read(t, reader), false, "", 0, "one")
		if _, err := reader.Next(ctx0); !errors.Is(err, history.ErrFinished) {
			t.Errorf("after the last entry: %v", err)
		}
		if err := b.Finish(ctx0); err != nil {
			t.Error("finished twice:", err)
		}
		if _, err := b.Append(ctx0, nil); !errors.Is(err, history.ErrFinished) {
			t.Error("append:", err)
		}
		if _, err := b.Clear(ctx0, nil); err != nil || !b.Finished() {
			t.Error("clear:", err)
		}
		if err := a.Close(); err != errPort || pa.closed != 1 {
			t.Error("close:", err)
		}
		if err := a.Close(); err != nil || pa.closed != 1 {
			t.Error("closed twice:", err)
		}
		if _, err := a.Clear(ctx0, nil); err == nil {
			t.Error("a closed log was cleared")
		}
	})
}

// More made-up positions than a replica remembers get their Reset at once.
func TestManyMadeUpPositions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, a, _, pa, _ := two(t, history.Config{})
		add(t, a, "one")
		h.do(func() { pa.held = true })
		waiting, reset := 0, 0
		for i := range uint64(3000) {
			if b := a.Since(forged(0, 10+i)(history.Position{}, history.Position{})); b.Reset {
				reset++
			} else if b.Empty() {
				waiting++
			}
		}
		if waiting == 0 || waiting > 1024 || reset != 3000-waiting {
			t.Errorf("%d wait, %d got a Reset", waiting, reset)
		}
		h.do(func() { pa.held = false })
		synctest.Wait()
		time.Sleep(time.Second)
		if b := a.Since(forged(0, 5000)(history.Position{}, history.Position{})); b.Reset {
			t.Error("the forgotten ones leave no room")
		}
	})
}
