package wsconn

import (
	"bytes"
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
	ErrClosed       = errors.New("wsconn: connection is closed")
	ErrProtocol     = errors.New("wsconn: peer violated the protocol")
	ErrFlooded      = errors.New("wsconn: peer sent too many frames that deliver nothing")
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
	cfg         *settings
	lib         atomic.Pointer[library] // nil while parked, and until the next read; set under readMu
	raw         net.Conn                // from Hijack; its Close may do more than close the socket
	subprotocol string

	deflate bool // permessage-deflate was negotiated
	limit   atomic.Int64

	// Guarded by readMu:
	readMu  wsframe.Lock
	early   *bytes.Reader // what was read before the library reads
	partial io.Reader     // the rest of a message that was not read completely
	readErr error         // what every further Read returns
	ioErr   error         // why raw can no longer be read
	meter   wsframe.Meter
	drained int32 // bytes that were discarded after a close frame
	refused bool  // the library has closed because of what it read

	// writeMu is held for a whole frame. ping and pong are frames that wait
	// until it is released.
	writeMu wsframe.Lock
	direct  *direct
	keeper  *keeper
	ping    atomic.Bool
	asked   atomic.Bool // a ping was sent, and no pong has been read since
	pong    atomic.Pointer[[]byte]

	// timeMu guards the times and the read deadline.
	timeMu      sync.Mutex
	killer      *time.Timer
	pingAt      int64       // the tick of the next ping
	dueAt       int64       // the tick of due while parked
	due         int64       // the read deadline, or when the killer fires, in Unix nanoseconds
	awaiting    atomic.Bool // a ping was sent, and nothing has been read since
	gone        bool
	interrupted bool
	last        bool // the client is given up at due
	flooded     bool // the client has exceeded the budget of the meter
	parked      bool // the poller reads, and due is the wheel's to observe

	stalled  atomic.Bool // a write has made no progress
	closing  atomic.Bool // no more data is sent or returned: a close frame was sent or follows
	shutOnce sync.Once
	hangOnce sync.Once
	hangErr  error

	spoke spoke // guarded by the mutex of the wheel
	fd    int   // guarded by the mutex of the poller: the place, if parked
}

var _ wsauth.Conn = (*Conn)(nil)

// NetConn returns the net.Conn below, for its addresses and options. Do not
// read, write or close it.
func (c *Conn) NetConn() net.Conn { return c.raw }

// Subprotocol returns the subprotocol that was negotiated, a value of
// [Config].Subprotocols, or an empty string for none.
func (c *Conn) Subprotocol() string { return c.subprotocol }

// SetReadLimit sets the maximum size in bytes of the messages that Read and
// ReadMessage return, from the next message on. A negative n counts as 0.
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

