package wsadapter

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// maxWrite is the size of one write to the net.Conn. TLS cannot continue after
// a write that timed out, so over TLS each piece must be taken completely
// within the deadline.
const maxWrite = 32 << 10

var pingFrame = []byte{wsframe.Ping, 0}

// Write sends one text message. If ctx ends during the write, the message is
// still written, because half of a frame cannot be taken back. This may take
// long, but not longer than [Config].WriteTimeout without progress. After an
// error other than that of ctx, the connection has ended.
func (c *Conn) Write(ctx context.Context, text []byte) error {
	return c.write(ctx, wsframe.Text, text)
}

// WriteBinary is [Conn.Write] for a binary message.
func (c *Conn) WriteBinary(ctx context.Context, data []byte) error {
	return c.write(ctx, wsframe.Binary, data)
}

func (c *Conn) write(ctx context.Context, head byte, payload []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	frame := wsframe.New(head, payload)
	c.writeMu.Lock()
	err := ErrClosed
	if !c.closing.Load() {
		err = c.writeLocked(frame)
	}
	c.writeMu.Unlock()
	c.sendPending()
	return err
}

// writeLocked writes one frame. After half of a frame, the connection cannot be
// used. It needs writeMu.
func (c *Conn) writeLocked(p []byte) error {
	for len(p) > 0 {
		due := time.Now().Add(c.cfg.WriteTimeout)
		_ = c.raw.SetWriteDeadline(due)
		n, err := c.raw.Write(p[:min(len(p), maxWrite)])
		p = p[n:]
		// A write that timed out much too late has not looked whether there is
		// room now: this process was stopped meanwhile; see waitLonger. TLS
		// fails again at once.
		again := n > 0 || time.Since(due) > c.cfg.WriteTimeout/10
		if err != nil && !(again && errors.Is(err, os.ErrDeadlineExceeded)) {
			return c.writeFailed(err)
		}
	}
	return nil
}

func (c *Conn) writeFailed(err error) error {
	closing := c.closing.Load()
	stalled := errors.Is(err, os.ErrDeadlineExceeded)
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
		ping, pong := c.ping.Swap(false), c.pong.Swap(nil)
		if pong != nil && !c.closing.Load() {
			_ = c.writeLocked(*pong)
		}
		if ping && !c.closing.Load() {
			c.awaitAnswer() // before the write, or the answer may be faster
			c.asked.Store(true)
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
