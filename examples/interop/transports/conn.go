package transports

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// Config holds the allowed origins, and how long a connection waits for its
// peer. The zero value is ready to use.
type Config struct {
	Origins      wsauth.Origins // the zero value admits the site's own pages
	WriteTimeout time.Duration  // of one message; 0 means 10 seconds
	CloseGrace   time.Duration  // the longest time from Close to the end of the connection; 0 means 1 second
}

// library is the part that differs between WebSocket libraries.
type library interface {
	// next waits for the next message. The caller has read the previous message
	// to its end. If the peer sends a close frame, next returns a
	// [*wsconn.CloseError].
	next() (binary bool, r io.Reader, err error)
	// send writes one text message. Calls do not overlap.
	send(text []byte, deadline time.Time) error
	// farewell sends a close frame and waits for the peer's, or until the
	// net.Conn is closed. A caller of next holds reading.
	farewell(code int, reason string, reading lock)
	// release frees the library's resources. The net.Conn is already closed.
	release()
}

// Conn is a [wsauth.Conn] on any library. All methods are safe for concurrent
// use.
type Conn struct {
	lib library
	raw net.Conn
	cfg Config

	limit   atomic.Int64
	reading lock
	readErr error // the result of all later calls of Read
	writing lock

	mu      sync.Mutex // orders interrupt and Close
	closing atomic.Bool
	once    sync.Once
	hangUp  sync.Once
}

var _ wsauth.Conn = (*Conn)(nil)

func newConn(lib library, raw net.Conn, cfg Config) *Conn {
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 10 * time.Second
	}
	if cfg.CloseGrace == 0 {
		cfg.CloseGrace = time.Second
	}
	c := &Conn{lib: lib, raw: raw, cfg: cfg, reading: make(lock, 1), writing: make(lock, 1)}
	c.limit.Store(4 << 10)
	return c
}

// SetReadLimit implements the optional method of [wsauth.Conn].
func (c *Conn) SetReadLimit(n int64) { c.limit.Store(n) }

// Read implements [wsauth.Conn]. After an error, all later calls return it. If
// ctx ends, the connection stays open for Write and Close.
func (c *Conn) Read(ctx context.Context) ([]byte, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.readErr != nil {
		return nil, c.readErr
	}
	stop := context.AfterFunc(ctx, c.interrupt)
	msg, err := c.read()
	if !stop() {
		c.readErr = ctx.Err()
		if err != nil {
			err = c.readErr
		}
		return msg, err
	}
	if err != nil {
		c.readErr = c.explain(err)
	}
	return msg, c.readErr
}

func (c *Conn) read() ([]byte, error) {
	binary, r, err := c.lib.next()
	switch {
	case err != nil:
		return nil, err
	case c.closing.Load():
		return nil, wsconn.ErrClosed
	case binary:
		return nil, wsauth.ErrBinary
	}
	// The libraries' own limits would close the connection, so they are off.
	// This reads at most one byte beyond the limit, and allocates memory only
	// for bytes that have arrived, not for those that a frame header announces.
	limit := c.limit.Load()
	msg, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case c.closing.Load():
		return nil, wsconn.ErrClosed
	case int64(len(msg)) > limit:
		return nil, wsauth.ErrTooBig
	case !utf8.Valid(msg):
		return nil, wsauth.ErrInvalidUTF8
	}
	return msg, nil
}

// explain returns an error without text of the peer. Both libraries' errors
// quote the peer's close reason, and coder's also quote its malformed frames.
func (c *Conn) explain(err error) error {
	closed, byPeer := errors.AsType[*wsconn.CloseError](err)
	broken, byNetwork := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, wsauth.ErrBinary), errors.Is(err, wsauth.ErrTooBig), errors.Is(err, wsauth.ErrInvalidUTF8):
		return err
	case byPeer:
		return closed
	case c.closing.Load():
		return wsconn.ErrClosed
	case byNetwork:
		return broken
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return wsconn.ErrProtocol
}

// interrupt makes a blocked Read return, by a deadline. The library does not
// get the context, because coder's library closes the connection when the
// context ends, without a close frame for the peer.
func (c *Conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing.Load() {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// Write implements [wsauth.Conn]. The end of ctx does not interrupt a write
// that has begun, because half a frame cannot be withdrawn. If a write fails,
// the connection ends.
func (c *Conn) Write(ctx context.Context, text []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closing.Load() {
		return wsconn.ErrClosed
	}
	err := c.lib.send(text, time.Now().Add(c.cfg.WriteTimeout))
	if err != nil {
		c.destroy()
	}
	return err
}

// Close implements [wsauth.Conn]. It returns within CloseGrace, because it
// closes the socket then, and the library no longer waits for the peer.
func (c *Conn) Close(code int, reason string) error {
	c.once.Do(func() {
		c.mu.Lock()
		c.closing.Store(true)
		_ = c.raw.SetReadDeadline(time.Time{})
		c.mu.Unlock()
		killer := time.AfterFunc(c.cfg.CloseGrace, c.destroy)
		c.lib.farewell(code, clip(reason), c.reading)
		killer.Stop()
		c.hangUp.Do(func() { _ = c.raw.Close() })
		c.lib.release()
	})
	return nil
}

// Abort implements [wsauth.Conn].
func (c *Conn) Abort() error {
	c.closing.Store(true)
	c.destroy()
	c.lib.release()
	return nil
}

// destroy closes the socket first, because the Close of a layer above it, such
// as TLS, may wait for the peer.
func (c *Conn) destroy() {
	socket := c.raw
	for {
		wrapper, ok := socket.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		socket = wrapper.NetConn()
	}
	if socket != c.raw {
		_ = socket.Close()
	}
	c.hangUp.Do(func() { _ = c.raw.Close() })
}

// clip shortens a reason to the length that fits into a close frame. If a
// reason is too long, the libraries send no close frame.
func clip(reason string) string {
	const most = 123
	if len(reason) <= most {
		return reason
	}
	return strings.ToValidUTF8(reason[:most], "")
}

// lock is a mutex made of a channel. In a testing/synctest bubble, time
// advances while a goroutine waits for a channel, but not while it waits for a
// sync.Mutex. The holder of a lock may wait for a peer.
type lock chan struct{}

func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

// captor hands a library the hijacked connection and keeps it. It also finds
// the Hijacker below wrapped ResponseWriters, which gorilla does not look for,
// and gin's WriteHeaderNow.
type captor struct {
	http.ResponseWriter
	raw net.Conn
}

func (c *captor) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	c.raw = raw
	return raw, rw, err
}

// WriteHeaderNow sends the 101 under gin, whose WriteHeader only stores the
// status. coder's library calls it before it hijacks.
func (c *captor) WriteHeaderNow() {
	for w := c.ResponseWriter; ; {
		if now, ok := w.(interface{ WriteHeaderNow() }); ok {
			now.WriteHeaderNow()
			return
		}
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = outer.Unwrap()
	}
}
