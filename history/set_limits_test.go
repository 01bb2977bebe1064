package history_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

// A Set that is full evicts what has not been used for the longest time, but
// nothing that is in use, and nothing that would be lost before Idle.
func TestSetIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := newShelf(t)
		s := newSet(t, history.SetConfig{MaxLogs: 3, Store: stores.open})
		var releases []func()
		for i := range 3 {
			_, release := create(t, s, fmt.Sprint(i))
			releases = append(releases, release)
		}
		if _, _, err := s.Create(t.Context(), "3"); !errors.Is(err, history.ErrFull) {
			t.Errorf("all are in use: %v", err)
		}
		releases[1]()
		time.Sleep(time.Second)
		releases[0]()
		_, release3 := create(t, s, "3") // instead of 1
		_, release0 := create(t, s, "0") // is open
		if _, _, err := s.Acquire(t.Context(), "1"); !errors.Is(err, history.ErrFull) {
			t.Errorf("all are in use again: %v", err)
		}
		release3()
		_, release1, err := s.Acquire(t.Context(), "1")
		if err != nil || stores.openStores() != 3 || s.Stats().Evicted != 2 {
			t.Errorf("%v, %d open, %+v", err, stores.openStores(), s.Stats())
		}
		release0()
		release1()

		memory := newSet(t, history.SetConfig{MaxLogs: 1, Idle: time.Minute})
		_, release := create(t, memory, "a")
		release()
		time.Sleep(time.Minute - 1)
		if _, _, err := memory.Create(t.Context(), "b"); !errors.Is(err, history.ErrFull) {
			t.Errorf("the entries of a would be lost: %v", err)
		}
		if _, _, err := memory.Acquire(t.Context(), "b"); !errors.Is(err, history.ErrNotExist) {
			t.Errorf("a reader needs no space for it: %v", err)
		}
		time.Sleep(time.Nanosecond)
		_, release = create(t, memory, "b")
		release()
	})
}

