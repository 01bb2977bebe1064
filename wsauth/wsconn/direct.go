package wsconn

import (
	"net"
	"syscall"
)

// direct writes to a socket without waiting. A nil direct writes nothing. Its
// use needs writeMu.
type direct struct {
	socket  syscall.RawConn
	attempt func(fd uintptr) bool // created once, so that write allocates nothing

	p   []byte
	n   int
	err error
}

// directTo returns nil if conn itself does not offer its socket. It must not
// use the socket below a wrapper such as tls.Conn, which changes the bytes.
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
		return true // false would wait until the socket takes more
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
