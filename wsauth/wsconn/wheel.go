package wsconn

import (
	"sync"
	"time"
)

// wheel calls the connections of an Upgrader at their times, in the goroutine
// of one timer. It counts time in ticks, so that connections whose times are
// close together share a wake-up. The timer exists only while there are
// connections, and is set only for ticks that have some.
type wheel struct {
	grain time.Duration // the length of a tick

	mu    sync.Mutex
	epoch time.Time // when tick 0 was
	past  int64     // the last tick whose connections were called
	alarm int64     // the tick that the timer is set for, 0 for none
	timer *time.Timer
	count int
	slots [wheelSlots]wheelSlot // a tick has the slot of its remainder
}

// At the defaults, a revolution takes 256 seconds. A connection whose tick is
// later stays in its slot for several revolutions.
const wheelSlots = 256

type wheelSlot struct {
	first *Conn
	count int
}

// spoke is the place of a connection in a wheel, under wheel.mu.
type spoke struct {
	prev, next *Conn
	tick       int64 // 0: not in the wheel
}

// fairCount is the number of connections of a tick that need not be spread.
const fairCount = 8

// grainOf returns a tick: a second at the defaults. The longer it is, the more
// connections share a wake-up of the process.
func grainOf(cfg *Config) time.Duration {
	return max(min(cfg.PingInterval, cfg.PongTimeout)/10, time.Millisecond)
}

// after returns the first tick that is not earlier than d from now, and when it
// comes. It counts the time since the tick as nothing, if it is short: what is
// done at a tick takes some time.
func (w *wheel) after(d time.Duration) (int64, time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tick := w.tickIn(d)
	return tick, w.when(tick)
}

func (w *wheel) when(tick int64) time.Time {
	return w.epoch.Add(time.Duration(tick) * w.grain)
}

func (w *wheel) tickIn(d time.Duration) int64 {
	now := time.Now()
	if w.epoch.IsZero() {
		w.epoch = now
	}
	passed := now.Sub(w.epoch)
	return max(int64((passed+d+w.grain-1-w.grain/50)/w.grain), w.past+1)
}

// spread calls c in d or somewhat earlier, and returns the tick. If more than a
// fair share of all connections have the same tick, it finds an earlier one, so
// that clients that came at once are not called at once. It does so once:
// afterwards the share is fair.
func (w *wheel) spread(c *Conn, d time.Duration) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	tick := w.tickIn(d)
	span := max(int64(d/w.grain), 1)
	room := span - span/10 // not all, or the next call could come at once
	fair := fairCount + w.count/int(min(room, wheelSlots))
	for t, least := tick, max(tick-room+1, w.past+1); t >= least; t-- {
		if w.slots[t%wheelSlots].count < fair {
			tick = t
			break
		}
	}
	w.put(c, tick)
	return tick
}

// at calls c at a tick, or soon if the tick is over.
func (w *wheel) at(c *Conn, tick int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(c, max(tick, w.past+1))
}

// remove does not call c any more, except if it is being called.
func (w *wheel) remove(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
	if w.count == 0 && w.timer != nil {
		w.timer.Stop()
		w.alarm = 0
	}
}

func (w *wheel) put(c *Conn, tick int64) {
	w.unlink(c)
	s := &w.slots[tick%wheelSlots]
	c.spoke = spoke{next: s.first, tick: tick}
	if s.first != nil {
		s.first.spoke.prev = c
	}
	s.first = c
	s.count++
	w.count++
	if w.alarm == 0 || tick < w.alarm {
		w.set(tick)
	}
}

func (w *wheel) unlink(c *Conn) {
	if c.spoke.tick == 0 {
		return
	}
	s := &w.slots[c.spoke.tick%wheelSlots]
	if c.spoke.prev != nil {
		c.spoke.prev.spoke.next = c.spoke.next
	} else {
		s.first = c.spoke.next
	}
	if c.spoke.next != nil {
		c.spoke.next.spoke.prev = c.spoke.prev
	}
	c.spoke = spoke{}
	s.count--
	w.count--
}

func (w *wheel) set(tick int64) {
	w.alarm = tick
	wait := time.Until(w.when(tick))
	if w.timer == nil {
		w.timer = time.AfterFunc(wait, w.turn)
	} else {
		w.timer.Reset(wait)
	}
}

// turn calls the connections whose ticks have come.
func (w *wheel) turn() {
	w.mu.Lock()
	now := int64(time.Since(w.epoch) / w.grain)
	var due []*Conn
	for t := max(w.past+1, now-wheelSlots+1); t <= now; t++ {
		for c := w.slots[t%wheelSlots].first; c != nil; {
			next := c.spoke.next
			if c.spoke.tick <= now {
				w.unlink(c)
				due = append(due, c)
			}
			c = next
		}
	}
	w.past = max(w.past, now)
	w.alarm = 0
	for t := now + 1; w.count > 0 && w.alarm == 0; t++ {
		if w.slots[t%wheelSlots].count > 0 {
			w.set(t)
		}
	}
	w.mu.Unlock()
	for _, c := range due {
		c.called(now)
	}
}
