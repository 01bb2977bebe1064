package history_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

// inOrder fails the test if a time is before that of an earlier entry, after
// most, or has a monotonic reading, which a Store does not save.
func inOrder(t *testing.T, why string, entries []history.Entry, most time.Time) {
	t.Helper()
	var last time.Time
	for _, e := range entries {
		if e.At.Before(last) || e.At.After(most) || e.At != e.At.Round(0) {
			t.Errorf("%s: entry %d has the time %v, after %v and not after %v", why, e.Seq, e.At, last, most)
		}
		last = e.At
	}
}

// A clock that was ahead once does not keep entries for longer than MaxAge,
// wherever the log meets their times. The order of times holds throughout.
func TestClockThatWasAhead(t *testing.T) {
	const maxAge = 64 * time.Minute
	ctx := context.Background()
	for _, ahead := range []time.Duration{3 * time.Minute, time.Hour, 24 * 365 * 20 * time.Hour} {
		for _, row := range []struct {
			why  string
			left int // right after it
			do   func(l *history.Log, now time.Time)
		}{
			{"an append finds it", 3, func(l *history.Log, now time.Time) { l.AppendAt(ctx, []byte("c"), now) }},
			{"Expire finds it", 2, func(l *history.Log, now time.Time) { l.Expire(now) }},
			{"the timer finds it", 2, func(l *history.Log, now time.Time) { time.Sleep(time.Minute); synctest.Wait() }},
			{"the entries are replaced", 1, func(l *history.Log, now time.Time) { l.ReplaceAt(ctx, now, nil, []byte("c")) }},
		} {
			synctest.Test(t, func(t *testing.T) {
				l := open(t, history.Config{MaxAge: maxAge})
				now := time.Now()
				l.AppendAt(ctx, []byte("a"), now.Add(ahead))
				l.AppendAt(ctx, []byte("b"), now.Add(ahead))
				row.do(l, now)
				kept := l.Since(history.Oldest()).Entries
				if len(kept) != row.left {
					t.Errorf("%s, %v: %d kept, want %d", row.why, ahead, len(kept), row.left)
				}
				inOrder(t, row.why, kept, time.Now())
				time.Sleep(maxAge + 3*time.Minute)
				synctest.Wait()
				if s := l.Stats(); s.Entries != 0 {
					t.Errorf("%s, %v: %+v", row.why, ahead, s)
				}
			})
		}
	}
}

// Entries that a Store saved while the clock was ahead, or in a wrong order,
// are kept for MaxAge after loading.
func TestStoredTimes(t *testing.T) {
	now := time.Now()
	far := time.Unix(1<<40, 0) // after the year 9999
	for _, row := range []struct {
		why   string
		times []time.Time
	}{
		{"all ahead", []time.Time{now.AddDate(1, 0, 0), now.AddDate(1, 0, 1)}},
		{"the clock was mended in between", []time.Time{now.Add(-2 * time.Minute), now.AddDate(12, 0, 0), now.Add(-time.Minute)}},
		{"no year of RFC 3339", []time.Time{now.Add(-time.Minute), far, far.AddDate(9000, 0, 0)}},
		{"out of order", []time.Time{now.Add(-time.Minute), now.Add(-2 * time.Minute), now.Add(-90 * time.Second)}},
	} {
		saved := history.Saved{ID: 1, Last: uint64(len(row.times))}
		for i, at := range row.times {
			saved.Entries = append(saved.Entries, history.Entry{Seq: uint64(i + 1), At: at})
		}
		store := &fakeStore{saved: saved}
		l := open(t, history.Config{Store: store, MaxAge: time.Hour})
		inOrder(t, row.why, l.Since(history.Oldest()).Entries, time.Now())
		if got := len(l.Since(history.Oldest()).Entries); got != len(row.times) {
			t.Errorf("%s: %d kept", row.why, got)
		}
		if saved.Entries[1].At != row.times[1] {
			t.Errorf("%s: the entries of the Store were changed", row.why)
		}
		if n := l.Expire(time.Now().Add(time.Hour)); n != len(row.times) {
			t.Errorf("%s: %d of %d expire", row.why, n, len(row.times))
		}
	}
}

// The order in the log is the order of what a Store saves and an archive holds,
// also if the clock is set back between two messages. time.Time values compare
// by the monotonic clock, which is not saved.
func TestClockSetBackBetweenMessages(t *testing.T) {
	l := open(t, history.Config{})
	now := time.Now() // with a monotonic reading
	ctx := context.Background()
	l.Append(ctx, []byte("a"))
	l.AppendAt(ctx, []byte("b"), now)
	l.AppendAt(ctx, []byte("c"), now.Round(0).Add(-time.Second))
	l.ReplaceAt(ctx, now, nil, []byte("d"), []byte("e"))
	l.Append(ctx, []byte("f"))
	inOrder(t, "set back", l.Since(history.Oldest()).Entries, time.Now())
}

// The timer looks at the clock every minute, whatever MaxAge is: a machine may
// sleep, and the clock may be set. It does not run in a loop.
func TestAgeTimerSteps(t *testing.T) {
	for _, maxAge := range []time.Duration{time.Second, time.Minute, time.Hour, 24 * 365 * time.Hour, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			trims := 0
			l := open(t, history.Config{MaxAge: maxAge, OnTrim: func(history.Trim) { trims++ }})
			l.AppendAt(context.Background(), []byte("a"), time.Now())
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			want := 0
			if maxAge <= time.Hour {
				want = 1
			}
			if trims != want {
				t.Errorf("MaxAge %v: %d clean-ups, want %d", maxAge, trims, want)
			}
		})
	}
}
