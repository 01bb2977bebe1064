package history

import (
	"sync/atomic"
	"time"
)

// waker wakes waiting readers: all at once, by closing the channel that they
// wait on, in a goroutine of its own, with a rest of at least pace in between.
type waker struct {
	pace    time.Duration
	start   time.Time
	timer   *time.Timer
	gate    atomic.Pointer[gate]
	pending atomic.Bool   // the timer is set, or its function runs
	asked   atomic.Uint64 // calls of soon that found readers waiting
	rested  atomic.Int64  // when the last waking ended, as time since start
	wakings atomic.Uint64
}

// gate is what readers wait at until it opens, once and for good.
type gate struct {
	opened  chan struct{}
	waiting atomic.Int64
}

func (w *waker) init(pace time.Duration) {
	w.pace, w.start = pace, time.Now()
	w.rested.Store(-int64(pace))
	w.timer = stopped(w.run)
	w.gate.Store(&gate{opened: make(chan struct{})})
}

// soon has waiting readers woken as early as the pace allows.
func (w *waker) soon() {
	if w.gate.Load().waiting.Load() == 0 {
		return
	}
	w.asked.Add(1)
	if w.pending.CompareAndSwap(false, true) {
		rest := time.Duration(w.rested.Load()) + w.pace - time.Since(w.start)
		w.timer.Reset(max(rest, 0))
	}
}

// run is what the timer runs.
func (w *waker) run() {
	asked := w.asked.Load()
	w.now()
	w.rested.Store(int64(time.Since(w.start)))
	w.pending.Store(false)
	// Who asked during the waking found it pending and relied on it, but its
	// readers may already have been at the new gate.
	if w.asked.Load() != asked {
		w.soon()
	}
}

// now wakes waiting readers.
func (w *waker) now() {
	g := w.gate.Swap(&gate{opened: make(chan struct{})})
	close(g.opened)
	w.wakings.Add(1)
}

func (w *waker) stats() (waiting int, wakings uint64) {
	return int(w.gate.Load().waiting.Load()), w.wakings.Load()
}
