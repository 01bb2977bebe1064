package ratelimit

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"syscall"

	"github.com/relayguard/relayguard/ratelimit/internal/thin"
)

// Handler returns a handler that admits requests to next, or refuses them with
// [Limiter.Refuse]. Every request to it counts, so wrap only the routes that
// the limits are meant for, not the whole server.
//
// With CountConnections, the slot of an admitted request is released when next
// returns or panics. If next hijacks the connection, the slot is released when
// that connection is closed. If next hijacks the connection and then panics,
// Handler closes it, because no other code will.
//
// The net.Conn that next hijacks is a wrapper. It has the method CloseWrite if
// the connection inside has it, so that httputil.ReverseProxy can pass on a
// half-closed connection; only Close releases the slot. Its method NetConn
// returns the connection inside, as that of crypto/tls does, and SyscallConn
// returns the socket. If the ResponseWriter cannot be hijacked, as in HTTP/2,
// next gets it unchanged.
//
// With CountRequests, next always gets the ResponseWriter unchanged, and the
// slot is released when next returns or panics.
func (l *Limiter) Handler(next http.Handler) http.Handler { return All(l)(next) }

// All returns a middleware that decides by several limiters at once, such as
// one for each address and one for each account. A request is admitted if each
// of them admits it, and counts for none of them otherwise. The first that
// refuses answers the client. If you nest Handler instead, a request that the
// inner limiter refuses still counts for the outer one.
//
// A limiter whose Config.Key has no key for a request counts it by its address.
// If it should count nothing then, set its Config.Skip.
//
// A token of Config.Process is not given back. Observe and OnReject of each
// limiter get its own decision.
func All(limiters ...*Limiter) func(http.Handler) http.Handler {
	limiters = slices.Clone(limiters)
	hijack := slices.ContainsFunc(limiters, func(l *Limiter) bool { return l.cfg.Count == CountConnections })
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var few [4]Slot
			slots, admitted := enter(limiters, few[:0], w, r)
			switch {
			case !admitted:
			case hijack && hijackable(w):
				watch(slices.Clone(slots), next, w, r)
			default:
				defer release(slots)
				next.ServeHTTP(w, r)
			}
		})
	}
}

// enter appends the slots of all limiters, or answers the request. If a func of
// a Config panics, no slot stays held.
func enter(limiters []*Limiter, slots []Slot, w http.ResponseWriter, r *http.Request) (_ []Slot, admitted bool) {
	defer func() {
		if !admitted {
			for i := range slots {
				slots[i].undo()
			}
		}
	}()
	var few [4]Decision
	decisions := few[:0]
	for _, l := range limiters {
		var d Decision
		if l.cfg.Skip != nil && l.cfg.Skip(r) {
			decisions = append(decisions, d)
			continue
		}
		key, from := l.keyOf(r)
		slots = append(slots, Slot{})
		l.consider(r.Context(), &key, &from, l.now(), true, &slots[len(slots)-1], &d)
		decisions = append(decisions, d)
		l.report(r, key, d)
		if !d.Allowed {
			l.Refuse(w, r, d)
			return nil, false
		}
	}
	for i, l := range limiters {
		if decisions[i].Allowed {
			l.setFields(w.Header(), decisions[i])
		}
	}
	return slots, true
}

// keyOf returns what the request counts by, and an address to find its blocks.
func (l *Limiter) keyOf(r *http.Request) (key Key, from netip.Addr) {
	if l.cfg.Key != nil {
		if key, ok := l.cfg.Key(r); ok && key != (Key{}) {
			if l.blocks.len() == 0 {
				return key, key.Addr
			}
			return key, l.cfg.ClientIP(r)
		}
	}
	addr := l.cfg.ClientIP(r)
	return Key{Addr: addr}, addr
}

func release(slots []Slot) {
	for i := range slots {
		slots[i].Release()
	}
}

// watch serves a request whose connection may be hijacked.
func watch(slots []Slot, next http.Handler, w http.ResponseWriter, r *http.Request) {
	h := &writer{ResponseWriter: w, slots: slots}
	returned := false
	defer func() {
		switch {
		case h.conn == nil:
			release(slots)
		case !returned:
			h.conn.Close()
		}
	}()
	next.ServeHTTP(h, r)
	returned = true
}

func (l *Limiter) report(r *http.Request, key Key, d Decision) {
	if l.cfg.Observe != nil {
		l.cfg.Observe(r, d)
	}
	if l.rejects != nil && d.Reason != ReasonNone {
		k := rejectKey{client: d.Client, reason: d.Reason}
		if key.ID != "" {
			k.id = l.key(key)
		}
		l.rejects.Add(k, reject{r, d})
	}
}

// rejectKey is what is counted apart for OnReject.
type rejectKey struct {
	client netip.Prefix
	id     uint64 // of a Key.ID
	reason Reason
	others bool // of many clients
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
		func(k rejectKey) rejectKey { return rejectKey{reason: k.reason, others: true} },
		func(k rejectKey, v reject) reject {
			v.d.Coarse = v.d.Coarse || k.others
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
	slots []Slot
	conn  *conn
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
	w.conn = &conn{Conn: c, slots: w.slots}
	// The garbage collector closes a connection that nothing refers to any
	// more. Its slots must be released then too.
	runtime.AddCleanup(w.conn, release, w.slots)
	if half, ok := c.(closeWriter); ok {
		return halfConn{w.conn, half}, rw, nil
	}
	return w.conn, rw, nil
}

// conn is a hijacked connection that releases its slots when it is closed.
type conn struct {
	net.Conn
	slots []Slot
}

func (c *conn) Close() error {
	defer release(c.slots)
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
