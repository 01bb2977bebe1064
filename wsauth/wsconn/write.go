package wsconn

import (
	"context"
	"errors"
	"os"
	"time"
)

// maxWrite is how much is handed to the net.Conn at once. TLS cannot go on after a write that timed out, so there each
// piece has to arrive whole within the deadline.
const maxWrite = 32 << 10

// WriteFrame writes a frame whole. It returns once the operating system has taken it, which may take as long as the
// peer makes progress; see [Config].WriteTimeout. On error the connection is gone.
func (c *Conn) WriteFrame(f *Frame) error {
	if c.closing.Load() {
		return ErrClosed
	}
	c.writeMu.Lock()
	err := ErrClosed
	if !c.closing.Load() {
		err = c.writeLocked(f.wire)
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

// writeLocked writes one frame under writeMu. A frame that is not finished leaves a connection that cannot be used.
func (c *Conn) writeLocked(p []byte) error {
	for len(p) > 0 {
		_ = c.raw.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
		n, err := c.raw.Write(p[:min(len(p), maxWrite)])
		p = p[n:]
		if err == nil {
			continue
		}
		timeout := errors.Is(err, os.ErrDeadlineExceeded)
		if timeout && n > 0 {
			continue
		}
		closing := c.closing.Load()
		c.destroy()
		switch {
		case timeout:
			return ErrStalled
		case closing:
			return ErrClosed
		}
		return err
	}
	return nil
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