func (c *Conn) read(ctx context.Context, anyKind bool) ([]byte, bool, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.lib.Load() == nil {
		_ = c.unpark() // a caller that reads unasked does what wake is for
	}
	if c.readErr != nil {
		return nil, false, c.readErr
	}
	if c.readErr = ctx.Err(); c.readErr != nil {
		return nil, false, c.readErr
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
	msg, binary, err := c.nextMessage(anyKind)
	returned = true
	if !stop() {
		c.readErr = ctx.Err()
		if err != nil {
			err = c.readErr
		}
		return msg, binary, err
	}
	if err != nil {
		c.readErr = c.explain(err)
	}
	return msg, binary, c.readErr
}

func (c *Conn) nextMessage(anyKind bool) (msg []byte, binary bool, err error) {
	lib, err := c.library()
	if err != nil {
		return nil, false, err
	}
	for {
		if err := c.skipPartial(); err != nil {
			return nil, false, err
		}
		binary, r, err := lib.next()
		if err != nil {
			return nil, false, err
		}
		c.partial = r
		compressed := c.meter.Compressed()
		if c.closing.Load() {
			continue
		}
		if binary && !anyKind {
			return nil, false, wsauth.ErrBinary
		}
		msg, err := c.readPartial(compressed)
		switch {
		case err != nil:
			return nil, false, err
		case c.closing.Load():
			continue
		case !binary && !utf8.Valid(msg):
			return nil, false, wsauth.ErrInvalidUTF8
		}
		return msg, binary, nil
	}
}

// library returns the library, and attaches it again after the connection was
// parked. If a parked connection has ended, it returns the reason.
func (c *Conn) library() (*library, error) {
	if lib := c.lib.Load(); lib != nil {
		return lib, nil
	}
	switch {
	case c.isFlooded():
		c.shut(1008, "")
		return nil, errFlood
	case c.closing.Load():
		return nil, ErrClosed
	case c.early == nil && c.ioErr != nil:
		return nil, c.ioErr
	}
	lib, err := attach(c)
	if err != nil {
		return nil, err
	}
	c.lib.Store(lib)
	return lib, nil
}

// readPartial allocates memory as the message arrives, not as its header
// announces. It asks for at most one byte more than the limit, because the
// library waits until it has everything that it was asked for. It decompresses
// a message only when all of it is there, so that a client that stalls in the
// middle of one holds no decompressor.
func (c *Conn) readPartial(compressed bool) ([]byte, error) {
	limit := c.limit.Load()
	if compressed {
		payload, err := c.readPayload(longest(limit))
		if err != nil {
			return nil, err
		}
		return decompress(payload, limit)
	}
	return c.readPayload(limit)
}

func (c *Conn) readPayload(limit int64) ([]byte, error) {
	msg := make([]byte, 0, 512)
	for {
		n, err := c.partial.Read(msg[len(msg) : min(int64(cap(msg))-1, limit)+1])
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
	case c.isFlooded():
		return ErrFlooded
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

// errFlood is what the library reads in place of a flood.
var errFlood = errors.New("flood")

// readRaw is the library's Read. It runs under readMu.
func (c *Conn) readRaw(b []byte) (n int, err error) {
	if c.early != nil {
		n, _ = c.early.Read(b)
		if c.early.Len() == 0 {
			c.early = nil
		}
	} else {
		n, err = c.readSocket(b)
	}
	scan := c.meter.Scan
	if c.deflate {
		scan = c.meter.ScanCompressed
	}
	// Messages are told from each other even while they are discarded.
	if (c.deflate || !c.closing.Load()) && !scan(b[:n], &c.asked) && !c.closing.Load() {
		c.flood()
		return 0, errFlood
	}
	return n, err
}

// flood notes a flood and closes, before the library can close.
func (c *Conn) flood() {
	c.timeMu.Lock()
	c.flooded = true
	c.timeMu.Unlock()
	c.shut(1008, "")
}

func (c *Conn) isFlooded() bool {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	return c.flooded
}

// readSocket reads from the connection, and slowly if a client goes on sending
// after a close frame.
func (c *Conn) readSocket(b []byte) (int, error) {
	if c.drained > wsframe.MaxDrain {
		c.pause()
	}
	if c.awaiting.Load() {
		c.awaitAnswer() // do not count the time in which no one was reading
	}
	n, err := c.raw.Read(b)
	for errors.Is(err, os.ErrDeadlineExceeded) && n == 0 && c.waitLonger() {
		n, err = c.raw.Read(b)
	}
	if n > 0 && c.awaiting.Load() {
		c.answered()
	}
	if c.closing.Load() && c.drained <= wsframe.MaxDrain {
		c.drained += int32(n)
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
	left := time.Duration(c.due - time.Now().UnixNano())
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

// waitLonger reports whether to read again after a read that timed out. If this
// process, or the machine, was stopped for a while, the deadline has passed
// although the answer may have arrived meanwhile, and no read has looked for
// it. So a client is given up only by a read that ended in time.
func (c *Conn) waitLonger() bool {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	tenth := c.cfg.PongTimeout / 10
	late := time.Now().UnixNano()-c.due > int64(tenth)
	if c.interrupted || c.closing.Load() || !c.awaiting.Load() || c.last && !late {
		return false
	}
	c.setDue(tenth, true)
	return true
}

func (c *Conn) setDue(wait time.Duration, last bool) {
	due := time.Now().Add(wait)
	c.due, c.last = due.UnixNano(), last
	if !c.parked {
		_ = c.raw.SetReadDeadline(due)
		return
	}
	c.dueAt, due = c.cfg.wheel.after(wait)
	c.due = due.UnixNano() // the tick is not late because it was rounded up
	c.cfg.wheel.at(c, min(c.dueAt, c.pingAt))
}

func (c *Conn) answered() {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	c.awaiting.Store(false)
	if !c.interrupted && !c.parked {
		_ = c.raw.SetReadDeadline(time.Time{})
	}
}
