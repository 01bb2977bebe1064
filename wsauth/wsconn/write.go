package wsconn

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// maxWrite is the size of one write to the net.Conn if it may wait. TLS cannot
// continue after a write that timed out, so over TLS without [Listener] each
// piece must be taken completely within the deadline.
const maxWrite = 32 << 10

// WriteFrame writes a whole frame. It returns when the operating system has
// taken the whole frame. This may take long, but not longer than
// [Config].WriteTimeout without progress. After an error, the connection has
// ended. If the error is [ErrStalled], Read returns ErrStalled too.
func (c *Conn) WriteFrame(f *Frame) error {
	if c.closing.Load() {
		return ErrClosed
	}
	wire := c.wireOf(f)
	c.writeMu.Lock()
	return c.finishFrame(wire, wire)
}

// StartFrame writes a frame without waiting for the client. It returns true if
// the operating system has taken the whole frame. If it returns false without
// an error, a new goroutine writes the rest, and then calls done with the
// result; do not call StartFrame again before that. The goroutine ends when the
// frame is written or when the connection ends. If StartFrame returns an error,
// it does not call done, and the connection has ended.
//
// With StartFrame, one goroutine can write to any number of connections: a slow
// client does not delay it, and a fast client costs one system call. This
// requires a net.Conn that gives access to its socket ([syscall.Conn]), or over
// TLS one that [Listener] has accepted. Over other connections, every frame is
// written in a goroutine.
func (c *Conn) StartFrame(f *Frame, done func(error)) (sent bool, err error) {
	if c.closing.Load() {
		return false, ErrClosed
	}
	wire := c.wireOf(f)
	if !c.writeMu.TryLock() { // another frame is being written
		go func() {
			c.writeMu.Lock()
			done(c.finishFrame(wire, wire))
		}()
		return false, nil
	}
	rest := wire
	if c.closing.Load() {
		err = ErrClosed
	} else {
		rest, err = c.writeAtOnce(rest)
	}
	if err == nil && (len(rest) > 0 || c.keeper.keeps()) {
		go func() { done(c.finishFrame(wire, rest)) }() // which unlocks
		return false, nil
	}
	c.writeMu.Unlock()
	if c.ping.Load() || c.pong.Load() != nil {
		go c.sendPending() // may wait, if the frame has filled the socket
	}
	return err == nil, err
}

// finishFrame writes the rest of a frame and releases writeMu. It finishes a
// frame that has begun even if a close frame follows: the client would read a
// close frame inside it as part of the message.
func (c *Conn) finishFrame(wire, rest []byte) error {
	err := ErrClosed
	if begun := len(rest) < len(wire); begun || !c.closing.Load() {
		err = c.writeLocked(rest)
	}
	c.writeMu.Unlock()
	c.sendPending()
	return err
}

// Write sends one text message. If ctx ends during the write, the message is
// still written, because half of a frame cannot be taken back. After an error
// other than that of ctx, the connection has ended.
func (c *Conn) Write(ctx context.Context, text []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.WriteFrame(NewFrame(text))
}

// WriteBinary is [Conn.Write] for a binary message.
func (c *Conn) WriteBinary(ctx context.Context, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.WriteFrame(&Frame{wire: wsframe.New(wsframe.Binary, data)})
}

// writeAtOnce writes what the socket takes without waiting, and returns the
// rest. It needs writeMu.
func (c *Conn) writeAtOnce(p []byte) (rest []byte, err error) {
	if c.keeper == nil {
		n, err := c.direct.write(p)
		if err != nil {
			return p, c.writeFailed(err)
		}
		return p[n:], nil
	}
	for len(p) > 0 && !c.keeper.keeps() {
		n, err := c.raw.Write(p[:min(len(p), maxSealed)])
		if err != nil {
			return p, c.writeFailed(err)
		}
		p = p[n:]
	}
	return p, nil
}

// writeLocked writes one frame. After half of a frame, the connection cannot be
// used. It needs writeMu.
func (c *Conn) writeLocked(p []byte) error {
	p, err := c.writeAtOnce(p)
	if err != nil || len(p) == 0 && !c.keeper.keeps() {
		return err
	}
	for len(p) > 0 || c.keeper.keeps() {
		due := time.Now().Add(c.cfg.WriteTimeout)
		_ = c.raw.SetWriteDeadline(due)
		var n int
		if c.keeper == nil {
			n, err = c.raw.Write(p[:min(len(p), maxWrite)])
			p = p[n:]
		} else if n, err = c.keeper.flush(); err == nil {
			if p, err = c.writeAtOnce(p); err != nil {
				return err
			}
		}
		// A write that timed out much too late has not looked whether there is
		// room now: this process was stopped meanwhile; see waitLonger. TLS
		// without a keeper fails again at once.
		again := n > 0 || time.Since(due) > c.cfg.WriteTimeout/10
		if err != nil && !(again && errors.Is(err, os.ErrDeadlineExceeded)) {
			return c.writeFailed(err)
		}
	}
	if c.direct != nil || c.keeper != nil {
		_ = c.raw.SetWriteDeadline(time.Time{}) // it would apply to writeAtOnce, too
	}
	return nil
}

func (c *Conn) writeFailed(err error) error {
	closing := c.closing.Load()
	stalled := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrStalled)
	if stalled && !closing {
		c.stalled.Store(true) // before destroy, so that Read returns ErrStalled
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

// sendPong stores a pong for the goroutine that may write next. Only the last
// of several pings needs an answer (RFC 6455, section 5.5.3), so one place is
// enough.
func (c *Conn) sendPong(frame []byte) {
	own := append([]byte(nil), frame...)
	c.pong.Store(&own)
	c.sendPending()
}

// sendPending writes the waiting control frames. If another goroutine holds
// writeMu, it does nothing, because that goroutine calls sendPending
// afterwards.
func (c *Conn) sendPending() {
	for (c.ping.Load() || c.pong.Load() != nil) && c.writeMu.TryLock() {
		if frames := c.takePending(); len(frames) > 0 {
			_ = c.writeLocked(frames)
		}
		c.writeMu.Unlock()
	}
}

// startPending is sendPending for a goroutine that must not wait. If the socket
// does not take a frame at once, a new goroutine writes the rest.
func (c *Conn) startPending() {
	for (c.ping.Load() || c.pong.Load() != nil) && c.writeMu.TryLock() {
		frames := c.takePending()
		rest, err := frames, error(nil)
		if len(frames) > 0 {
			rest, err = c.writeAtOnce(frames)
		}
		if err == nil && (len(rest) > 0 || c.keeper.keeps()) {
			go func() {
				if begun := len(rest) < len(frames); begun || !c.closing.Load() {
					_ = c.writeLocked(rest)
				}
				c.writeMu.Unlock()
				c.sendPending()
			}()
			return
		}
		c.writeMu.Unlock()
	}
}

// takePending returns the waiting control frames. It needs writeMu.
func (c *Conn) takePending() (frames []byte) {
	ping, pong := c.ping.Swap(false), c.pong.Swap(nil)
	if c.closing.Load() {
		return nil
	}
	if pong != nil {
		frames = *pong
	}
	if ping {
		if !c.awaiting.Load() { // or a client that is pinged again would never be late
			c.awaitAnswer() // before the write, or the answer may be faster
		}
		c.asked.Store(true)
		frames = append(frames, pingFrame...)
	}
	return frames
}
