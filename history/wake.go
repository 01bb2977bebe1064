package history

import (
	"sync/atomic"
	"time"
)

// waker wakes all waiting readers together, by closing the channel on which
// they wait. It does so in a timer's goroutine, and not again before pace has
// passed.
type waker struct {
	pace    time.Duration
	start   time.Time
	timer   *time.Timer
	gate    atomic.Pointer[gate]
	pending atomic.Bool   // the timer is set, or its function runs
	asked   atomic.Uint64 // calls of soon that found waiting readers
	rested  atomic.Int64  // the time from start to the end of the last waking
	wakings atomic.Uint64
}

// gate holds the channel on which readers wait. It is closed once, and later
// readers wait on that of a new gate.
type gate struct {
	opened  chan struct{}
	waiting atomic.Int64
	watched atomic.Bool // a caller of Reader.Changed may wait for it
}

func (w *waker) init(pace time.Duration) {
	w.pace, w.start = pace, time.Now()
	w.rested.Store(-int64(pace))
	w.timer = stopped(w.run)
	w.gate.Store(&gate{opened: make(chan struct{})})
}

// soon wakes the waiting readers as early as the pace allows, but not in the
// caller's goroutine.
func (w *waker) soon() {
	if g := w.gate.Load(); g.waiting.Load() == 0 && !g.watched.Load() {
		return
	}
	w.asked.Add(1)
	if w.pending.CompareAndSwap(false, true) {
		rest := time.Duration(w.rested.Load()) + w.pace - time.Since(w.start)
		w.timer.Reset(max(rest, 0))
	}
}

// run is the function of the timer.
func (w *waker) run() {
	asked := w.asked.Load()
	w.now()
	w.rested.Store(int64(time.Since(w.start)))
	w.pending.Store(false)
	// A call of soon during the waking found pending set and left the waking to
	// this one, but its readers may already have waited at the new gate.
	if w.asked.Load() != asked {
		w.soon()
	}
}

// now wakes the waiting readers in the caller's goroutine.
func (w *waker) now() {
	g := w.gate.Swap(&gate{opened: make(chan struct{})})
	close(g.opened)
	w.wakings.Add(1)
}

func (w *waker) stats() (waiting int, wakings uint64) {
	return int(w.gate.Load().waiting.Load()), w.wakings.Load()
}
