package publish

import (
	"slices"
	"sync"
)

// window is how many messages may be unacknowledged. It is well below the
// thousand ids by which the relay recognises a message that is sent again.
const window = 256

// queue holds the messages that are not acknowledged, in order. One goroutine
// puts messages in, one sends them, and one acknowledges them.
type queue struct {
	mu        sync.Mutex
	messages  []outgoing
	sent      int   // how many of messages were sent on this connection
	ended     error // the error with which the source ended
	confirmed int   // messages acknowledged since the start

	changed chan struct{} // signalled when there may be a message to send, or the end
	room    chan struct{} // signalled when there may be room
}

type outgoing struct {
	id   string
	data []byte
}

func newQueue() *queue {
	return &queue{changed: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// signal sends to a channel with a buffer of one, unless the buffer is full.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put adds a message.
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

// end notes that the source ended with err.
func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = err
	signal(q.changed)
}

// next returns the oldest message that is not sent, and counts it as sent.
func (q *queue) next() (outgoing, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sent == len(q.messages) {
		return outgoing{}, false
	}
	q.sent++
	return q.messages[q.sent-1], true
}

// pending reports whether there is a message to send.
func (q *queue) pending() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sent < len(q.messages)
}

// rewind makes next return the unacknowledged messages again.
func (q *queue) rewind() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = 0
}

// acknowledge removes the message with this id.
func (q *queue) acknowledge(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// The message may not be sent on this connection yet: the acknowledgement
	// may be that of an earlier connection.
	if i := slices.IndexFunc(q.messages, func(o outgoing) bool { return o.id == id }); i >= 0 {
		q.remove(i)
		q.confirmed++
	}
}

// drop removes the oldest message that was sent. An error of the relay names no
// message, and the relay answers in order, so the error is about this one.
func (q *queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sent > 0 {
		q.remove(0)
	}
}

// remove removes the message with this index. The caller holds q.mu.
func (q *queue) remove(i int) {
	q.messages = slices.Delete(q.messages, i, i+1)
	if i < q.sent {
		q.sent--
	}
	signal(q.room)
	signal(q.changed)
}

// counts returns how many messages are acknowledged and how many are not.
func (q *queue) counts() (confirmed, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.confirmed, len(q.messages)
}

// finished returns the error with which the source ended, if all messages are
// acknowledged, else nil.
func (q *queue) finished() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.messages) > 0 {
		return nil
	}
	return q.ended
}
