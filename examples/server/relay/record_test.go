package relay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/history"
)

// recording is a stage whose lives are recorded.
type recording struct {
	*stage
	mu    sync.Mutex
	list  []lives.Recording
	since atomic.Pointer[time.Time] // of the hold
	stop  func()
}

func newRecording(t *testing.T, keeps history.Config, cfg Config) *recording {
	t.Helper()
	keeps.Pins = Pins
	log, err := history.Open(t.Context(), keeps)
	if err != nil {
		t.Fatal(err)
	}
	return record(t, log, cfg)
}

// record records what is in log.
func record(t *testing.T, log *history.Log, cfg Config) *recording {
	t.Helper()
	s := &recording{stage: &stage{t: t, log: log}}
	s.hold(time.Time{})
	cfg.Log = log
	cfg.Held = func() (time.Time, time.Time) { return *s.since.Load(), log.Now() }
	cfg.Lives.Ended = func(r lives.Recording) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.list = append(s.list, r)
	}
	s.r, _ = newTestRelay(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.r.Record(ctx) }()
	s.stop = func() { cancel(); <-done }
	t.Cleanup(s.stop)
	return s
}

func (s *recording) lives() []lives.Recording {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func (s *recording) hold(since time.Time) { s.since.Store(&since) }

const again = `{"text":"","status":{"is_restarting":true}}`

// ended fails the test unless these lives have ended, given by their texts.
func (s *recording) ended(why string, want ...string) {
	s.t.Helper()
	synctest.Wait()
	time.Sleep(20 * time.Millisecond) // the log wakes its readers at most so often
	synctest.Wait()
	var got []string
	for _, l := range s.lives() {
		text := ""
		for i, e := range l.Entries {
			m, ok := wire.Stored(e.Data)
			if !ok || e.Seq != uint64(i+1) {
				s.t.Errorf("%s: entry %d is %d, %q", why, i, e.Seq, e.Data)
			}
			text += m.Text
		}
		got = append(got, text)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("%s: lives are %q, want %q", why, got, want)
	}
}

func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRecording(t, history.Config{}, Config{})
		began := time.Now()
		s.say(`{"text":"a","memory":{"available_mb":5,"percent_used":50,"total_mb":10},"id":"secret-id"}`)
		time.Sleep(time.Minute)
		s.say(`{"text":"b","memory":{"available_mb":1,"percent_used":90,"total_mb":10}}`)
		s.ended("it runs")
		time.Sleep(time.Minute)
		s.say(`{"text":"","status":{"is_restarting":true,"num_restarts":7}}`)
		s.ended("the first", "ab")
		first := s.lives()[0]
		if first.Number != nil || *first.MemoryPercent != 90 || first.Messages != 2 || first.Cause != "restart" || first.Truncated || first.Incomplete ||
			first.Began.Sub(began).Abs() > time.Second || first.Ended.Sub(began) < 2*time.Minute || first.Ended.Sub(began) > 2*time.Minute+time.Second {
			t.Errorf("%+v", first.Life)
		}
		if strings.Contains(string(first.Entries[0].Data), "secret-id") {
			t.Error("an id of the device is in the life")
		}

		s.ended("a restart alone is no life", "ab")
		s.say(again)
		s.ended("without any text", "ab")
		s.say(`{"text":"c"}`)
		s.say(`{"text":"d","status":{"is_restarting":true}}`)
		s.say(again)
		s.ended("the signal's own text is of the next life", "ab", "c", "d")
		// Lives 8 and 9 were silent but for these: the device said 7 restarts,
		// and each signal after that counts one more.
		if n := s.lives()[1].Number; n == nil || *n != 9 {
			t.Errorf("the life after 8 restarts has the number %v", n)
		}
		s.stop()
		s.say(`{"text":"e"}`)
	})
}

// What is held, delayed or erased before it is shown is not in the life, as on
// the viewers' pages.
func TestRecordSeesWhatViewersSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRecording(t, history.Config{}, Config{Delay: 10 * time.Second})
		s.say(`{"text":"a"}`)
		time.Sleep(11 * time.Second)
		bad := s.say(`{"text":"bad"}`)
		s.say(`{"text":"b"}`)
		s.erase(bad)
		time.Sleep(11 * time.Second)
		s.say(`{"text":"never shown"}`)
		s.say(again)
		s.ended("the restart is not due")
		time.Sleep(11 * time.Second)
		s.ended("the end was never shown", "ab")

		s.say(`{"text":"c"}`)
		time.Sleep(11 * time.Second)
		s.hold(s.log.Now())
		held := s.say(`{"text":"held"}`)
		s.say(`{"text":"d"}`)
		time.Sleep(time.Minute)
		s.erase(held)
		s.hold(time.Time{})
		time.Sleep(time.Second)
		s.say(again)
		time.Sleep(11 * time.Second)
		s.ended("and what was erased while viewers were held", "ab", "cd")
	})
}

