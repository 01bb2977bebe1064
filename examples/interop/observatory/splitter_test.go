package observatory_test

import (
	"net"
	"sync"
)

// A splitter shares one port between TLS and plain HTTP, by the first byte that
// a client sends. The Observatory scans one host with both, and a test cannot
// use the ports 80 and 443.
type splitter struct {
	net.Listener
	secure, plain *half
	done          chan struct{}
	once          sync.Once
}

// half is the listener of one of the two servers.
type half struct {
	*splitter
	conns chan net.Conn
}

// recordHandshake is the first byte of a TLS connection.
const recordHandshake = 0x16

func newSplitter(l net.Listener) *splitter {
	s := &splitter{Listener: l, done: make(chan struct{})}
	s.secure = &half{s, make(chan net.Conn)}
	s.plain = &half{s, make(chan net.Conn)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.sort(c)
		}
	}()
	return s
}

func (s *splitter) sort(c net.Conn) {
	first := make([]byte, 1)
	if _, err := c.Read(first); err != nil {
		c.Close()
		return
	}
	to := s.plain
	if first[0] == recordHandshake {
		to = s.secure
	}
	select {
	case to.conns <- &unread{Conn: c, first: first}:
	case <-s.done:
		c.Close()
	}
}

func (s *splitter) Close() error {
	err := net.ErrClosed
	s.once.Do(func() {
		close(s.done)
		err = s.Listener.Close()
	})
	return err
}

func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// unread is a connection whose first byte was already read. It returns that
// byte again.
type unread struct {
	net.Conn
	first []byte
}

func (c *unread) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
