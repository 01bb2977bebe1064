package wsauth_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// A machine that sleeps, or whose clock is set, is here a clock that jumps
// while the timers go on. A client that sends nothing is told within a minute,
// and a session that has ended does not keep its place until then.
func TestClockJumps(t *testing.T) {
	for _, row := range []struct {
		why      string
		onExpiry wsauth.OnExpiry
		after    time.Duration // of real time, the clock jumps
		jump     time.Duration
		until    time.Duration // of real time, which is looked at
		want     []string
		ended    bool // at once
	}{
		{"slept beyond the end", wsauth.OnExpiryView, 601 * time.Second, 8 * time.Hour, 11 * time.Minute, []string{"11m0s viewer"}, true},
		{"slept beyond the end, closed by option", wsauth.OnExpiryClose, 601 * time.Second, 8 * time.Hour, 11 * time.Minute, []string{"11m0s close 4401 "}, true},
		{"slept beyond the end between two steps", wsauth.OnExpiryView, 10*time.Minute + 59*time.Second, time.Hour, 11 * time.Minute, []string{"11m0s viewer"}, true},
		{"slept into the warning", wsauth.OnExpiryView, 601 * time.Second, 48*time.Minute + 30*time.Second, 12 * time.Minute,
			[]string{"11m0s expiring,946688400", "11m30s viewer"}, false},
		{"set back, and so lasts longer", wsauth.OnExpiryView, 1801 * time.Second, -30 * time.Minute, 2 * time.Hour,
			[]string{"1h29m0s expiring,946688400", "1h30m0s viewer"}, false},
		{"set forward by a little", wsauth.OnExpiryView, 601 * time.Second, 20 * time.Minute, time.Hour,
			[]string{"39m0s expiring,946688400", "40m0s viewer"}, false},
		{"slept just after the warning", wsauth.OnExpiryView, 59*time.Minute + time.Second, time.Hour, time.Hour,
			[]string{"59m0s expiring,946688400", "1h0m0s viewer"}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			gate, _, audit := newGate(t, wsauth.Config{OnExpiry: row.onExpiry, MaxSessions: 1})
			var ahead atomic.Int64
			clock := func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }
			gate.SetClock(clock)
			p := connect(t, gate)
			p.say(lasting("pi-1", time.Hour))
			p.expect(t, row.why, "0s authenticated,946688400")
			time.Sleep(row.after)
			ahead.Store(int64(row.jump))
			if list := gate.Sessions(); (len(list) == 0) != row.ended {
				t.Errorf("%s: listed after the jump: %v", row.why, list)
			}
			time.Sleep(time.Until(p.start.Add(row.until)))
			synctest.Wait()
			p.expect(t, row.why, row.want...)
			lines := audit.lines()
			if n := len(lines); n == 0 || !slices.Contains(lines, "expired expired pi-1") {
				t.Errorf("%s: audit %q", row.why, lines)
			}
			p.Session.Close(1000, "")
		})
	}
}

// The place of a session that has ended during a sleep is free at once, for the
// device that comes back before any timer fires.
func TestClockJumpFreesThePlace(t *testing.T) {
	for _, over := range []wsauth.OverLimit{wsauth.OverLimitRefuse, wsauth.OverLimitReplace} {
		synctest.Test(t, func(t *testing.T) {
			gate, v, _ := newGate(t, wsauth.Config{MaxSessions: 1, OverLimit: over})
			var ahead atomic.Int64
			clock := func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }
			gate.SetClock(clock)
			old := connect(t, gate)
			old.say(lasting("pi-1", time.Hour))
			time.Sleep(time.Second)
			ahead.Store(int64(8 * time.Hour))
			token, err := v.SignAt(wsauth.ClaimSet{Subject: "pi-1", ExpiresAt: clock().Add(time.Hour)}, clock())
			if err != nil {
				t.Fatal(err)
			}
			fresh := connect(t, gate)
			fresh.say(tokenMessage(token))
			fresh.expect(t, "fresh", "0s authenticated,946717201")
			old.expect(t, "old", "0s authenticated,946688400", "1s viewer") // and not replaced
			fresh.Session.Close(1000, "")
			old.Session.Close(1000, "")
		})
	}
}