// What was seen and is erased later is not in the life either.
func TestRecordErased(t *testing.T) {
	for _, row := range []struct {
		why   string
		keeps history.Config
		do    func(s *recording)
		want  string
	}{
		{"one message", history.Config{}, func(s *recording) { s.erase(2) }, "acdef"},
		{"one that the history has dropped", history.Config{Keep: 2, TrimAt: 2}, func(s *recording) { s.erase(1) }, "bcdef"},
		{"others stay, though the history has dropped them", history.Config{Keep: 2, TrimAt: 2}, func(s *recording) { s.erase(4) }, "abcef"},
		{"one by another server", history.Config{}, func(s *recording) { s.log.Delete(s.t.Context(), 2) }, "acdef"},
		{"one by another server, after others were dropped", history.Config{Keep: 2, TrimAt: 2}, func(s *recording) { s.log.Delete(s.t.Context(), 4) }, "abcef"},
		{"everything", history.Config{}, func(s *recording) { s.r.Clear(s.t.Context()) }, "ef"},
		{"everything, and dropped messages too", history.Config{Keep: 2, TrimAt: 2}, func(s *recording) { s.r.Clear(s.t.Context()) }, "ef"},
		{"everything by another server", history.Config{}, func(s *recording) { s.log.Clear(s.t.Context(), nil) }, "ef"},
		{"everything, and a restart at once", history.Config{}, func(s *recording) { s.r.Clear(s.t.Context()); s.say(again) }, "ef"},
		{"one, and a restart at once", history.Config{}, func(s *recording) { s.erase(2); s.say(again) }, "acd ef"},
		{"an import in its place", history.Config{}, func(s *recording) {
			m := wire.Message{Text: "imported "}
			if err := s.r.Import(s.t.Context(), []history.Entry{{Seq: 1, Data: m.Encode(time.Now())}}); err != nil {
				s.t.Error(err)
			}
		}, "imported ef"},
	} {
		t.Run(row.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newRecording(t, row.keeps, Config{Lives: Lives{Shared: true}})
				for _, letter := range "abcd" {
					s.say(`{"text":"` + string(letter) + `"}`)
					s.ended("it runs")
				}
				row.do(s)
				s.say(`{"text":"e"}`)
				time.Sleep(time.Second)
				s.say(`{"text":"f"}`)
				s.say(again)
				s.ended(row.why, strings.Fields(row.want)...)
				s.stop()
			})
		})
	}
}

// Without other servers too, an erasure ends no life: the one that runs goes on
// and keeps its number, even if the history has nothing left.
func TestRecordErasedAll(t *testing.T) {
	for _, row := range []struct {
		why   string
		delay time.Duration
		do    func(s *recording)
		want  string
	}{
		{"all that the history has", 0, func(s *recording) { s.erase(4, 5) }, "old abef"},
		{"one after the other", 0, func(s *recording) { s.erase(4); s.erase(5) }, "old abef"},
		{"everything", 0, func(s *recording) { s.r.Clear(s.t.Context()) }, "old ef"},
		{"with a delay", 10 * time.Second, func(s *recording) { s.erase(4, 5) }, "old abef"},
		{"a restart that is not due ends it all the same", 10 * time.Second, func(s *recording) {
			s.erase(s.say(`{"text":"bad","status":{"is_restarting":true}}`))
		}, "old abcd ef"},
	} {
		t.Run(row.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newRecording(t, history.Config{Keep: 2, TrimAt: 2}, Config{Delay: row.delay})
				said := func(all ...string) {
					for _, m := range all {
						s.say(m)
						time.Sleep(time.Minute)
					}
				}
				said(`{"text":"old","status":{"num_restarts":3}}`, again)
				said(`{"text":"a"}`, `{"text":"b"}`, `{"text":"c"}`, `{"text":"d"}`)
				row.do(s)
				said(`{"text":"e"}`, `{"text":"f"}`, again)
				s.ended(row.why, strings.Fields(row.want)...)
				list := s.lives()
				if n := list[len(list)-1].Number; n == nil || *n != int64(len(list)+3) {
					t.Errorf("the last of %d lives: %+v", len(list), list[len(list)-1].Life)
				}
				s.stop()
			})
		})
	}
}

