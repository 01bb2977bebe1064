//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package wsconn

import (
	"os"
	"sync"
	"syscall"
)

// parking has all parked connections of the process.
var parking poller

// poller waits for the clients of parked connections. Its queue (epoll or
// kqueue) and its goroutine exist while there are connections.
//
// # Descriptors
//
// A descriptor can be closed, and its number used again, while an event of the
// queue is under way. So a connection is taken out of the queue before its
// socket is closed, in [syscall.RawConn.Control], which keeps the descriptor
// open meanwhile. An event names the descriptor and the generation of its
// place, and counts only if a connection is there in this generation. All reads
// go through the RawConn of that connection, which fails if the socket is
// closed. So no event can read from another socket than that of its connection.
type poller struct {
	mu         sync.Mutex
	queue      *queue
	count      int
	generation uint32 // the newest
	// The places of the connections, by descriptor. A process has about as many
	// places as it has had descriptors at once.
	places []place
}

type place struct {
	conn       *Conn
	wake       func()
	generation uint32
}

// event is what a queue reports about a descriptor.
type event struct {
	fd         int
	generation uint32
}

// add parks c, and reports whether it did.
func (p *poller) add(c *Conn, wake func()) (added bool) {
	var evicted place
	p.mu.Lock()
	_ = c.direct.socket.Control(func(sys uintptr) {
		added, evicted = p.addLocked(c, int(sys), wake)
	})
	p.mu.Unlock()
	if evicted.conn != nil {
		evicted.conn.notParked()
		go evicted.wake()
	}
	return added
}

// addLocked also returns the place of a connection whose socket was closed
// without its knowledge. Otherwise, c could not have the same descriptor.
func (p *poller) addLocked(c *Conn, fd int, wake func()) (added bool, evicted place) {
	if p.queue == nil {
		q, err := openQueue()
		if err != nil {
			return false, place{}
		}
		p.queue = q
		go p.run(q)
	}
	for len(p.places) <= fd {
		p.places = append(p.places, place{})
	}
	at := &p.places[fd]
	if at.conn != nil {
		evicted = *at
		p.empty(at)
	}
	p.generation++
	if p.queue.add(fd, p.generation) != nil {
		p.rest()
		return false, evicted
	}
	*at = place{c, wake, p.generation}
	c.fd = fd
	p.count++
	return true, evicted
}

// empty frees a place.
func (p *poller) empty(at *place) {
	*at = place{}
	p.count--
}

// rest ends the goroutine if there is nothing to wait for.
func (p *poller) rest() {
	if p.count == 0 && p.queue != nil {
		p.queue.close()
		p.queue = nil
		p.places = nil
	}
}

// take removes c, and returns its wake, or nil if it was not parked.
func (p *poller) take(c *Conn) (wake func()) {
	if c.direct == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.place(c)
	if at == nil {
		return nil
	}
	// If the socket is closed, Control fails, and the queue has forgotten the
	// descriptor. Its number may belong to another socket.
	_ = c.direct.socket.Control(func(fd uintptr) { p.queue.remove(int(fd)) })
	wake = at.wake
	p.empty(at)
	p.rest()
	return wake
}

// place returns the place of c, or nil if c is not parked.
func (p *poller) place(c *Conn) *place {
	if c.fd < len(p.places) && p.places[c.fd].conn == c {
		return &p.places[c.fd]
	}
	return nil
}

// has reports whether c is parked.
func (p *poller) has(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.place(c) != nil
}

// find returns the connection of an event, or nil if the event is out of date.
func (p *poller) find(e event) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.fd >= len(p.places) {
		return nil
	}
	if at := &p.places[e.fd]; at.generation == e.generation {
		return at.conn
	}
	return nil
}

// fail wakes all connections of a queue that cannot wait any longer, so that
// each of them waits in Read.
func (p *poller) fail(q *queue) {
	p.mu.Lock()
	var parked []*Conn
	if p.queue == q { // it was not closed
		for i := range p.places {
			if c := p.places[i].conn; c != nil {
				parked = append(parked, c)
			}
		}
	}
	p.mu.Unlock()
	for _, c := range parked {
		if wake := c.unpark(); wake != nil {
			go wake()
		}
	}
}

// run reads what arrives for the connections of q until q is closed.
func (p *poller) run(q *queue) {
	r := newReader()
	events := make([]event, 0, 256)
	for {
		var err error
		if events, err = q.wait(events[:0]); err != nil {
			p.fail(q)
			return
		}
		for _, e := range events {
			p.serve(e, r)
		}
	}
}

func (p *poller) serve(e event, r *reader) {
	c := p.find(e)
	// If another goroutine has readMu, it is about to take c.
	if c == nil || !c.readMu.TryLock() {
		return
	}
	var wake func()
	if p.find(e) == c { // still
		if b, err := r.read(c.direct.socket); err != syscall.EAGAIN && c.arrived(b, err) {
			wake = c.unpark()
		}
	}
	c.readMu.Unlock()
	if wake != nil {
		go wake()
	}
}

// peek reports whether there is something to read from c, or its end.
func (p *poller) peek(c *Conn) (found bool) {
	err := c.direct.socket.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		found = err != syscall.EAGAIN && err != syscall.EINTR
		return true
	})
	return found || err != nil
}

// reader reads from sockets without waiting, always into the same buffer.
type reader struct {
	attempt func(fd uintptr) bool // made once, so that read allocates nothing

	buf [4096]byte
	n   int
	err error
}

func newReader() *reader {
	r := &reader{}
	r.attempt = func(fd uintptr) bool {
		for {
			r.n, r.err = syscall.Read(int(fd), r.buf[:])
			if r.err != syscall.EINTR {
				return true // false would wait until something arrives
			}
		}
	}
	return r
}

// read returns what has arrived, nothing at the end of the stream, and EAGAIN
// if nothing has arrived.
func (r *reader) read(socket syscall.RawConn) ([]byte, error) {
	if err := socket.Read(r.attempt); err != nil {
		return nil, err
	}
	switch r.err {
	case nil:
		return r.buf[:r.n], nil
	case syscall.EAGAIN:
		return nil, syscall.EAGAIN
	}
	return nil, os.NewSyscallError("read", r.err)
}
