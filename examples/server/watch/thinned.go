package watch

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds on the lines that strangers can cause: so many of one kind by one
// client in a period, and so many clients that are told apart.
const (
	thinBurst   = 10
	thinPeriod  = time.Minute
	thinClients = 256
)

// thinKey is what lines are thinned by. An invalid client stands for all that
// are not told apart.
type thinKey struct {
	kind   string
	client netip.Prefix
}

// thinned thins lines that strangers can cause, so that they fill no disk and
// hide nothing. It tells how many were left out, by client, when the period
// ends. It has a timer only for a client whose lines are thinned.
type thinned struct {
	tell func(kind string, client netip.Prefix, suppressed int)

	mu     sync.Mutex
	bursts map[thinKey]*thinBursts
}

type thinBursts struct {
	began      time.Time
	written    int
	suppressed int
	timer      *time.Timer // set when something is left out
}

func newThinned(tell func(kind string, client netip.Prefix, suppressed int)) *thinned {
	return &thinned{tell: tell, bursts: make(map[thinKey]*thinBursts)}
}

// allow reports whether a line of this kind about this client may be written.
func (t *thinned) allow(kind string, client netip.Prefix, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := thinKey{kind, client}
	b := t.bursts[key]
	if b == nil && len(t.bursts) >= thinClients {
		for k, old := range t.bursts {
			if old.timer == nil && now.Sub(old.began) >= thinPeriod {
				delete(t.bursts, k)
			}
		}
		if len(t.bursts) >= thinClients {
			key.client = netip.Prefix{}
			b = t.bursts[key]
		}
	}
	if b == nil || b.timer == nil && now.Sub(b.began) >= thinPeriod {
		b = &thinBursts{began: now}
		t.bursts[key] = b
	}
	if b.written < thinBurst {
		b.written++
		return true
	}
	b.suppressed++
	if b.timer == nil {
		b.timer = time.AfterFunc(thinPeriod, func() { t.end(key) })
	}
	return false
}

// end tells how many lines were left out.
func (t *thinned) end(key thinKey) {
	t.mu.Lock()
	b := t.bursts[key]
	delete(t.bursts, key)
	t.mu.Unlock()
	if b != nil && b.suppressed > 0 {
		t.tell(key.kind, key.client, b.suppressed)
	}
}

// flush ends every period.
func (t *thinned) flush() {
	t.mu.Lock()
	bursts := t.bursts
	t.bursts = make(map[thinKey]*thinBursts)
	t.mu.Unlock()
	for key, b := range bursts {
		if b.timer != nil && b.timer.Stop() {
			t.tell(key.kind, key.client, b.suppressed)
		}
	}
}
