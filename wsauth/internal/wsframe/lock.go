package wsframe

// Lock is a mutex made of a channel. Its owner may wait for a client, and
// testing/synctest can advance the time only while goroutines wait on channels,
// not on a sync.Mutex.
type Lock chan struct{}

// NewLock returns a Lock that is free.
func NewLock() Lock { return make(Lock, 1) }

// Lock waits until the Lock is free, and takes it.
func (l Lock) Lock() { l <- struct{}{} }

// Unlock frees the Lock.
func (l Lock) Unlock() { <-l }

// TryLock takes the Lock if it is free, and reports whether it was.
func (l Lock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}
