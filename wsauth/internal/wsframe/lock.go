package wsframe

import "sync"

// Lock is a mutex whose owner may wait for a client: testing/synctest can
// advance the time while goroutines wait on a channel, and not while they wait
// on a sync.Mutex. Goroutines get it in the order of their calls. The zero
// value is free. Every connection has two, so the channel exists only while
// a goroutine waits.
type Lock struct {
	mu      sync.Mutex
	held    bool
	waiting int32
	turn    chan struct{}
}

// Lock waits until the Lock is free, and takes it.
func (l *Lock) Lock() {
	l.mu.Lock()
	if !l.held {
		l.held = true
		l.mu.Unlock()
		return
	}
	if l.turn == nil {
		l.turn = make(chan struct{})
	}
	turn := l.turn
	l.waiting++
	l.mu.Unlock()
	<-turn
}

// Unlock frees the Lock, or passes it on.
func (l *Lock) Unlock() {
	l.mu.Lock()
	if l.waiting == 0 {
		l.held = false
		l.mu.Unlock()
		return
	}
	turn := l.turn
	if l.waiting--; l.waiting == 0 {
		l.turn = nil
	}
	l.mu.Unlock()
	turn <- struct{}{} // at once: a goroutine that counts is about to receive
}

// TryLock takes the Lock if it is free, and reports whether it was.
func (l *Lock) TryLock() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held {
		return false
	}
	l.held = true
	return true
}