// A server that stops keeps a life that has ended, also if viewers would see the
// end later: the history has nothing of it any longer.
func TestRecordLast(t *testing.T) {
	for _, row := range []struct {
		why   string
		delay time.Duration
		do    func(s *recording)
		want  string
	}{
		{"at the last moment", 0, func(s *recording) { s.say(again) }, "ab"},
		{"before its time", 10 * time.Second, func(s *recording) {
			s.say(`{"text":"never shown"}`)
			s.say(again)
			s.say(`{"text":"next"}`)
		}, "ab"},
		{"while viewers are held", 0, func(s *recording) { s.hold(s.log.Now()); time.Sleep(time.Second); s.say(again) }, "ab"},
		{"a life that runs", 0, func(s *recording) { s.say(`{"text":"c"}`) }, ""},
		{"everything is erased", 10 * time.Second, func(s *recording) { s.r.Clear(s.t.Context()) }, ""},
	} {
		t.Run(row.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newRecording(t, history.Config{}, Config{Delay: row.delay})
				s.say(`{"text":"a"}`)
				s.say(`{"text":"b"}`)
				time.Sleep(time.Minute)
				row.do(s)
				s.stop()
				s.ended(row.why, strings.Fields(row.want)...)
				if list := s.lives(); len(list) > 0 && list[0].Ended.Sub(list[0].Began) < time.Minute {
					t.Errorf("it lasted a minute: %+v", list[0].Life)
				}
			})
		})
	}
}

// A life that is too large is cut and says so, and still knows how it ended.
func TestRecordTruncated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRecording(t, history.Config{Keep: 5, TrimAt: 5}, Config{Lives: Lives{MaxBytes: 1000}})
		for i := range 100 {
			s.say(fmt.Sprintf(`{"text":"%02d","memory":{"available_mb":5,"percent_used":%d,"total_mb":10}}`, i, i))
			time.Sleep(time.Second)
		}
		if s.r.recorder.bytes > 1000 || len(s.r.recorder.entries) > 20 {
			t.Errorf("%d bytes are recorded", s.r.recorder.bytes)
		}
		s.say(again)
		s.say(`{"text":"next"}`)
		s.say(again)
		synctest.Wait()
		time.Sleep(time.Second)
		if len(s.lives()) != 2 {
			t.Fatalf("%d lives", len(s.lives()))
		}
		if l := s.lives()[0]; !l.Truncated || l.Incomplete || *l.MemoryPercent != 99 || l.Bytes > 1000 || l.Messages < 5 || !strings.Contains(string(l.Entries[0].Data), `"00"`) {
			t.Errorf("%+v", l.Life)
		}
		if l := s.lives()[1]; l.Truncated || l.Messages != 2 {
			t.Errorf("the next: %+v", l.Life)
		}
		s.stop()
	})
}

// A server that starts goes on with what the history kept, and says that more
// may be missing.
func TestRecordGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := history.Open(t.Context(), history.Config{Keep: 2, TrimAt: 2, Pins: Pins})
		if err != nil {
			t.Fatal(err)
		}
		first := record(t, log, Config{})
		for _, m := range []string{`{"text":"a","prompt":"why"}`, `{"text":"b"}`, `{"text":"c"}`} {
			first.say(m)
			first.ended("it runs")
		}
		first.stop()
		second := record(t, log, Config{})
		second.ended("nothing has ended")
		second.say(`{"text":"d"}`)
		time.Sleep(time.Second)
		second.say(again)
		second.ended("what was kept, and the rest", "bcd")
		l := second.lives()[0]
		if m, _ := wire.Stored(l.Entries[0].Data); !l.Incomplete || m.Prompt == nil || *m.Prompt != "why" {
			t.Errorf("%+v, first %s", l.Life, l.Entries[0].Data)
		}
		second.say(`{"text":"e"}`)
		second.say(again)
		second.ended("the next", "bcd", "e")
		if second.lives()[1].Incomplete {
			t.Error("all of it was recorded")
		}
		second.stop()
	})
}

// A recorder that comes late for a restart signal does not mix two lives.
// Alone, the first has ended; with other servers, it may have been erased.
func TestRecordLate(t *testing.T) {
	for _, shared := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newRecording(t, history.Config{Keep: 2, TrimAt: 2}, Config{Lives: Lives{Shared: shared}})
			s.say(`{"text":"a"}`)
			time.Sleep(time.Second)
			s.hold(s.log.Now())
			time.Sleep(time.Second)
			s.say(again)
			for _, letter := range "bcdef" {
				s.say(`{"text":"` + string(letter) + `"}`)
			}
			time.Sleep(time.Second)
			s.hold(time.Time{})
			time.Sleep(time.Second)
			s.say(again)
			if shared {
				s.ended("with others", "ef")
			} else {
				s.ended("alone", "a", "ef")
			}
			if l := s.lives()[len(s.lives())-1]; !shared && !l.Incomplete {
				t.Errorf("%+v", l.Life)
			}
			s.stop()
		})
	}
}

// Without a place for lives, nothing is recorded.
func TestRecordOff(t *testing.T) {
	log, err := history.Open(t.Context(), history.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := newTestRelay(t, Config{Log: log})
	r.Record(t.Context()) // returns
	s := &stage{t: t, log: log, r: r}
	s.say(`{"text":"a"}`)
	s.erase(1)
	if r.recorder.entries != nil {
		t.Error("it records")
	}
}
