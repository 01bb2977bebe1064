package history_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

func newSet(t testing.TB, cfg history.SetConfig) *history.Set {
	t.Helper()
	s, err := history.NewSet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func create(t testing.TB, s *history.Set, name string) (*history.Log, func()) {
	t.Helper()
	l, release, err := s.Create(context.Background(), name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l, release
}

// shelf holds the Stores of a Set. At most one Store of a name may be open.
type shelf struct {
	t       testing.TB
	mu      sync.Mutex
	stores  map[string]*shelved
	opening func(name string) // called by open, with no lock held
}

type shelved struct {
	fakeStore
	shelf *shelf
	open  bool
}

func newShelf(t testing.TB) *shelf { return &shelf{t: t, stores: map[string]*shelved{}} }

func (s *shelf) open(_ context.Context, name string, create bool) (history.Store, error) {
	if s.opening != nil {
		s.opening(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stores[name]
	switch {
	case st == nil && !create:
		return nil, fs.ErrNotExist
	case st == nil:
		st = &shelved{shelf: s}
		s.stores[name] = st
	case st.open:
		s.t.Errorf("%s is opened twice", name)
	}
	st.open = true
	return st, nil
}

func (s *shelved) Close() error {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	if !s.open {
		s.shelf.t.Error("closed twice")
	}
	s.open = false
	return s.fakeStore.Close()
}

func (s *shelf) openStores() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.stores {
		if st.open {
			n++
		}
	}
	return n
}

func TestNewSetReportsEveryMistake(t *testing.T) {
	_, err := history.NewSet(history.SetConfig{
		Log: history.Config{Keep: -1, Store: &fakeStore{}}, MaxLogs: -1, MaxBytes: -1, Idle: -1,
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatal(err)
	}
	var fields []string
	for _, e := range joined.Unwrap() {
		var ce *history.ConfigError
		if !errors.As(e, &ce) {
			t.Fatalf("%T", e)
		}
		fields = append(fields, ce.Field)
	}
	want := []string{"SetConfig.Log.Store", "SetConfig.MaxLogs", "SetConfig.MaxBytes", "SetConfig.Idle", "SetConfig.Log.Keep"}
	if !slices.Equal(fields, want) {
		t.Errorf("got %q, want %q", fields, want)
	}
}

func TestSetNames(t *testing.T) {
	s := newSet(t, history.SetConfig{})
	for _, row := range []struct {
		why, name string
		ok        bool
	}{
		{"a build", "build-17.2_linux", true},
		{"one character", "7", true},
		{"a base64 of a hash", "Zm9vYmFy", true},
		{"as long as allowed", strings.Repeat("x", 100), true},
		{"longer", strings.Repeat("x", 101), false},
		{"nothing", "", false},
		{"a hidden file", ".x", false},
		{"the directory above", "..", false},
		{"a path", "a/b", false},
		{"a path of Windows", `a\b`, false},
		{"an option of a command", "-rf", false},
		{"a line end", "a\n", false},
		{"the end of a C string", "a\x00", false},
		{"a letter beyond ASCII", "bäume", false},
		{"a space", "a b", false},
		{"percent-encoding", "a%2fb", false},
	} {
		l, release, err := s.Create(t.Context(), row.name)
		if row.ok != (err == nil) || !row.ok && !errors.Is(err, history.ErrName) {
			t.Errorf("%s: %v", row.why, err)
		}
		if err == nil {
			add(t, l, "x")
			release()
			release() // has no effect
		} else if err := s.Remove(t.Context(), row.name, nil); !errors.Is(err, history.ErrName) {
			t.Errorf("%s: removing: %v", row.why, err)
		}
	}
	if _, _, err := s.Acquire(t.Context(), "other"); !errors.Is(err, history.ErrNotExist) {
		t.Errorf("a reader made a log: %v", err)
	}
	l, release, err := s.Acquire(t.Context(), "7")
	if err != nil || l.Stats().Entries != 1 {
		t.Fatal("the log is not the same", err)
	}
	release()
	if got := s.Stats(); got.Logs != 4 || got.InUse != 0 || got.Opened != 4 || got.Bytes != 4*(1+64) {
		t.Errorf("%+v", got)
	}
}

// A log that no one has used for Idle is closed. One with a Store comes back,
// one without is gone.
func TestSetEvictsIdleLogs(t *testing.T) {
	for _, durable := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var list []string
			evicted := func() string {
				mu.Lock()
				defer mu.Unlock()
				return strings.Join(list, " ")
			}
			cfg := history.SetConfig{Idle: time.Minute, OnEvict: func(name string, err error) {
				if err != nil {
					t.Error(name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				list = append(list, name)
			}}
			stores := newShelf(t)
			if durable {
				cfg.Store = stores.open
			}
			s := newSet(t, cfg)
			a, releaseA := create(t, s, "a")
			_, releaseA2 := create(t, s, "a")
			b, releaseB := create(t, s, "b")
			add(t, a, "1")
			add(t, b, "2")
			pos := b.Position()
			releaseB()
			time.Sleep(30 * time.Second)
			releaseA()
			time.Sleep(29 * time.Second)
			if evicted() != "" {
				t.Fatalf("too early: %s", evicted())
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if evicted() != "b" {
				t.Fatalf("after a minute: %s", evicted())
			}
			if _, err := b.Append(t.Context(), nil); !errors.Is(err, history.ErrClosed) {
				t.Errorf("an append to an evicted log: %v", err)
			}
			if _, err := b.Reader(history.Latest()).Next(t.Context()); !errors.Is(err, history.ErrClosed) {
				t.Errorf("a reader of an evicted log: %v", err)
			}
			time.Sleep(time.Hour)
			if evicted() != "b" {
				t.Fatalf("a log that is in use: %s", evicted())
			}
			b, releaseB, err := s.Acquire(t.Context(), "b")
			switch {
			case durable && err != nil, !durable && !errors.Is(err, history.ErrNotExist):
				t.Fatalf("after the eviction: %v", err)
			case durable:
				want(t, "a reader goes on", b.Since(pos), false, "", 0)
				want(t, "the entries are back", b.Since(history.Oldest()), false, "", 0, "2")
				releaseB()
			}
			add(t, a, "3") // still open
			releaseA2()
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := s.Stats(); got.Logs != 0 || got.Bytes != 0 || stores.openStores() != 0 {
				t.Errorf("%+v, %d stores are open", got, stores.openStores())
			}
		})
	}
}

// One caller opens a log, and the others wait for it, as long as their contexts
// allow.
func TestSetOpensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := newShelf(t)
		slow := make(chan struct{})
		stores.opening = func(string) { <-slow }
		s := newSet(t, history.SetConfig{Store: stores.open})
		logs := make(chan *history.Log, 10)
		for range 10 {
			go func() {
				l, release, err := s.Create(t.Context(), "a")
				if err != nil {
					t.Error(err)
				}
				logs <- l
				release()
			}()
		}
		synctest.Wait() // one opens, nine wait
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := s.Create(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller whose time is over: %v", err)
		}
		close(slow)
		first := <-logs
		for range 9 {
			if l := <-logs; l != first {
				t.Error("two logs of one name")
			}
		}
	})
}

// The error of an opening is the result for all who waited for it, but not if
// it was the context of the opener that had ended.
func TestSetOpeningFails(t *testing.T) {
	for _, row := range []struct {
		why    string
		reads  bool // the opener makes no log
		err    error
		shared bool
	}{
		{"the store is broken", false, errors.New("disk full"), true},
		{"the opener went away", false, context.Canceled, false},
		{"the opener only reads, and the waiter makes the log", true, fs.ErrNotExist, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			entered, leave := make(chan struct{}), make(chan struct{})
			calls := 0
			s := newSet(t, history.SetConfig{Store: func(context.Context, string, bool) (history.Store, error) {
				calls++
				if calls > 1 {
					return &fakeStore{}, nil
				}
				close(entered)
				<-leave
				return nil, row.err
			}})
			errs := make(chan error, 2)
			try := func(open func(context.Context, string) (*history.Log, func(), error)) {
				_, release, err := open(t.Context(), "a")
				if err == nil {
					release()
				}
				errs <- err
			}
			if row.reads {
				go try(s.Acquire)
			} else {
				go try(s.Create)
			}
			<-entered
			go try(s.Create)
			synctest.Wait()
			close(leave)
			results := []error{<-errs, <-errs}
			failed := 0
			for _, err := range results {
				if err != nil && (errors.Is(err, row.err) || row.reads && errors.Is(err, history.ErrNotExist)) {
					failed++
				}
			}
			if want := map[bool]int{true: 2, false: 1}[row.shared]; failed != want {
				t.Errorf("%s: %v", row.why, results)
			}
			if _, release := create(t, s, "a"); release != nil {
				release() // a later caller tries again
			}
		})
	}
}

