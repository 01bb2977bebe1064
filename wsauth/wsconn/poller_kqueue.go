//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package wsconn

import (
	"os"
	"sync"
	"syscall"
)

// queue is a kqueue. Its goroutine occupies a thread while it waits.
type queue struct {
	fd     int
	stop   [2]int // a pipe; the kqueue waits for its end
	events [256]syscall.Kevent_t

	// An event has no room for a generation that the garbage collector would
	// not take for a pointer, so wait looks it up. An event that arrives when
	// the number of its descriptor is in use again is then one of the new
	// connection, whose read finds nothing.
	mu          sync.Mutex
	generations map[int]uint32
}

func openQueue() (*queue, error) {
	q := &queue{generations: make(map[int]uint32)}
	var err error
	if q.fd, err = syscall.Kqueue(); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(q.fd)
	if err = syscall.Pipe(q.stop[:]); err != nil {
		_ = syscall.Close(q.fd)
		return nil, err
	}
	syscall.CloseOnExec(q.stop[0])
	syscall.CloseOnExec(q.stop[1])
	if err := q.change(q.stop[0], syscall.EV_ADD); err != nil {
		_ = syscall.Close(q.stop[1])
		q.free()
		return nil, err
	}
	return q, nil
}

// close makes wait fail, which then closes the descriptors that it uses.
func (q *queue) close() { _ = syscall.Close(q.stop[1]) }

func (q *queue) free() {
	_ = syscall.Close(q.stop[0])
	_ = syscall.Close(q.fd)
}

func (q *queue) add(fd int, generation uint32) error {
	q.mu.Lock()
	q.generations[fd] = generation
	q.mu.Unlock()
	return q.change(fd, syscall.EV_ADD)
}

func (q *queue) remove(fd int) {
	q.mu.Lock()
	delete(q.generations, fd)
	q.mu.Unlock()
	_ = q.change(fd, syscall.EV_DELETE)
}

func (q *queue) change(fd, flags int) error {
	var e [1]syscall.Kevent_t
	syscall.SetKevent(&e[0], fd, syscall.EVFILT_READ, flags)
	for {
		_, err := syscall.Kevent(q.fd, e[:], nil, nil)
		if err != syscall.EINTR {
			return err
		}
	}
}

// wait waits for events and appends them to list. It fails when the queue is
// closed, and must not be called again.
func (q *queue) wait(list []event) ([]event, error) {
	n, err := syscall.Kevent(q.fd, nil, q.events[:], nil)
	if err == syscall.EINTR {
		return list, nil
	}
	if err != nil {
		q.free()
		return list, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.events[:n] {
		fd := int(e.Ident)
		if fd == q.stop[0] {
			q.free()
			return list, os.ErrClosed
		}
		list = append(list, event{fd, q.generations[fd]})
	}
	return list, nil
}
