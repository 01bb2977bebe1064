package wsconn

import (
	"net"
	"time"
)

// Close sends a close frame, unless one was sent already, waits until the peer answers, but not beyond
// [Config].CloseGrace, and closes the connection. What the peer still sends meanwhile is read and discarded: a socket
// closed with unread data resets the connection, and the peer would not see the close frame. A reason longer than 123
// bytes is cut. Further calls wait for the first.
func (c *Conn) Close(code int, reason string) error {
	c.shut(code, reason)
	c.drain()
	err := c.hangUp()
	c.retire()
	c.lib.release()
	return err
}

// Abort closes the connection at once, without a close frame.
func (c *Conn) Abort() error {
	c.destroy()
	c.lib.release()
	return c.hangErr
}

// shut sends the one close frame of this connection. From here on its end is certain: the killer closes the socket
// after the grace, which makes every read and write return that is still waiting for the peer.
func (c *Conn) shut(code int, reason string) {
	c.shutOnce.Do(func() {
		c.closing.Store(true)
		c.timeMu.Lock()
		if !c.gone {
			c.killer = time.AfterFunc(c.cfg.CloseGrace, c.destroy)
		}
		c.timeMu.Unlock()
		c.writeMu.Lock()
		_ = c.writeLocked(closeFrame(code, reason))
		c.writeMu.Unlock()
	})
}

// drain reads until the peer's close frame, the end of the stream or the killer. A Read that is under way does the
// same and gives up readMu only then.
func (c *Conn) drain() {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.timeMu.Lock()
	if c.interrupted {
		c.interrupted, c.ioErr = false, nil
	}
	_ = c.raw.SetReadDeadline(time.Time{})
	c.timeMu.Unlock()
	if c.ioErr == nil {
		_, _ = c.readMessage()
	}
	// The library stops at what it does not understand, and where it was interrupted.
	rest := make([]byte, 512)
	for c.ioErr == nil {
		_, c.ioErr = c.raw.Read(rest)
	}
}

// libraryGone is the library closing its end: after a close frame, the peer's or the answer to ours; or because a
// control frame stalled for five seconds.
func (c *Conn) libraryGone() error {
	shut := true
	c.shutOnce.Do(func() { shut = false; c.closing.Store(true) })
	if !shut {
		c.destroy()
	}
	return c.hangUp()
}

// hangUp closes the connection in the ordinary way, which over TLS may wait for the peer.
func (c *Conn) hangUp() error {
	c.hangOnce.Do(func() { c.hangErr = c.raw.Close() })
	return c.hangErr
}

// destroy closes the socket first, so that nothing has to wait, and then the rest.
func (c *Conn) destroy() {
	c.closing.Store(true)
	c.retire()
	if c.base != c.raw {
		_ = c.base.Close()
	}
	_ = c.hangUp()
}

// retire stops the timers for good.
func (c *Conn) retire() {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	c.gone = true
	c.pinger.Stop()
	if c.killer != nil {
		c.killer.Stop()
	}
}

// baseOf follows NetConn, as crypto/tls and wrappers like it have it, down to the socket.
func baseOf(conn net.Conn) net.Conn {
	for {
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = wrapper.NetConn()
	}
}