// A func without a Store and without an error does not make a log in memory,
// whose entries the next eviction would lose.
func TestSetWithoutAStore(t *testing.T) {
	s := newSet(t, history.SetConfig{Store: func(context.Context, string, bool) (history.Store, error) { return nil, nil }})
	if _, _, err := s.Create(t.Context(), "a"); err == nil {
		t.Error("a log in memory")
	}
	if _, _, err := s.Acquire(t.Context(), "a"); err == nil || errors.Is(err, history.ErrNotExist) {
		t.Errorf("a reader: %v", err)
	}
}

// Remove closes a log under its readers, and no one can open it until it is
// erased.
func TestSetRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := newShelf(t)
		s := newSet(t, history.SetConfig{Store: stores.open})
		l, release := create(t, s, "a")
		add(t, l, "x")
		r := l.Reader(history.Latest())
		readerEnds := make(chan error, 1)
		go func() { _, err := r.Next(t.Context()); readerEnds <- err }()
		synctest.Wait()
		opened := make(chan *history.Log, 1)
		failed := errors.New("not all files are gone")
		err := s.Remove(t.Context(), "a", func(context.Context) error {
			go func() {
				l, _ := create(t, s, "a")
				opened <- l
			}()
			synctest.Wait()
			if len(opened) > 0 {
				t.Error("opened before it was erased")
			}
			stores.mu.Lock()
			defer stores.mu.Unlock()
			delete(stores.stores, "a")
			return failed
		})
		if !errors.Is(err, failed) {
			t.Errorf("Remove returned %v", err)
		}
		if err := <-readerEnds; !errors.Is(err, history.ErrClosed) {
			t.Errorf("its reader got %v", err)
		}
		release() // of the closed log
		again := <-opened
		if again == l || again.Stats().Entries != 0 {
			t.Error("the entries are back")
		}
		if err := s.Remove(t.Context(), "none", nil); err != nil {
			t.Errorf("a log that does not exist: %v", err)
		}
		if got := s.Stats(); got.Logs != 1 || got.InUse != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestSetCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := newShelf(t)
		s := newSet(t, history.SetConfig{Store: stores.open})
		l, release := create(t, s, "a")
		_, releaseB := create(t, s, "b")
		releaseB()
		broken := errors.New("disk full")
		stores.stores["a"].fail = broken
		if err := s.Close(); !errors.Is(err, broken) || s.Close() != nil {
			t.Errorf("closing: %v", err)
		}
		if _, err := l.Reader(history.Latest()).Next(t.Context()); !errors.Is(err, history.ErrClosed) {
			t.Errorf("a reader: %v", err)
		}
		if _, _, err := s.Create(t.Context(), "c"); !errors.Is(err, history.ErrClosed) {
			t.Errorf("opening: %v", err)
		}
		if err := s.Remove(t.Context(), "a", nil); !errors.Is(err, history.ErrClosed) {
			t.Errorf("removing: %v", err)
		}
		release()
		if got := s.Stats(); got.Logs != 0 || got.Bytes != 0 || stores.openStores() != 0 {
			t.Errorf("%+v", got)
		}
	})
}
