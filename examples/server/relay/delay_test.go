package relay

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
)

// stage is a relay with a delay, and one audience that was there from the start.
type stage struct {
	t     *testing.T
	log   *history.Log
	r     *Relay
	a     *audience
	mu    sync.Mutex // for since, if couriers run
	since time.Time  // of the hold
	deaf  time.Duration
}

func newStage(t *testing.T, delay time.Duration) *stage {
	t.Helper()
	log, err := history.Open(t.Context(), history.Config{Pins: Pins})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, log: log}
	s.r, _ = newTestRelay(t, Config{Log: log, Delay: delay, Held: func() (time.Time, time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.since, log.Now().Add(-s.deaf)
	}})
	s.a = newAudience(t, s.r, "")
	return s
}

func (s *stage) hold(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = since
}

// say publishes, and returns the message's number.
func (s *stage) say(data string) uint64 {
	s.t.Helper()
	m, err := wire.Decode([]byte(data))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, _, err := s.r.storeOnce(s.t.Context(), "pi-1", &m); err != nil {
		s.t.Fatal(err)
	}
	return s.log.Position().Seq()
}

func (s *stage) erase(seqs ...uint64) {
	s.t.Helper()
	if n, err := s.r.Erase(s.t.Context(), seqs...); n != len(seqs) || err != nil {
		s.t.Fatal(n, err)
	}
}

// shows fails the test unless the audience, and one that comes now, show text.
func (s *stage) shows(why, text string) {
	s.t.Helper()
	s.a.look()
	if string(s.a.current.text) != text {
		s.t.Errorf("%s: a viewer shows %q, want %q", why, s.a.current.text, text)
	}
	if late, _ := arrive(s.t, s.r); string(late.text) != text {
		s.t.Errorf("%s: a new viewer shows %q, want %q", why, late.text, text)
	}
}

func (s *stage) never(text string) {
	s.t.Helper()
	if slices.Contains(s.a.seen, text) {
		s.t.Errorf("a viewer has seen %q", text)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 10*time.Second)
		s.say(`{"text":"a"}`)
		s.shows("at once", "")
		time.Sleep(5 * time.Second)
		s.say(`{"text":"b"}`)
		time.Sleep(5*time.Second - 1)
		s.shows("a moment too early", "")
		time.Sleep(time.Nanosecond)
		s.shows("the first is due", "a")
		time.Sleep(5 * time.Second)
		s.shows("and the second", "ab")

		// Erased within the delay.
		bad := s.say(`{"text":"bad","prompt":"bad"}`)
		s.say(`{"text":"c"}`)
		time.Sleep(9 * time.Second)
		s.erase(bad)
		s.shows("erased before it was due", "ab")
		time.Sleep(time.Second)
		s.shows("the others come", "abc")
		s.never("bad")
		if late, _ := arrive(t, s.r); late.state.Prompt != nil {
			t.Error("the erased prompt is in the state")
		}

		// Erased after it: the pages are replaced at once, but what is not due
		// stays hidden.
		seen := s.say(`{"text":"seen"}`)
		time.Sleep(10 * time.Second)
		s.shows("due", "abcseen")
		s.say(`{"text":"d"}`)
		s.erase(seen)
		s.shows("erased, and the next is not due", "abc")
		time.Sleep(10 * time.Second)
		s.shows("now it is", "abcd")

		// A restart is as late as everything else.
		s.say(`{"text":"end"}`)
		time.Sleep(2 * time.Second)
		s.say(`{"text":"","status":{"is_restarting":true,"num_restarts":7}}`)
		s.say(`{"text":"new "}`)
		s.a.look()
		if string(s.a.current.text) != "abcd" {
			t.Errorf("the restart is not due, but the page shows %q", s.a.current.text)
		}
		time.Sleep(9 * time.Second)
		s.say(`{"text":"life"}`)
		s.a.look()
		if string(s.a.current.text) != "abcd" {
			t.Errorf("the restart is still not due, but the page shows %q", s.a.current.text)
		}
		time.Sleep(time.Second)
		s.shows("the restart", "new ")
		if n := s.a.current.state.Status.NumRestarts; *n != 7 {
			t.Error("restarts:", *n)
		}
		time.Sleep(10 * time.Second)
		s.shows("the new life", "new life")

		// A restart that is kept, and erased before it is due.
		first := s.say(`{"text":"bad","status":{"is_restarting":true}}`)
		s.say(`{"text":"good"}`)
		time.Sleep(time.Second)
		s.erase(first)
		s.a.look()
		time.Sleep(9 * time.Second)
		s.shows("without its first message", "good")
		s.never("bad")
		if err := s.r.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.shows("everything is erased", "")
	})
}

