package history_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
)

// fakeStore is a Store in memory. If fail is set, its methods return that
// error.
type fakeStore struct {
	saved  history.Saved
	fail   error
	closed int
}

func (s *fakeStore) Load(context.Context) (history.Saved, error) { return s.saved, s.fail }

func (s *fakeStore) Append(_ context.Context, e history.Entry) error {
	if s.fail == nil {
		s.saved.Entries = append(slices.Clone(s.saved.Entries), e)
		s.saved.Last = e.Seq
	}
	return s.fail
}

func (s *fakeStore) Finish(context.Context) error {
	if s.fail == nil {
		s.saved.Finished = true
	}
	return s.fail
}

func (s *fakeStore) Replace(_ context.Context, saved history.Saved) error {
	if s.fail == nil {
		s.saved = saved
	}
	return s.fail
}

func (s *fakeStore) Trim(seq uint64, pins []history.Pin) {
	s.saved.Pins = pins
	s.saved.Entries = slices.DeleteFunc(slices.Clone(s.saved.Entries), func(e history.Entry) bool { return e.Seq <= seq })
}

func (s *fakeStore) Close() error { s.closed++; return s.fail }

func openStore(t testing.TB, s *fakeStore) *history.Log {
	return open(t, history.Config{Keep: 2, TrimAt: 3, Store: s})
}

func TestStoreSurvivesReopening(t *testing.T) {
	ctx := context.Background()
	store := &fakeStore{}
	l := openStore(t, store)
	if store.saved.ID == 0 {
		t.Fatal("a new log's name is not saved")
	}
	pos := add(t, l, "a", "b")
	l = openStore(t, store)
	if l.Position() != pos {
		t.Fatalf("at %v, want %v", l.Position(), pos)
	}
	add(t, l, "c")
	want(t, "a reader goes on over the restart", l.Since(pos), false, "", 0, "c")
	add(t, l, "d")
	if n := len(store.saved.Entries); n != 2 {
		t.Errorf("trimmed to 2, but the store has %d", n)
	}
	want(t, "and learns what it missed", openStore(t, store).Since(history.Oldest()), false, "", 0, "c", "d")

	l.Clear(ctx, []byte("note"))
	add(t, l, "e", "f")
	l.Delete(ctx, 5)
	l = openStore(t, store)
	want(t, "epoch and note are kept", l.Since(pos), true, "note", 0, "f")
	if err := l.Close(); err != nil || l.Close() != nil || store.closed != 1 {
		t.Errorf("closed %d times, %v", store.closed, err)
	}
}

// Entries may become too old while no process has the log open.
func TestStoreIsTrimmedOnOpen(t *testing.T) {
	now := time.Now()
	store := &fakeStore{saved: history.Saved{ID: 1, Last: 4, Entries: []history.Entry{
		{Seq: 1, At: now.Add(-3 * time.Hour)}, {Seq: 2, At: now.Add(-2 * time.Hour)}, {Seq: 4, At: now, Data: []byte("d")},
	}}}
	var trims []history.Trim
	l := open(t, history.Config{Store: store, MaxAge: time.Hour, OnTrim: func(tr history.Trim) { trims = append(trims, tr) }})
	want(t, "what is young enough", l.Since(history.Oldest()), false, "", 0, "d")
	if len(trims) != 1 || trims[0] != (history.Trim{Reason: history.TrimByAge, Dropped: 2, Kept: 1}) || len(store.saved.Entries) != 1 {
		t.Errorf("trims %v, stored %v", trims, store.saved.Entries)
	}
}

// If the Store fails, the log does not change and the caller gets the error.
func TestStoreFailures(t *testing.T) {
	ctx := context.Background()
	full := errors.New("disk full")
	store := &fakeStore{}
	l := openStore(t, store)
	pos := add(t, l, "a", "b")
	before := l.Stats()
	store.fail = full
	_, err1 := l.Append(ctx, []byte("c"))
	_, err2 := l.Replace(ctx, nil, []byte("d"))
	n, err3 := l.Delete(ctx, 1)
	for i, err := range []error{err1, err2, err3} {
		if !errors.Is(err, full) {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	if n != 0 || l.Position() != pos || l.Stats() != before {
		t.Errorf("something changed: %v, %+v", l.Position(), l.Stats())
	}
	store.fail = nil
	want(t, "and it goes on", l.Since(history.Oldest()), false, "", 0, "a", "b")
	if next := add(t, l, "c"); next.Seq() != 3 {
		t.Errorf("no number is lost: %d", next.Seq())
	}

	store.fail = full
	if _, err := history.Open(ctx, history.Config{Store: store}); !errors.Is(err, full) {
		t.Errorf("loading: %v", err)
	}
	if err := l.Close(); !errors.Is(err, full) {
		t.Errorf("closing: %v", err)
	}
}

func TestStoreNonsense(t *testing.T) {
	e := func(seqs ...uint64) (list []history.Entry) {
		for _, s := range seqs {
			list = append(list, history.Entry{Seq: s})
		}
		return list
	}
	for _, row := range []struct {
		why string
		s   history.Saved
		ok  bool
	}{
		{"holes are what Delete leaves", history.Saved{ID: 1, Last: 9, Entries: e(2, 5)}, true},
		{"number 0", history.Saved{ID: 1, Last: 9, Entries: e(0, 1)}, false},
		{"out of order", history.Saved{ID: 1, Last: 9, Entries: e(3, 2)}, false},
		{"twice", history.Saved{ID: 1, Last: 9, Entries: e(3, 3)}, false},
		{"beyond the last", history.Saved{ID: 1, Last: 2, Entries: e(1, 2, 3)}, false},
		{"a note from the future", history.Saved{ID: 1, NoteEpoch: 1}, false},
	} {
		_, err := history.Open(context.Background(), history.Config{Store: &fakeStore{saved: row.s}})
		if (err == nil) != row.ok {
			t.Errorf("%s: %v", row.why, err)
		}
	}
}
