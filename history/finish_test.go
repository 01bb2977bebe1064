package history_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

func TestFinish(t *testing.T) {
	ctx := context.Background()
	store := &fakeStore{}
	l := openStore(t, store)
	r := l.Reader(history.Oldest())
	add(t, l, "a", "b")
	if err := errors.Join(l.Finish(ctx), l.Finish(ctx)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time, after a restart
		_, err1 := l.Append(ctx, []byte("c"))
		_, err2 := l.Replace(ctx, nil, []byte("c"))
		for i, err := range []error{err1, err2} {
			if !errors.Is(err, history.ErrFinished) || !l.Finished() {
				t.Errorf("change %d: %v", i+1, err)
			}
		}
		if b, err := r.Next(ctx); err != nil || len(b.Entries) != 2 || b.Reset {
			t.Errorf("what was not read yet: %+v, %v", b, err)
		}
		for range 2 {
			if _, err := r.Next(ctx); !errors.Is(err, history.ErrFinished) {
				t.Errorf("all is read: %v", err)
			}
			if _, err := r.TryNext(); !errors.Is(err, history.ErrFinished) {
				t.Errorf("all is read, without waiting: %v", err)
			}
			l.Close() // also if it is closed
		}
		l = openStore(t, store)
		r = l.Reader(history.Oldest())
	}

	if n, err := l.Delete(ctx, 1); n != 1 || err != nil {
		t.Errorf("erased %d, %v", n, err)
	}
	want(t, "readers of what was erased", read(t, r), true, "", 0, "b")
	if _, err := l.Clear(ctx, []byte("gone")); err != nil {
		t.Error(err)
	}
	want(t, "cleared", read(t, r), true, "gone", 0)
	if _, err := r.TryNext(); !errors.Is(err, history.ErrFinished) || !store.saved.Finished {
		t.Errorf("an erasure leaves the log finished: %v", err)
	}
}

func TestFinishFails(t *testing.T) {
	full := errors.New("disk full")
	store := &fakeStore{}
	l := openStore(t, store)
	add(t, l, "a")
	store.fail = full
	if err := l.Finish(context.Background()); !errors.Is(err, full) || l.Finished() {
		t.Errorf("finished is %v, error %v", l.Finished(), err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Finish(ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	store.fail = nil
	add(t, l, "b")
	l.Close()
	if err := l.Finish(context.Background()); !errors.Is(err, history.ErrClosed) {
		t.Error(err)
	}
}

// Finish wakes readers like an append, and retention by age goes on.
func TestFinishWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, history.Config{MaxAge: time.Minute})
		add(t, l, "a")
		r := l.Reader(history.Latest())
		var err error
		go func() { _, err = r.Next(context.Background()) }()
		synctest.Wait()
		l.Finish(context.Background())
		synctest.Wait()
		if !errors.Is(err, history.ErrFinished) {
			t.Errorf("a waiting reader got %v", err)
		}
		time.Sleep(2 * time.Minute)
		if n := l.Stats().Entries; n != 0 {
			t.Errorf("%d entries are kept", n)
		}
	})
}

// One goroutine follows several logs and a timer.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pace = 100 * time.Millisecond
		a, b := open(t, history.Config{Wake: pace}), open(t, history.Config{Wake: pace})
		ra, rb := a.Reader(history.Latest()), b.Reader(history.Latest())
		got := make(chan string)
		go func() {
			defer close(got)
			ticker := time.NewTicker(time.Hour)
			defer ticker.Stop()
			for {
				r := ra
				select {
				case <-ra.Changed():
				case <-rb.Changed():
					r = rb
				case <-ticker.C:
					got <- "tick"
					continue
				}
				batch, err := r.TryNext()
				for _, e := range batch.Entries {
					got <- string(e.Data)
				}
				switch {
				case errors.Is(err, history.ErrFinished):
					got <- "finished"
					return
				case err != nil:
					t.Error(err)
					return
				}
			}
		}()
		start := time.Now()
		expect := func(text string, at time.Duration) {
			t.Helper()
			if s := <-got; s != text || time.Since(start) != at {
				t.Fatalf("got %q at %v, want %q at %v", s, time.Since(start), text, at)
			}
		}
		synctest.Wait()
		add(t, a, "a1")
		expect("a1", 0)
		synctest.Wait()
		add(t, b, "b1") // each log has its own pace
		expect("b1", 0)
		synctest.Wait()
		add(t, a, "a2")
		expect("a2", pace)
		expect("tick", time.Hour)
		add(t, b, "b2")
		expect("b2", time.Hour)
		time.Sleep(time.Second)
		b.Finish(context.Background())
		expect("finished", time.Hour+time.Second)
		<-got

		select {
		case <-a.Reader(history.Oldest()).Changed():
		default:
			t.Error("there is something to read, and the channel is open")
		}
		r := a.Reader(history.Latest())
		select {
		case <-r.Changed():
			t.Error("there is nothing to read, and the channel is closed")
		default:
		}
		changed := r.Changed()
		a.Close()
		<-changed
		if _, err := r.TryNext(); !errors.Is(err, history.ErrClosed) {
			t.Error(err)
		}
	})
}