func TestHold(t *testing.T) {
	for _, delay := range []time.Duration{0, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, delay)
			s.say(`{"text":"a"}`)
			time.Sleep(delay + time.Second)
			s.shows("before", "a")
			if delay > 0 {
				bad := s.say(`{"text":"bad"}`)
				time.Sleep(delay - 1)
				s.since = s.log.Now()
				s.shows("held in the last moment", "a")
				s.erase(bad)
			}
			s.since = s.log.Now()
			time.Sleep(time.Nanosecond) // nothing is published in the moment of the hold
			s.say(`{"text":"b"}`)
			time.Sleep(time.Hour)
			s.shows("held for an hour", "a")
			s.say(`{"text":"","status":{"is_restarting":true}}`)
			s.a.look()
			if string(s.a.current.text) != "a" {
				t.Errorf("a restart while viewers are held: %q", s.a.current.text)
			}
			s.say(`{"text":"c","id":"1"}`)
			worse := s.say(`{"text":"worse","prompt":"worse"}`)
			s.erase(worse)
			s.a.look()
			s.since = time.Time{}
			time.Sleep(delay)
			s.shows("released", "c")
			for _, text := range []string{"bad", "worse"} {
				s.never(text)
			}

			// Erased while they are held.
			s.say(`{"text":"d"}`)
			time.Sleep(delay + 1)
			s.shows("goes on", "cd")
			s.since = s.log.Now()
			time.Sleep(time.Nanosecond)
			s.erase(s.say(`{"text":"bad"}`))
			s.say(`{"text":"e"}`)
			s.shows("still held", "cd")
			s.since = time.Time{}
			time.Sleep(delay)
			s.shows("released", "cde")
			s.never("bad")
		})
	}
}

// A server that does not hear whether viewers are held shows nothing more, once
// it has been so for half of the delay.
func TestDelayOfADeafServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 10*time.Second)
		s.say(`{"text":"a"}`)
		time.Sleep(3 * time.Second)
		s.say(`{"text":"b"}`)
		time.Sleep(7 * time.Second)
		s.deaf = 5 * time.Second
		s.shows("heard of half a delay ago", "a")
		time.Sleep(3 * time.Second)
		s.deaf = 8 * time.Second
		s.shows("silent for longer", "a")
		time.Sleep(time.Hour)
		s.deaf += time.Hour
		s.shows("for an hour", "a")
		s.deaf = 0
		s.shows("heard again", "ab")
	})
}

// What viewers may see later wakes the couriers when its time has come, and not
// before.
func TestDelayWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 10*time.Second)
		for _, row := range []struct {
			why   string
			pause time.Duration
			wait  time.Duration
		}{
			{"a long time to go", 0, longLook},
			{"soon", 9900 * time.Millisecond, 100 * time.Millisecond},
			{"at once, but not too often", 99*time.Millisecond + 500*time.Microsecond, shortLook},
			{"nothing left", 500 * time.Microsecond, 0},
		} {
			if row.pause == 0 {
				s.say(`{"text":"a"}`)
			}
			time.Sleep(row.pause)
			if _, wait := s.r.fanout.bound(); wait != row.wait {
				t.Errorf("%s: %v, want %v", row.why, wait, row.wait)
			}
		}
		s.since = s.log.Now().Add(-time.Hour)
		if _, wait := s.r.fanout.bound(); wait != longLook {
			t.Errorf("held: %v", wait)
		}
	})
}

