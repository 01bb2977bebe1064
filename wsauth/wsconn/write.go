package wsconn

import (
	"context"
	"errors"
	"os"
	"time"
)

// maxWrite is how much is handed to the net.Conn at once where a write may wait. TLS cannot go on after a write that
// timed out, so there each piece has to arrive whole within the deadline.
const maxWrite = 32 << 10

// WriteFrame writes a frame whole. It returns once the operating system has taken it, which may take as long as the
// peer makes progress; see [Config].WriteTimeout. On error the connection is gone; Read then returns ErrStalled too, if
// that was why.
func (c *Conn) WriteFrame(f *Frame) error {
	if c.closing.Load() {
		return ErrClosed
	}
	c.writeMu.Lock()
	return c.finishFrame(f, f.wire)
}

// StartFrame writes a frame without waiting for the peer, and reports whether the operating system took all of it. If
// not, the rest is written in a goroutine that ends with the frame or, at its deadline, with the connection, and then
// calls done with the outcome. Only one frame may be under way in this manner: the next StartFrame must not come before
// done was called. After an error, done is not called and the connection is gone.
//
// One goroutine can so feed any number of connections: no slow peer holds it up, and no peer that keeps up costs more
// than a system call. That needs a connection that is a plain socket, or gives access to one ([syscall.Conn]); over
// TLS, every frame is written in a goroutine.
func (c *Conn) StartFrame(f *Frame, done func(error)) (sent bool, err error) {
	if c.closing.Load() {
		return false, ErrClosed
	}
	if !c.writeMu.TryLock() { // a control frame or an answer is under way
		go func() {
			c.writeMu.Lock()
			done(c.finishFrame(f, f.wire))
		}()
		return false, nil
	}
	rest := f.wire
	if c.closing.Load() {
		err = ErrClosed
	} else {
		rest, err = c.writeAtOnce(rest)
	}
	if err == nil && len(rest) > 0 {
		go func() { done(c.finishFrame(f, rest)) }() // which unlocks
		return false, nil
	}
	c.writeMu.Unlock()
	if c.ping.Load() || c.pong.Load() != nil {
		go c.sendPending() // the frame may have filled the socket, so this one may wait
	}
	return err == nil, err
}

// finishFrame writes what is left of a frame and gives up writeMu. A frame that has begun is finished also where a
// close frame is about to follow: inside it, that would be read as part of the message.
func (c *Conn) finishFrame(f *Frame, rest []byte) error {
	err := ErrClosed
	if begun := len(rest) < len(f.wire); begun || !c.closing.Load() {
		err = c.writeLocked(rest)
	}
	c.writeMu.Unlock()
	c.sendPending()
	return err
}

// Write sends one text message. The end of ctx does not interrupt a message that is under way, since half a frame
// cannot be taken back.
func (c *Conn) Write(ctx context.Context, text []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.WriteFrame(NewFrame(text))
}

// writeAtOnce writes as much under writeMu as the socket takes without waiting, and returns the rest.
func (c *Conn) writeAtOnce(p []byte) (rest []byte, err error) {
	n, err := c.direct.write(p)
	if err != nil {
		return p, c.writeFailed(err)
	}
	return p[n:], nil
}

// writeLocked writes one frame under writeMu. A frame that is not finished leaves a connection that cannot be used.
func (c *Conn) writeLocked(p []byte) error {
	p, err := c.writeAtOnce(p)
	if err != nil || len(p) == 0 {
		return err
	}
	for len(p) > 0 {
		_ = c.raw.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
		n, err := c.raw.Write(p[:min(len(p), maxWrite)])
		p = p[n:]
		if err != nil && !(n > 0 && errors.Is(err, os.ErrDeadlineExceeded)) {
			return c.writeFailed(err)
		}
	}
	if c.direct != nil {
		_ = c.raw.SetWriteDeadline(time.Time{}) // it would count for what is written at once, too
	}
	return nil
}

func (c *Conn) writeFailed(err error) error {
	closing := c.closing.Load()
	stalled := errors.Is(err, os.ErrDeadlineExceeded)
	if stalled && !closing {
		c.stalled.Store(true) // first, so that whoever reads learns why it ends
	}
	c.destroy()
	switch {
	case stalled:
		return ErrStalled
	case closing:
		return ErrClosed
	}
	return err
}

// sendPong leaves a pong for whoever may write. Of several pings only the last has to be answered (RFC 6455, section
// 5.5.3), so one place is enough.
func (c *Conn) sendPong(frame []byte) {
	own := append([]byte(nil), frame...)
	c.pong.Store(&own)
	c.sendPending()
}

// sendPending writes waiting control frames unless somebody else holds the lock, who then looks again after releasing it.
func (c *Conn) sendPending() {
	for (c.ping.Load() || c.pong.Load() != nil) && c.writeMu.TryLock() {
		ping, pong := c.ping.Swap(false), c.pong.Swap(nil)
		if pong != nil && !c.closing.Load() {
			_ = c.writeLocked(*pong)
		}
		if ping && !c.closing.Load() {
			c.awaitAnswer() // first, or the answer could be faster
			_ = c.writeLocked(pingFrame)
		}
		c.writeMu.Unlock()
	}
}

func (c *Conn) sendPing() {
	c.ping.Store(true)
	c.sendPending()
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	if !c.gone && !c.closing.Load() {
		c.pinger.Reset(c.cfg.PingInterval)
	}
}
