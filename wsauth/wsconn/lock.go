package wsconn

// lock is a mutex made of a channel. Its owner may wait for a client, and
// testing/synctest can advance the time only while goroutines wait on channels,
// not on a sync.Mutex.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

func (l lock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}
