package wsconn

// lock is a mutex made of a channel. Whoever waits for one may wait for a peer, and a wait on a channel is one that
// testing/synctest knows how to pass the time in.
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