// last=N counts what viewers see, so that a viewer who begins there gets all that
// others get from then on.
func TestLastOfADelay(t *testing.T) {
	for query, want := range map[string][2]string{"?last=2": {"bc", "bcdef"}, "?last=0": {"", "def"}, "?last=9": {"abc", "abcdef"}} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, 10*time.Second)
			for _, text := range []string{"a", "b", "c"} {
				s.say(`{"text":"` + text + `"}`)
			}
			time.Sleep(11 * time.Second)
			for _, text := range []string{"d", "e", "f"} {
				s.say(`{"text":"` + text + `"}`)
			}
			a := newAudience(t, s.r, query)
			a.look()
			now := string(a.current.text)
			time.Sleep(11 * time.Second)
			a.look()
			if now != want[0] || string(a.current.text) != want[1] {
				t.Errorf("%s: %q, and then %q", query, now, a.current.text)
			}
		})
	}
}

// The list of rooms shows what a viewer who comes now would see.
func TestGlance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 10 * time.Second
		now, later := newStage(t, 0), newStage(t, delay)
		unknown := Glance{Memory: -1}
		looks := func(s *stage, why string, want Glance) {
			t.Helper()
			if got := s.r.Glance(); got.Memory != want.Memory || got.Life != want.Life || !got.Latest.Equal(want.Latest) {
				t.Errorf("%s: %+v, want %+v", why, got, want)
			}
		}
		looks(now, "an empty room", unknown)
		looks(later, "an empty room with a delay", unknown)
		for _, s := range []*stage{now, later} {
			s.say(`{"text":"a","status":{"num_restarts":6},"memory":{"available_mb":58,"percent_used":42,"total_mb":100}}`)
		}
		first := time.Now()
		looks(now, "at once", Glance{42, 7, first})
		looks(later, "within the delay", unknown)
		time.Sleep(delay)
		synctest.Wait()
		looks(later, "after it", Glance{42, 7, first.Add(delay)})
		later.since = time.Now() // held
		for _, s := range []*stage{now, later} {
			s.say(`{"text":"b","memory":{"available_mb":1,"percent_used":99,"total_mb":100}}`)
		}
		looks(now, "not held", Glance{99, 7, time.Now()})
		time.Sleep(3 * delay)
		looks(later, "held", Glance{42, 7, first.Add(delay)})
		now.say(`{"text":"","status":{"is_restarting":true,"num_restarts":7}}`)
		if got := now.r.Glance(); got.Memory != -1 || got.Life != 8 {
			t.Errorf("after a restart: %+v", got)
		}
		now.say(`{"text":"","status":{"num_restarts":1e300}}`)
		if got := now.r.Glance(); got.Life < 1 {
			t.Errorf("a large number of restarts: %+v", got)
		}
		for _, s := range []*stage{now, later} {
			s.since = time.Time{}
			if err := s.r.Clear(t.Context()); err != nil {
				t.Fatal(err)
			}
			looks(s, "erased", unknown)
		}
	})
}

// A restart signal that the log does not keep shows in its time, also if no
// message follows it, and after a hold.
func TestDelayedRestart(t *testing.T) {
	for _, delay := range []time.Duration{10 * time.Second, 0} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, delay)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := s.r.fanout.couriers[0]
			watching := make(chan struct{})
			go func() {
				s.r.fanout.watch(ctx, s.log.Reader(history.Latest()))
				close(watching)
			}()
			synctest.Wait()
			called := func() bool { // as a courier is
				synctest.Wait()
				select {
				case <-c.bell:
					s.a.look()
					return true
				default:
					return false
				}
			}
			looks := func(why, text string) {
				t.Helper()
				called()
				if got := string(s.a.current.text); got != text {
					t.Errorf("delay %v, %s: a viewer shows %q, want %q", delay, why, got, text)
				}
			}
			s.say(`{"text":"a"}`)
			time.Sleep(delay + time.Second)
			looks("due", "a")
			if delay == 0 {
				s.hold(time.Now())
				time.Sleep(time.Second)
			}
			s.say(`{"text":"","status":{"is_restarting":true,"num_restarts":1}}`)
			time.Sleep(delay / 2)
			looks("not due", "a")
			s.hold(time.Time{})
			for range 100 {
				time.Sleep(delay/100 + longLook)
				called()
			}
			looks("due", "")
			time.Sleep(time.Hour)
			if called() {
				t.Errorf("delay %v: couriers are called though there is nothing to show", delay)
			}
			cancel()
			<-watching
		})
	}
}
