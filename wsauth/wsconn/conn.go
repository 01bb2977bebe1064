package wsconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/wsauth"
)

// Errors of a Conn, besides those of package wsauth. They contain nothing that
// the client sent.
var (
	ErrClosed       = errors.New("wsconn: connection is closed")
	ErrProtocol     = errors.New("wsconn: peer violated the protocol")
	ErrUnresponsive = errors.New("wsconn: peer did not answer a ping")
	ErrStalled      = errors.New("wsconn: write made no progress")
)

// CloseError means that the client closed the connection. Code is the code of
// its close frame, or 1005 if it sent none.
type CloseError struct{ Code int }

func (e *CloseError) Error() string {
	return fmt.Sprintf("wsconn: peer closed the connection (%d)", e.Code)
}

// Conn is the server's end of a WebSocket connection, and a [wsauth.Conn]. All
// methods are safe for concurrent use.
type Conn struct {
	cfg  *Config
	lib  library
	raw  net.Conn // from Hijack; its Close may do more than close the socket
	base net.Conn // the socket below raw

	limit atomic.Int64

	// Guarded by readMu:
	readMu  lock
	early   []byte    // what arrived with the handshake
	partial io.Reader // the rest of a message that was not read completely
	readErr error     // what every further Read returns
	ioErr   error     // why raw can no longer be read
	refused bool      // the library has closed because of what it read

	// writeMu is held for a whole frame. ping and pong are frames that wait
	// until it is released.
	writeMu lock
	direct  *direct
	ping    atomic.Bool
	pong    atomic.Pointer[[]byte]

	// timeMu guards the timers and the read deadline.
	timeMu      sync.Mutex
	pinger      *time.Timer
	killer      *time.Timer
	gone        bool
	interrupted bool
	awaiting    atomic.Bool // a ping was sent, and nothing has been read since

	stalled  atomic.Bool // a write has made no progress
	closing  atomic.Bool // no more data is sent or returned: a close frame was sent or follows
	shutOnce sync.Once
	hangOnce sync.Once
	hangErr  error
}

var _ wsauth.Conn = (*Conn)(nil)

// NetConn returns the net.Conn below, for its addresses and options. Do not
// read, write or close it.
func (c *Conn) NetConn() net.Conn { return c.raw }

// SetReadLimit sets the maximum size in bytes of the messages that Read
// returns, from the next message on.
func (c *Conn) SetReadLimit(n int64) { c.limit.Store(n) }

// Read returns the next text message. The caller may modify the slice. Read
// also answers pings and close frames, so call it again and again, even if you
// expect no message. Every error is final. After [wsauth.ErrBinary],
// [wsauth.ErrInvalidUTF8], [wsauth.ErrTooBig] and an error of ctx, you can
// still write and must call [Conn.Close]; after any other error, the connection
// has ended.
func (c *Conn) Read(ctx context.Context) ([]byte, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.readErr != nil {
		return nil, c.readErr
	}
	if c.readErr = ctx.Err(); c.readErr != nil {
		return nil, c.readErr
	}
	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, c.interrupt)
	}
	returned := false
	defer func() {
		if !returned { // a panic: Close must not read further and panic too
			c.ioErr = ErrClosed
			c.destroy()
		}
	}()
	msg, err := c.readMessage()
	returned = true
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

func (c *Conn) readMessage() ([]byte, error) {
	for {
		if err := c.skipPartial(); err != nil {
			return nil, err
		}
		binary, r, err := c.lib.next()
		if err != nil {
			return nil, err
		}
		c.partial = r
		if c.closing.Load() {
			continue
		}
		if binary {
			return nil, wsauth.ErrBinary
		}
		msg, err := c.readPartial()
		switch {
		case err != nil:
			return nil, err
		case c.closing.Load():
			continue
		case !utf8.Valid(msg):
			return nil, wsauth.ErrInvalidUTF8
		}
		return msg, nil
	}
}

// readPartial allocates memory as the message arrives, not as its header
// announces. It asks for at most one byte more than the limit, because the
// library waits until it has everything that it was asked for.
func (c *Conn) readPartial() ([]byte, error) {
	limit := c.limit.Load()
	msg := make([]byte, 0, 512)
	for {
		n, err := c.partial.Read(msg[len(msg):min(int64(cap(msg)), limit+1)])
		msg = msg[:len(msg)+n]
		if int64(len(msg)) > limit {
			return nil, wsauth.ErrTooBig
		}
		if err == io.EOF {
			c.partial = nil
			return msg, nil
		}
		if err != nil {
			return nil, err
		}
		if len(msg) == cap(msg) {
			msg = append(msg, 0)[:len(msg)]
		}
	}
}

func (c *Conn) skipPartial() error {
	if c.partial == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, c.partial)
	if err == nil {
		c.partial = nil
	}
	return err
}

// explain returns the error of Read for err, without text of the client, and
// closes or aborts the connection as that error requires.
func (c *Conn) explain(err error) error {
	switch {
	case errors.Is(err, wsauth.ErrBinary), errors.Is(err, wsauth.ErrInvalidUTF8), errors.Is(err, wsauth.ErrTooBig):
		return err
	case c.ioErr == nil && !c.closing.Load():
		c.shut(1002, "")
		return ErrProtocol
	}
	closed, byPeer := errors.AsType[*CloseError](err)
	switch {
	case byPeer:
		err = closed
	case c.stalled.Load():
		err = ErrStalled
	case c.refused:
		err = ErrProtocol
	case c.closing.Load():
		err = ErrClosed
	case errors.Is(c.ioErr, os.ErrDeadlineExceeded):
		err = ErrUnresponsive
	default:
		err = c.ioErr
	}
	if byPeer || c.ioErr != nil {
		_ = c.Abort()
	}
	return err
}

// readRaw is the library's Read. It runs under readMu.
func (c *Conn) readRaw(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	if c.awaiting.Load() {
		c.awaitAnswer() // do not count the time in which no one was reading
	}
	n, err := c.raw.Read(b)
	if n > 0 && c.awaiting.Load() {
		c.answered()
	}
	if err != nil {
		c.ioErr = err
	}
	return n, err
}

// interrupt makes a running Read return when its context ends.
func (c *Conn) interrupt() {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	if !c.closing.Load() {
		c.interrupted = true
		_ = c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *Conn) awaitAnswer() {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	if !c.interrupted && !c.closing.Load() {
		c.awaiting.Store(true)
		_ = c.raw.SetReadDeadline(time.Now().Add(c.cfg.PongTimeout))
	}
}

func (c *Conn) answered() {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	c.awaiting.Store(false)
	if !c.interrupted {
		_ = c.raw.SetReadDeadline(time.Time{})
	}
}
