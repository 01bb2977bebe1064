package publish

import (
	"slices"
	"sync"
)

// window is how many messages may wait for their acknowledgement. It is well below
// the thousand ids that the relay remembers.
const window = 256

// queue holds what was said and is not acknowledged, in order. One goroutine puts,
// one sends, one acknowledges.
type queue struct {
	mu        sync.Mutex
	messages  []outgoing
	sent      int   // how many of messages the present connection was sent
	ended     error // what the source ended with
	confirmed int

	changed chan struct{} // something to send, or the end
	room    chan struct{} // something was acknowledged
}

type outgoing struct {
	id   string
	data []byte
}

func newQueue() *queue {
	return &queue{changed: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// signal leaves a note in a channel with room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (q *queue) put(o outgoing) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.messages = append(q.messages, o)
	signal(q.changed)
}

func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages) >= window
}

// end says that nothing more will be put.
func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = err
	signal(q.changed)
}

// next returns the oldest message that is not sent yet and counts it as sent.
func (q *queue) next() (outgoing, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sent == len(q.messages) {
		return outgoing{}, false
	}
	q.sent++
	return q.messages[q.sent-1], true
}

func (q *queue) pending() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sent < len(q.messages)
}

// rewind makes everything that is not acknowledged be sent again.
func (q *queue) rewind() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = 0
}

func (q *queue) acknowledge(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// Not only among those sent: the answer to an earlier connection's may come late.
	if i := slices.IndexFunc(q.messages, func(o outgoing) bool { return o.id == id }); i >= 0 {
		q.remove(i)
		q.confirmed++
	}
}

// drop removes the oldest message that was sent: the relay answers in order, so that
// is the one which it speaks of when it names none.
func (q *queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sent > 0 {
		q.remove(0)
	}
}

func (q *queue) remove(i int) {
	q.messages = slices.Delete(q.messages, i, i+1)
	if i < q.sent {
		q.sent--
	}
	signal(q.room)
	signal(q.changed)
}

// counts returns how many messages were acknowledged and how many are not.
func (q *queue) counts() (confirmed, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.confirmed, len(q.messages)
}

// finished returns what the source ended with, once all is acknowledged.
func (q *queue) finished() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.messages) > 0 {
		return nil
	}
	return q.ended
}
