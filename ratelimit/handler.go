package ratelimit

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"syscall"

	"github.com/relayguard/relayguard/ratelimit/internal/thin"
)

// Handler returns a handler that admits requests to next, or refuses them with
// [Limiter.Refuse]. Every request to it counts, so wrap only the route of the
// WebSocket, not the whole server.
//
// The slot of an admitted request is released when next returns or panics. If
// next hijacks the connection, the slot is released when that connection is
// closed. If next hijacks the connection and then panics, Handler closes it,
// because no other code will.
//
// The net.Conn that next hijacks is a wrapper. It has the method CloseWrite if
// the connection inside has it, so that httputil.ReverseProxy can pass on a
// half-closed connection; only Close releases the slot. Its method NetConn
// returns the connection inside, as that of crypto/tls does, and SyscallConn
// returns the socket. If the ResponseWriter cannot be hijacked, as in HTTP/2,
// next gets it unchanged.
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
	if l.rejects != nil && d.Reason != ReasonNone {
		l.rejects.Add(rejectKey{d.Client, d.Reason}, reject{r, d})
	}
}

// rejectKey is what is counted apart for OnReject.
type rejectKey struct {
	client netip.Prefix
	reason Reason
}

type reject struct {
	r *http.Request
	d Decision
}

// thinned returns what calls OnReject, or nil if nothing does.
func (c *Config) thinned() *thin.Thinner[rejectKey, reject] {
	if c.OnReject == nil {
		return nil
	}
	return thin.New(c.RejectEvery,
		func(v reject, left uint64) { c.OnReject(v.r, v.d, left) },
		func(k rejectKey) rejectKey { return rejectKey{reason: k.reason} },
		func(k rejectKey, v reject) reject {
			v.d.Coarse = v.d.Coarse || k.client != v.d.Client
			v.d.Client = k.client
			v.r = thin.Request(v.r)
			return v
		})
}

// hijackable reports whether w, or a ResponseWriter that w wraps, can be
// hijacked. It follows Unwrap as http.ResponseController does.
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

// writer notes the connection that is hijacked through it.
type writer struct {
	http.ResponseWriter
	slot *Slot
	conn *conn
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) Flush() { _ = w.FlushError() }

func (w *writer) FlushError() error { return http.NewResponseController(w.ResponseWriter).Flush() }

// WriteHeaderNow is for gin, whose WriteHeader only stores the status.
// WebSocket libraries look for this method after they have set the status 101,
// and call it before they hijack. The writer of gin may be below those of other
// middleware.
func (w *writer) WriteHeaderNow() {
	for below := w.ResponseWriter; ; {
		if now, ok := below.(interface{ WriteHeaderNow() }); ok {
			now.WriteHeaderNow()
			return
		}
		u, ok := below.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		below = u.Unwrap()
	}
}

// ReadFrom lets the system copy a file to the connection.
func (w *writer) ReadFrom(r io.Reader) (int64, error) { return io.Copy(w.ResponseWriter, r) }

func (w *writer) WriteString(s string) (int, error) { return io.WriteString(w.ResponseWriter, s) }

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.conn = &conn{Conn: c, slot: w.slot}
	// The garbage collector closes a connection that nothing refers to any
	// more. Its slot must be released then too.
	runtime.AddCleanup(w.conn, func(s *Slot) { s.Release() }, w.slot)
	if half, ok := c.(closeWriter); ok {
		return halfConn{w.conn, half}, rw, nil
	}
	return w.conn, rw, nil
}

// conn is a hijacked connection that releases its slot when it is closed.
type conn struct {
	net.Conn
	slot *Slot
}

func (c *conn) Close() error {
	defer c.slot.Release()
	return c.Conn.Close()
}

// ReadFrom and WriteTo let the system copy between sockets.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

func (c *conn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, c.Conn) }

// closeWriter is a connection whose end can be told while its other half stays
// open, such as net.TCPConn, net.UnixConn and tls.Conn.
type closeWriter interface{ CloseWrite() error }

// halfConn is apart from conn, because a method that always fails would be
// worse than none.
type halfConn struct {
	*conn
	closeWriter
}

// SyscallConn returns the socket, if the connection is a socket. It may be used
// directly, since conn does not change the data.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// NetConn returns the connection inside.
func (c *conn) NetConn() net.Conn { return c.Conn }
