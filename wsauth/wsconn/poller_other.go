//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package wsconn

// parking parks nothing: this package knows no way to wait for many sockets on
// this system.
var parking poller

type poller struct{}

func (poller) add(*Conn, func()) bool { return false }
func (poller) take(*Conn) func()      { return nil }
func (poller) has(*Conn) bool         { return false }
func (poller) peek(*Conn) bool        { return false }
