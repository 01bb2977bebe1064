package history_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/relayguard/relayguard/history"
)

// What a log has seen erased, and its Origin has again, is erased again before
// a reader sees it.
func TestErasedAgain(t *testing.T) {
	for _, test := range []struct {
		why     string
		erase   func(*history.Log) error
		other   int // entries that the Origin has got besides
		entries []string
		note    string
	}{
		{"an entry", func(l *history.Log) error { _, err := l.Delete(ctx0, 2); return err }, 0, []string{"one", "three"}, "note"},
		{"with entries that came since", func(l *history.Log) error { _, err := l.Delete(ctx0, 1, 3); return err }, 2, []string{"two", "since", "since"}, "note"},
		{"everything, with the note", func(l *history.Log) error { _, err := l.Clear(ctx0, nil); return err }, 0, nil, ""},
		{"everything, and entries that came since", func(l *history.Log) error { _, err := l.Clear(ctx0, []byte("lost")); return err }, 1, []string{"since"}, ""},
		{"nothing was erased, and the Origin has lost nothing", func(*history.Log) error { return nil }, 1, []string{"one", "two", "three", "since"}, "note"},
	} {
		t.Run(test.why, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, a, b, pa, pb := two(t, history.Config{})
				if _, err := a.Replace(ctx0, []byte("note"), []byte("one"), []byte("two"), []byte("three")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				h.mu.Lock()
				before := h.saved
				h.mu.Unlock()
				if err := test.erase(a); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				reader := b.Reader(history.Latest())
				h.do(func() {
					h.saved = before
					h.begin(8, 0)
					for range test.other {
						h.saved.Last++
						h.saved.Entries = append(h.saved.Entries, history.Entry{Seq: h.saved.Last, At: h.now(), Data: []byte("since")})
					}
				})
				synctest.Wait()
				batch, err := reader.TryNext()
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range batch.Entries {
					if !slices.Contains(test.entries, string(e.Data)) {
						t.Errorf("a reader was shown %q", e.Data)
					}
				}
				for _, l := range []*history.Log{a, b, open(t, history.Config{Origin: h.port()})} {
					var got []string
					for _, e := range l.Since(history.Oldest()).Entries {
						got = append(got, string(e.Data))
					}
					if !slices.Equal(got, test.entries) {
						t.Errorf("%s: %q, want %q", test.why, got, test.entries)
					}
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				if string(h.saved.Note) != test.note {
					t.Errorf("the note is %q, want %q", h.saved.Note, test.note)
				}
				if len(pa.errs)+len(pb.errs) == 0 && test.why[0] != 'n' {
					t.Error("the update was applied")
				}
			})
		})
	}
}

// If the erasure fails, the log goes on with what it had.
func TestErasedAgainFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, a, b, pa, _ := two(t, history.Config{})
		add(t, a, "one", "two")
		synctest.Wait()
		h.mu.Lock()
		before := h.saved
		h.mu.Unlock()
		if _, err := a.Delete(ctx0, 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h.do(func() {
			h.saved, h.fail = before, errors.New("away")
			h.begin(8, 0)
		})
		synctest.Wait()
		want(t, "the log", b.Since(history.Oldest()), false, "", 0, "two")
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(pa.errs) == 0 || !errors.Is(pa.errs[0], h.fail) {
			t.Error("apply returned", pa.errs)
		}
	})
}
