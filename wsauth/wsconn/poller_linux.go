package wsconn

import (
	"os"
	"syscall"
)

// queue is an epoll instance. Its goroutine does not occupy a thread while it
// waits, because the runtime waits for the descriptor of the epoll instance
// together with all others.
type queue struct {
	fd     int
	file   *os.File // owns fd
	events [256]syscall.EpollEvent

	ready func(fd uintptr) bool // made once
	n     int
	err   error
	raw   syscall.RawConn
}

func openQueue() (*queue, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or the runtime does not wait for it
		_ = syscall.Close(fd)
		return nil, err
	}
	q := &queue{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if q.raw, err = q.file.SyscallConn(); err != nil {
		_ = q.file.Close()
		return nil, err
	}
	q.ready = func(fd uintptr) bool {
		for {
			q.n, q.err = syscall.EpollWait(int(fd), q.events[:], 0)
			if q.err != syscall.EINTR {
				return q.n != 0
			}
		}
	}
	return q, nil
}

func (q *queue) close() { _ = q.file.Close() }

func (q *queue) add(fd int, generation uint32) error {
	e := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(fd), Pad: int32(generation)}
	return syscall.EpollCtl(q.fd, syscall.EPOLL_CTL_ADD, fd, &e)
}

func (q *queue) remove(fd int) { _ = syscall.EpollCtl(q.fd, syscall.EPOLL_CTL_DEL, fd, nil) }

// wait waits for events and appends them to list. It fails when the queue is
// closed.
func (q *queue) wait(list []event) ([]event, error) {
	if err := q.raw.Read(q.ready); err != nil {
		return list, err
	}
	if q.err != nil {
		return list, q.err
	}
	for _, e := range q.events[:q.n] {
		list = append(list, event{int(e.Fd), uint32(e.Pad)})
	}
	return list, nil
}
