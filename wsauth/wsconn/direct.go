package wsconn

import (
	"net"
	"syscall"
)

// direct writes to a socket what it takes without waiting. A nil direct takes nothing. It is used under writeMu.
type direct struct {
	socket  syscall.RawConn
	attempt func(fd uintptr) bool // made once, so that a write allocates nothing

	p   []byte
	n   int
	err error
}

// directTo needs the connection itself to offer its socket, not one that it wraps: what a wrapper like crypto/tls does
// to the bytes must not be left out.
func directTo(conn net.Conn) *direct {
	offering, ok := conn.(syscall.Conn)
	if !ok || !socketsTakeBytes {
		return nil
	}
	socket, err := offering.SyscallConn()
	if err != nil {
		return nil
	}
	d := &direct{socket: socket}
	d.attempt = func(fd uintptr) bool {
		d.n, d.err = writeSocket(fd, d.p)
		return true // do not wait until it takes more
	}
	return d
}

func (d *direct) write(p []byte) (int, error) {
	if d == nil {
		return 0, nil
	}
	d.p, d.n, d.err = p, 0, nil
	err := d.socket.Write(d.attempt)
	d.p = nil
	if err == nil {
		err = d.err
	}
	return d.n, err
}