// The func that erases a log may use others of a Set that is full: it does not
// wait for its own end.
func TestEraseUsesTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := newShelf(t)
		s := newSet(t, history.SetConfig{MaxLogs: 2, MaxBytes: 300, Store: stores.open})
		audit, release := create(t, s, "audit")
		defer release()
		add(t, audit, strings.Repeat("x", 100))
		_, release = create(t, s, "a")
		defer release()
		err := s.Remove(t.Context(), "a", func(ctx context.Context) error {
			_, err := audit.Append(ctx, []byte(strings.Repeat("x", 200)))
			if !errors.Is(err, history.ErrFull) {
				t.Errorf("more than there is space for: %v", err)
			}
			_, release, err := s.Create(ctx, "b") // a is closed
			if err == nil {
				release()
			}
			if got := s.Stats(); got.Logs != 2 {
				t.Errorf("%+v", got)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// A change that is refused in any case needs no space, and closes no other log.
func TestRefusedChangesNeedNoSpace(t *testing.T) {
	stores := newShelf(t)
	s := newSet(t, history.SetConfig{MaxBytes: 1000, Store: stores.open})
	idle, release := create(t, s, "idle")
	add(t, idle, strings.Repeat("x", 500))
	release()
	finished, release := create(t, s, "finished")
	defer release()
	finished.Finish(t.Context())
	removed, release := create(t, s, "removed")
	defer release()
	s.Remove(t.Context(), "removed", nil)
	for l, want := range map[*history.Log]error{finished: history.ErrFinished, removed: history.ErrClosed} {
		for _, n := range []int{500, 5000} {
			data := []byte(strings.Repeat("x", n))
			_, err1 := l.Append(t.Context(), data)
			_, err2 := l.Replace(t.Context(), nil, data)
			if !errors.Is(err1, want) || !errors.Is(err2, want) {
				t.Errorf("%d bytes: %v, %v, want %v", n, err1, err2, want)
			}
		}
	}
	if n := s.Stats().Evicted; n != 0 {
		t.Errorf("%d logs were closed for it", n)
	}
}

func TestSetBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entry = 36 + 64
		data := []byte(strings.Repeat("x", 36))
		s := newSet(t, history.SetConfig{MaxBytes: 10 * entry, Idle: time.Minute, Log: history.Config{Keep: 6, TrimAt: 6}})
		a, releaseA := create(t, s, "a")
		b, releaseB := create(t, s, "b")
		fill := func(l *history.Log, n int) (err error) {
			for range n {
				if _, e := l.Append(t.Context(), data); err == nil {
					err = e
				}
			}
			return err
		}
		if err := errors.Join(fill(a, 6), fill(b, 4)); err != nil || s.Stats().Bytes != 10*entry {
			t.Fatalf("%v, %+v", err, s.Stats())
		}
		_, err1 := b.Append(t.Context(), nil)
		_, err2 := b.Replace(t.Context(), nil, data)
		for i, err := range []error{err1, err2} {
			if !errors.Is(err, history.ErrFull) {
				t.Errorf("change %d: %v", i+1, err)
			}
		}
		if n, err := b.Delete(t.Context(), 1); n != 1 || err != nil || s.Stats().Bytes != 9*entry {
			t.Errorf("an erasure needs no space: %v, %+v", err, s.Stats())
		}
		if err := fill(b, 1); err != nil {
			t.Error(err)
		}
		releaseA()
		time.Sleep(time.Minute - 1)
		if err := fill(b, 1); !errors.Is(err, history.ErrFull) {
			t.Errorf("the entries of a would be lost: %v", err)
		}
		time.Sleep(time.Nanosecond) // now the append may evict a, before the timer does
		if err := fill(b, 100); err != nil || s.Stats().Bytes != 6*entry || b.Stats().Entries != 6 {
			t.Errorf("%v, %+v", err, s.Stats())
		}
		b.Clear(t.Context(), nil)
		if s.Stats().Bytes != 0 {
			t.Errorf("cleared: %+v", s.Stats())
		}
		releaseB()
	})

	// Entries that are too old give their space back.
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, history.SetConfig{Log: history.Config{MaxAge: time.Minute}})
		l, release := create(t, s, "a")
		defer release()
		add(t, l, "x")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s.Stats().Bytes != 0 {
			t.Errorf("expired: %+v", s.Stats())
		}
	})

	// What a Store has saved may be more than fits.
	stores := newShelf(t)
	big, small := newSet(t, history.SetConfig{Store: stores.open}), newSet(t, history.SetConfig{Store: stores.open, MaxBytes: 100})
	l, release := create(t, big, "a")
	add(t, l, strings.Repeat("x", 100))
	release()
	big.Close()
	if _, _, err := small.Acquire(t.Context(), "a"); !errors.Is(err, history.ErrFull) || small.Stats().Bytes != 0 || stores.openStores() != 0 {
		t.Errorf("%v, %+v", err, small.Stats())
	}
}

// Many goroutines use few names of a full Set, while others evict and remove.
// No entry of a log with a Store is lost, and the figures are right at the end.
func TestSetSoak(t *testing.T) {
	stores := newShelf(t)
	s := newSet(t, history.SetConfig{Store: stores.open, MaxLogs: 4, Idle: time.Millisecond, MaxBytes: 1 << 20})
	var wg sync.WaitGroup
	var mu sync.Mutex
	added := map[string]int{}
	rounds := 1000
	if testing.Short() {
		rounds = 300
	}
	for g := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(g)))
			for range rounds {
				name := fmt.Sprint("log", random.IntN(8))
				if random.IntN(20) == 0 {
					s.Evict(time.Now().Add(time.Hour))
				}
				l, release, err := s.Create(t.Context(), name)
				if err != nil { // never: at most four are in use
					t.Error(err)
					return
				}
				if _, err := l.Append(t.Context(), []byte("x")); err != nil {
					t.Error(err)
				}
				mu.Lock()
				added[name]++
				mu.Unlock()
				release()
			}
		})
	}
	wg.Wait()
	for name, n := range added {
		l, release, err := s.Acquire(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Position().Seq(); got != uint64(n) {
			t.Errorf("%s has had %d entries, want %d", name, got, n)
		}
		release()
	}
	if err := s.Close(); err != nil || stores.openStores() != 0 || s.Stats().Bytes != 0 {
		t.Errorf("%v, %d stores are open, %+v", err, stores.openStores(), s.Stats())
	}
}
