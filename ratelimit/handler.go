package ratelimit

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"runtime"
	"syscall"
)

// Handler admits requests to next, or refuses them. It counts exactly the requests that it is mounted on: put it on the
// route of the WebSocket, not around the whole server.
//
// The slot is held until the connection that next hijacks is closed, or until next returns or panics if it hijacks
// nothing (a failed upgrade, HTTP/2). If next hijacks and then panics, nobody is left to close the connection, and
// Handler closes it.
//
// The hijacked net.Conn is wrapped; NetConn() on it returns the one beneath, as in crypto/tls, and SyscallConn() its
// socket. Where the ResponseWriter
// given to Handler cannot be hijacked, next gets that very one.
func (l *Limiter) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slot, d := l.Admit(l.cfg.ClientIP(r))
		l.report(r, d)
		if !d.Allowed {
			l.Refuse(w, d)
			return
		}
		l.cfg.Fields.set(w.Header(), d, l.cfg)
		if !hijackable(w) {
			defer slot.Release()
			next.ServeHTTP(w, r)
			return
		}

		h := &writer{ResponseWriter: w, slot: &slot}
		returned := false
		defer func() {
			switch {
			case h.conn == nil:
				slot.Release()
			case !returned:
				h.conn.Close()
			}
		}()
		next.ServeHTTP(h, r)
		returned = true
	})
}

func (l *Limiter) report(r *http.Request, d Decision) {
	if l.cfg.Observe != nil {
		l.cfg.Observe(r, d)
	}
	if l.cfg.OnReject == nil || d.Reason == ReasonNone {
		return
	}
	if !l.rejects.Allow() {
		l.suppressed.Add(1)
		return
	}
	l.cfg.OnReject(r, d, l.suppressed.Swap(0))
}

// hijackable says whether w, or what it wraps, can be hijacked, as http.ResponseController would find out.
func hijackable(w http.ResponseWriter) bool {
	for {
		if _, ok := w.(http.Hijacker); ok {
			return true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
}

// writer watches for Hijack.
type writer struct {
	http.ResponseWriter
	slot *Slot
	conn *conn
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) Flush() { _ = w.FlushError() }

func (w *writer) FlushError() error { return http.NewResponseController(w.ResponseWriter).Flush() }

// WriteHeaderNow serves gin, whose WriteHeader only takes note: WebSocket libraries look for this method between the 101
// and Hijack.
func (w *writer) WriteHeaderNow() {
	if now, ok := w.ResponseWriter.(interface{ WriteHeaderNow() }); ok {
		now.WriteHeaderNow()
	}
}

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.conn = &conn{Conn: c, slot: w.slot}
	// A connection that is forgotten instead of closed is closed by the garbage collector; so must its slot be.
	runtime.AddCleanup(w.conn, func(s *Slot) { s.Release() }, w.slot)
	return w.conn, rw, nil
}

// conn is a hijacked connection that gives its slot back when it is closed.
type conn struct {
	net.Conn
	slot *Slot
}

func (c *conn) Close() error {
	defer c.slot.Release()
	return c.Conn.Close()
}

// SyscallConn returns the socket beneath, if the connection is one: what passes through here is not changed.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// NetConn returns the connection beneath.
func (c *conn) NetConn() net.Conn { return c.Conn }
