package wsadapter

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
	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// Errors of a Conn, besides those of package wsauth. They contain nothing that
// the client sent.
var (
	ErrClosed       = errors.New("wsadapter: connection is closed")
	ErrProtocol     = errors.New("wsadapter: client violated the protocol")
	ErrFlooded      = errors.New("wsadapter: client sent too many frames that deliver nothing")
	ErrUnresponsive = errors.New("wsadapter: client did not answer a ping")
	ErrStalled      = errors.New("wsadapter: write made no progress")
)

// CloseError means that the client closed the connection. Code is the code of
// its close frame, or 1005 if it sent none.
type CloseError struct{ Code int }

func (e *CloseError) Error() string {
	return fmt.Sprintf("wsadapter: client closed the connection (%d)", e.Code)
}

// Conn is the server's end of a WebSocket connection, and a [wsauth.Conn]. All
// methods are safe for concurrent use.
type Conn struct {
	cfg      *Config
	lib      library
	raw      net.Conn // from Hijack; its Close may do more than close the socket
	attached atomic.Bool

	limit atomic.Int64

	// Guarded by readMu:
	readMu    wsframe.Lock
	early     []byte // what arrived with the handshake
	readErr   error  // what every further Read returns
	ioErr     error  // why raw can no longer be read
	meter     wsframe.Meter
	drained   int  // bytes that were discarded after a close frame
	refused   bool // the library has sent a close frame because of what it read
	malformed bool // the close frame of the client is invalid
	flooded   bool // the client has exceeded the budget of the meter

	// writeMu is held for a whole frame. ping and pong are frames that wait
	// until it is released.
	writeMu wsframe.Lock
	ping    atomic.Bool
	asked   atomic.Bool // a ping was sent, and no pong has been read since
	pong    atomic.Pointer[[]byte]

	// timeMu guards the timers and the read deadline.
	timeMu      sync.Mutex
	pinger      *time.Timer
	killer      *time.Timer
	due         time.Time   // the read deadline, or when the killer fires
	awaiting    atomic.Bool // a ping was sent, and nothing has been read since
	gone        bool
	interrupted bool // the context of a Read has ended
	last        bool // the client is given up at due

	failed   atomic.Bool // the library has got an error from readRaw
	stalled  atomic.Bool // a write has made no progress
	closing  atomic.Bool // no more data is sent or returned: a close frame was sent or follows
	shutOnce sync.Once
	hangOnce sync.Once
	hangErr  error
}

var _ wsauth.Conn = (*Conn)(nil)

func newConn(cfg *Config, raw net.Conn) *Conn {
	c := &Conn{cfg: cfg, raw: raw}
	c.limit.Store(cfg.ReadLimit)
	return c
}

// SetReadLimit sets the maximum size in bytes of the messages that Read and
// ReadMessage return, from the next message on. A compressed message counts
// with its size after decompression. A negative n counts as 0.
func (c *Conn) SetReadLimit(n int64) { c.limit.Store(max(n, 0)) }

// Read returns the next text message. The caller may modify the slice. Read
// also answers pings and close frames, so call it again and again, even if you
// expect no message. Every error is final. After [wsauth.ErrBinary],
// [wsauth.ErrInvalidUTF8], [wsauth.ErrTooBig] and an error of ctx, you can
// still write and must call [Conn.Close]; after any other error, the connection
// has ended. ErrBinary comes as soon as the header of the message has arrived.
func (c *Conn) Read(ctx context.Context) ([]byte, error) {
	msg, _, err := c.read(ctx, false)
	return msg, err
}

// ReadMessage is [Conn.Read] for text and binary messages. It never returns
// [wsauth.ErrBinary].
func (c *Conn) ReadMessage(ctx context.Context) (data []byte, binary bool, err error) {
	return c.read(ctx, true)
}

func (c *Conn) read(ctx context.Context, anyKind bool) (msg []byte, binary bool, err error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.readErr != nil {
		return nil, false, c.readErr
	}
	if c.readErr = ctx.Err(); c.readErr != nil {
		return nil, false, c.readErr
	}
	c.readErr = ErrClosed // if the library panics, it must not be called again
	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, c.interrupt)
	}
	msg, binary, err = c.nextMessage(anyKind)
	switch {
	case !stop():
		c.readErr = ctx.Err()
		if err != nil {
			err = c.readErr
		}
	case err != nil:
		err = c.explain(err)
		c.readErr = err
	default:
		c.readErr = nil
	}
	return msg, binary, err
}

func (c *Conn) nextMessage(anyKind bool) (msg []byte, binary bool, err error) {
	binary, r, err := c.lib.next()
	switch {
	case err != nil:
		return nil, false, err
	case c.closing.Load():
		return nil, false, ErrClosed
	case binary && !anyKind:
		return nil, false, wsauth.ErrBinary
	}
	msg, err = readAll(r, c.limit.Load())
	switch {
	case err != nil:
		return nil, false, err
	case c.closing.Load():
		return nil, false, ErrClosed
	case !binary && !utf8.Valid(msg):
		return nil, false, wsauth.ErrInvalidUTF8
	}
	return msg, binary, nil
}

