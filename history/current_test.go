package history_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

// A log says up to when it is known to have everything, by the clock that dates
// its entries.
func TestCurrent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		alone := open(t, history.Config{})
		if now := time.Now(); !alone.Current().Equal(now) || !alone.Now().Equal(now) {
			t.Errorf("a log of its own: %v, %v", alone.Current(), alone.Now())
		}
		h, a, _, pa, _ := two(t, history.Config{})
		if !a.Current().IsZero() {
			t.Error("before the first look:", a.Current())
		}
		h.do(func() { h.ahead = time.Hour })
		pa.Look()
		synctest.Wait()
		looked := time.Now().Add(time.Hour)
		time.Sleep(time.Minute)
		add(t, a, "news are no look at what others do")
		if got := a.Current(); !got.Equal(looked) {
			t.Errorf("current at %v, want %v", got, looked)
		}
		if got := a.Now(); !got.Equal(looked.Add(time.Minute)) {
			t.Errorf("now %v, want %v", got, looked.Add(time.Minute))
		}
	})
}
