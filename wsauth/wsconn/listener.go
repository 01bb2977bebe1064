package wsconn

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Listener returns a listener for a server that ends TLS itself. With it,
// [Conn.StartFrame] writes to a TLS connection as to a plain one: a client that
// keeps up costs no goroutine. Without it, every frame is written in a
// goroutine of its own.
//
//	server.ServeTLS(wsconn.Listener(l), "cert.pem", "key.pem")
//
// It may also be given to tls.NewListener. HTTP requests are served as without
// it. After [Upgrader.Accept], a connection keeps at most 32 KiB of encrypted
// data for a client that has not made room for it.
//
// The connections of l must give access to their sockets ([syscall.Conn]), as
// those of package net do on Unix systems. Listener does not change others. If
// you wrap the *tls.Conn in another net.Conn, give that the method NetConn, as
// package ratelimit does, and a Write that does not wait by itself.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if d := directTo(conn); d != nil {
		return &keeper{Conn: conn, direct: d}, nil
	}
	return conn, nil
}

// keeper is the net.Conn below TLS, which cannot continue after a write that
// the socket took in part. After begin, its Write never waits and always takes
// everything: what the socket does not take is kept for flush.
type keeper struct {
	net.Conn
	begun atomic.Bool

	mu     sync.Mutex
	direct *direct // its use needs mu
	kept   []byte  // nil if nothing is kept
}

// keeperOf returns the keeper below conn, or nil if there is none.
func keeperOf(conn net.Conn) *keeper {
	for {
		if k, ok := conn.(*keeper); ok {
			return k
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = wrapper.NetConn()
	}
}

// NetConn returns the connection inside.
func (k *keeper) NetConn() net.Conn { return k.Conn }

// SyscallConn returns the socket, for a connection without TLS.
func (k *keeper) SyscallConn() (syscall.RawConn, error) { return k.direct.socket, nil }

// begin makes Write keep what the socket does not take.
func (k *keeper) begin() { k.begun.Store(true) }

// maxKept is more than one call of Write on a tls.Conn makes of maxSealed
// bytes. The rest is for what TLS writes by itself, such as answers to key
// updates, of which a client can ask for any number.
const maxKept, maxSealed = 32 << 10, 16 << 10

func (k *keeper) Write(p []byte) (int, error) {
	if !k.begun.Load() {
		return k.Conn.Write(p)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	if k.kept == nil {
		var err error
		// The deadline is that of flush. TLS could not continue after it.
		if n, err = k.direct.write(p); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
	switch {
	case n == len(p):
		return n, nil
	case len(k.kept)+len(p)-n > maxKept:
		return n, ErrStalled
	}
	k.kept = append(k.kept, p[n:]...)
	return len(p), nil
}

// keeps reports whether there is anything to flush. A nil keeper keeps nothing.
func (k *keeper) keeps() bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept != nil
}

// flush writes what is kept, and waits until the deadline. It returns how much
// the socket has taken. Only one goroutine may call it at a time.
func (k *keeper) flush() (int, error) {
	k.mu.Lock()
	kept := k.kept
	k.mu.Unlock()
	n, err := k.Conn.Write(kept) // meanwhile, Write only appends
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept = k.kept[n:]; len(k.kept) == 0 {
		k.kept = nil
	}
	return n, err
}