// readAll allocates memory as the message arrives, not as its header announces.
// It asks for at most one byte more than the limit, because the library may
// wait until it has everything that it was asked for.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	msg := make([]byte, 0, 512)
	for {
		n, err := r.Read(msg[len(msg) : min(int64(cap(msg))-1, limit)+1])
		msg = msg[:len(msg)+n]
		if int64(len(msg)) > limit {
			return nil, wsauth.ErrTooBig
		}
		if err == io.EOF {
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

// explain returns the error of Read for err, without text of the client, and
// closes or aborts the connection as that error requires.
func (c *Conn) explain(err error) error {
	code, byClient := closeCode(err)
	byClient = byClient && !c.malformed
	switch {
	case errors.Is(err, wsauth.ErrBinary), errors.Is(err, wsauth.ErrInvalidUTF8), errors.Is(err, wsauth.ErrTooBig):
		return err
	case c.flooded:
		return ErrFlooded
	case byClient:
		err = &CloseError{code}
	case c.stalled.Load():
		err = ErrStalled
	case c.refused:
		err = ErrProtocol
	case c.closing.Load():
		err = ErrClosed
	case c.ioErr == nil:
		c.shut(1002, "")
		return ErrProtocol
	case errors.Is(c.ioErr, os.ErrDeadlineExceeded):
		err = ErrUnresponsive
	default:
		err = c.ioErr
	}
	if byClient || c.ioErr != nil {
		_ = c.Abort()
	}
	return err
}

// readRaw is the library's Read. It runs under readMu. After a close frame, the
// library gets nothing: Close itself looks for the answer of the client.
func (c *Conn) readRaw(b []byte) (n int, err error) {
	if !c.closing.Load() {
		n, err = c.receive(b)
	}
	if c.closing.Load() {
		n, err = 0, ErrClosed
	}
	if err != nil {
		c.failed.Store(true)
	}
	return n, err
}

// receive reads what the client has sent, and shows it to the meter.
func (c *Conn) receive(b []byte) (n int, err error) {
	if len(c.early) > 0 {
		n = copy(b, c.early)
		c.early = c.early[n:]
	} else {
		n, err = c.readSocket(b)
	}
	if !c.meter.Scan(b[:n], &c.asked) && !c.closing.Load() {
		c.flooded = true
		c.shut(1008, "")
	}
	return n, err
}

// readSocket reads from the connection, and slowly if a client goes on sending
// after a close frame.
func (c *Conn) readSocket(b []byte) (int, error) {
	if c.drained > wsframe.MaxDrain {
		c.pause()
	}
	n, err := c.raw.Read(b)
	for errors.Is(err, os.ErrDeadlineExceeded) && n == 0 && c.waitLonger() {
		n, err = c.raw.Read(b)
	}
	if n > 0 && c.awaiting.Load() {
		c.answered()
	}
	if c.closing.Load() && c.drained <= wsframe.MaxDrain {
		c.drained += n
	}
	if err != nil {
		c.ioErr = err
	}
	return n, err
}

// pause waits for DrainPause, but not longer than the killer. When its time has
// come and it has not run yet, pause does its work, so that no client is read
// quickly until then.
func (c *Conn) pause() {
	c.timeMu.Lock()
	left := time.Until(c.due)
	c.timeMu.Unlock()
	if left <= 0 {
		c.destroy()
		return
	}
	time.Sleep(min(wsframe.DrainPause, left))
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

// awaitAnswer gives the client PongTimeout for its answer, the last tenth of it
// only when the rest has passed: see waitLonger.
func (c *Conn) awaitAnswer() {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	if !c.interrupted && !c.closing.Load() {
		c.awaiting.Store(true)
		c.setDue(c.cfg.PongTimeout-c.cfg.PongTimeout/10, false)
	}
}

// waitLonger reports whether to read again after a read that timed out. If no
// goroutine has read for a while, or this process or the machine was stopped,
// the deadline has passed although the answer may have arrived meanwhile. So a
// client is given up only by a read that ended in time.
func (c *Conn) waitLonger() bool {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	tenth := c.cfg.PongTimeout / 10
	late := time.Since(c.due) > tenth
	if c.interrupted || c.closing.Load() || !c.awaiting.Load() || c.last && !late {
		return false
	}
	c.setDue(tenth, true)
	return true
}

func (c *Conn) setDue(wait time.Duration, last bool) {
	c.due, c.last = time.Now().Add(wait), last
	_ = c.raw.SetReadDeadline(c.due)
}

func (c *Conn) answered() {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	c.awaiting.Store(false)
	if !c.interrupted {
		_ = c.raw.SetReadDeadline(time.Time{})
	}
}
