package history_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

// arrivals follows the log until it is closed, and then sends the entries that
// arrived, by the time since start.
func arrivals(t *testing.T, r *history.Reader, start time.Time) <-chan map[time.Duration][]string {
	done := make(chan map[time.Duration][]string, 1)
	go func() {
		got := make(map[time.Duration][]string)
		for {
			b, err := r.Next(context.Background())
			if err != nil {
				if !errors.Is(err, history.ErrClosed) {
					t.Error(err)
				}
				done <- got
				return
			}
			at := time.Since(start)
			got[at] = append(got[at], texts(b)...)
		}
	}()
	return done
}

func TestWakingIsPaced(t *testing.T) {
	const ms = time.Millisecond
	for _, row := range []struct {
		why     string
		wake    time.Duration
		appends []time.Duration // one entry at each: a, b, c, …
		want    map[time.Duration][]string
	}{
		{"alone: at once", 0, []time.Duration{time.Second},
			map[time.Duration][]string{time.Second: {"a"}}},
		{"before the first pace has passed: at once too", 0, []time.Duration{ms},
			map[time.Duration][]string{ms: {"a"}}},
		{"a burst: the first at once, the others together", 0, []time.Duration{0, 1 * ms, 2 * ms, 9 * ms},
			map[time.Duration][]string{0: {"a"}, 10 * ms: {"b", "c", "d"}}},
		{"a stream: no more often than the pace", 20 * ms, []time.Duration{0, 8 * ms, 16 * ms, 24 * ms, 32 * ms, 39 * ms, 48 * ms},
			map[time.Duration][]string{0: {"a"}, 20 * ms: {"b", "c"}, 40 * ms: {"d", "e", "f"}, 60 * ms: {"g"}}},
		{"slower than the pace: each at once", 10 * ms, []time.Duration{0, 15 * ms, 30 * ms},
			map[time.Duration][]string{0: {"a"}, 15 * ms: {"b"}, 30 * ms: {"c"}}},
		{"no pace", -1, []time.Duration{0, 1 * ms, 2 * ms},
			map[time.Duration][]string{0: {"a"}, 1 * ms: {"b"}, 2 * ms: {"c"}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := open(t, history.Config{Wake: row.wake})
			start := time.Now()
			var all []<-chan map[time.Duration][]string
			for range 3 {
				all = append(all, arrivals(t, l.Reader(history.Oldest()), start))
			}
			synctest.Wait()
			for i, at := range row.appends {
				time.Sleep(at - time.Since(start))
				add(t, l, string(rune('a'+i)))
			}
			time.Sleep(time.Minute)
			l.Close()
			for _, ch := range all {
				got := <-ch
				for at, data := range row.want {
					if !slices.Equal(got[at], data) {
						t.Errorf("%s: at %v got %q, want %q", row.why, at, got[at], data)
					}
				}
				if len(got) != len(row.want) {
					t.Errorf("%s: got %v, want %v", row.why, got, row.want)
				}
			}
		})
	}
}

func TestNextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, history.Config{})
		r := l.Reader(history.Latest())
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if s := l.Stats(); s.Waiting != 0 {
			t.Errorf("%d still waiting", s.Waiting)
		}
		add(t, l, "a")
		b, err := r.Next(context.Background())
		want(t, "the same reader goes on", b, false, "", 0, "a")
		if err != nil {
			t.Error(err)
		}

		done := make(chan error)
		for range 3 {
			r := l.Reader(history.Latest())
			go func() { _, err := r.Next(context.Background()); done <- err }()
		}
		synctest.Wait()
		if s := l.Stats(); s.Waiting != 3 {
			t.Errorf("%d waiting", s.Waiting)
		}
		unread := l.Reader(history.Oldest())
		l.Close()
		for range 3 {
			if err := <-done; !errors.Is(err, history.ErrClosed) {
				t.Error(err)
			}
		}
		b, err = unread.Next(context.Background())
		want(t, "a closed log is read to its end", b, false, "", 0, "a")
		if _, end := unread.Next(context.Background()); err != nil || !errors.Is(end, history.ErrClosed) {
			t.Error(err, end)
		}
		_, err1 := l.Append(context.Background(), nil)
		_, err2 := l.Clear(context.Background(), nil)
		_, err3 := l.Delete(context.Background(), 1)
		for i, err := range []error{err1, err2, err3} {
			if !errors.Is(err, history.ErrClosed) {
				t.Errorf("change %d of a closed log: %v", i+1, err)
			}
		}
		if l.Expire(time.Now().Add(time.Hour)) != 0 || l.Stats().Entries != 1 {
			t.Error("Expire changed a closed log")
		}
	})
}

func TestClearWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, history.Config{})
		r := l.Reader(add(t, l, "a", "b"))
		got := make(chan history.Batch)
		next := func() { b, _ := r.Next(context.Background()); got <- b }
		go next()
		synctest.Wait()
		l.Clear(context.Background(), []byte("note"))
		want(t, "Clear", <-got, true, "note", 0)
		add(t, l, "c", "d")
		want(t, "read", read(t, r), false, "", 0, "c", "d")
		go next()
		synctest.Wait()
		l.Delete(context.Background(), 3)
		want(t, "Delete", <-got, true, "", 0, "d")
	})
}

// A timer drops old entries even if nothing is appended or read.
func TestAgeRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trims := make(chan history.Trim, 2)
		l := open(t, history.Config{MaxAge: 64 * time.Minute, OnTrim: func(tr history.Trim) { trims <- tr }})
		r := l.Reader(history.Oldest())
		add(t, l, "a")
		time.Sleep(time.Minute / 2)
		add(t, l, "b")
		time.Sleep(30 * time.Minute)
		add(t, l, "c")
		for _, step := range []struct {
			wait time.Duration
			left int
		}{
			{33*time.Minute + 20*time.Second, 3}, // 63:50
			{2 * time.Minute, 1},                 // 65:50, a and b together
			{28 * time.Minute, 1},                // 93:50
			{2 * time.Minute, 0},                 // 95:50
		} {
			time.Sleep(step.wait)
			synctest.Wait()
			if l.Stats().Entries != step.left {
				t.Errorf("%d kept, want %d", l.Stats().Entries, step.left)
			}
		}
		for _, exp := range []history.Trim{{Reason: history.TrimByAge, Dropped: 2, Kept: 1}, {Reason: history.TrimByAge, Dropped: 1}} {
			if got := <-trims; got != exp {
				t.Errorf("trim %v, want %v", got, exp)
			}
		}
		want(t, "a reader that has not read them learns it", read(t, r), false, "", 3)
		want(t, "but only once", read(t, r), false, "", 0)

		// An append drops old entries before the timer does.
		add(t, l, "d")
		if n := l.Expire(time.Now().Add(64*time.Minute - 1)); n != 0 || len(trims) != 0 {
			t.Errorf("%d expired too early", n)
		}
		l.AppendAt(context.Background(), []byte("e"), time.Now().Add(64*time.Minute))
		want(t, "d expired to the moment", read(t, r), false, "", 1, "e")
	})
}

// Every entry is read before the next one is appended, so a single lost wake-up
// would make the test hang.
func TestNoLostWakeup(t *testing.T) {
	rounds := 20_000
	if testing.Short() {
		rounds = 2_000
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, readers := range []int{1, 4} {
		l := open(t, history.Config{Wake: -1})
		var wg sync.WaitGroup
		seen := make(chan struct{}, readers)
		for i := range readers {
			wg.Go(func() {
				r := l.Reader(history.Oldest())
				for range rounds {
					if i%2 == 1 { // another way to wait
						select {
						case <-r.Changed():
						case <-ctx.Done():
						}
					}
					if b, err := r.Next(ctx); err != nil || len(b.Entries) != 1 {
						t.Errorf("%v, %d entries at %v", err, len(b.Entries), r.Position().Seq())
						cancel()
						return
					}
					seen <- struct{}{}
				}
			})
		}
		for range rounds {
			if _, err := l.Append(ctx, nil); err != nil {
				break
			}
			for range readers {
				select {
				case <-seen:
				case <-ctx.Done():
				}
			}
		}
		wg.Wait()
	}
}

// Neither a closed log nor one that was never closed leaves a goroutine.
func TestNoGoroutineLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		for range 10 {
			l, _ := history.Open(context.Background(), history.Config{MaxAge: time.Hour})
			done := arrivals(t, l.Reader(history.Oldest()), time.Now())
			synctest.Wait()
			add(t, l, "a", "b", "c")
			time.Sleep(time.Second)
			l.Close()
			<-done
			forgotten, _ := history.Open(context.Background(), history.Config{MaxAge: time.Hour})
			add(t, forgotten, "a")
		}
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines, %d before", n, before)
		}
	})
}
