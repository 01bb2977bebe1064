package wsconn

import (
	"net"
	"time"

	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// Close sends a close frame if none was sent yet, waits for the answer of the
// client for at most [Config].CloseGrace, and closes the connection. It cuts a
// reason after 123 bytes. Meanwhile, Close reads and discards data: a socket
// that is closed with unread data resets the connection, and the client would
// not get the close frame. Other calls wait for the first.
func (c *Conn) Close(code int, reason string) error {
	wake := c.unpark()
	c.shut(code, reason)
	c.drain()
	err := c.hangUp()
	c.retire()
	c.lib.Load().release()
	if wake != nil {
		go wake()
	}
	return err
}

// Abort closes the connection immediately, without a close frame.
func (c *Conn) Abort() error {
	c.destroy()
	c.lib.Load().release()
	return c.hangErr
}

// shut sends the only close frame of the connection. After CloseGrace, the
// killer closes the socket, so that every read and write returns.
func (c *Conn) shut(code int, reason string) {
	c.shutOnce.Do(func() {
		c.closing.Store(true)
		c.timeMu.Lock()
		if !c.gone {
			c.due = time.Now().Add(c.cfg.CloseGrace).UnixNano()
			c.killer = time.AfterFunc(c.cfg.CloseGrace, c.destroy)
		}
		c.timeMu.Unlock()
		c.writeMu.Lock()
		_ = c.writeLocked(wsframe.NewClose(code, reason))
		c.writeMu.Unlock()
	})
}

// drain reads until the close frame of the client, the end of the stream, or
// the killer. A running Read does the same before it releases readMu.
func (c *Conn) drain() {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.timeMu.Lock()
	if c.interrupted {
		c.interrupted, c.ioErr = false, nil
	}
	_ = c.raw.SetReadDeadline(time.Time{})
	c.timeMu.Unlock()
	switch {
	case c.ioErr != nil || c.isFlooded():
	case c.lib.Load() == nil: // it was parked
		c.awaitClose()
	default:
		_, _, _ = c.nextMessage(false)
	}
	// The library stops at an invalid frame, at a flood, and after an
	// interrupted read.
	rest := make([]byte, 512)
	for c.ioErr == nil {
		_, _ = c.readSocket(rest)
	}
}

// awaitClose reads until the close frame of the client, without the library.
// Like the library, it then closes the connection.
func (c *Conn) awaitClose() {
	b := make([]byte, 512)
	for c.ioErr == nil && !c.meter.Closed() {
		n, _ := c.readRaw(b)
		c.meter.Scan(b[:n], &c.asked)
	}
	if c.ioErr == nil {
		c.destroy()
	}
}

// libraryGone is called when the library closes its end: after a close frame of
// the client, or after a control frame that stalled for five seconds or was
// withheld because of a flood. Then the client still has CloseGrace.
func (c *Conn) libraryGone() error {
	if c.isFlooded() {
		return nil
	}
	shut := true
	c.shutOnce.Do(func() { shut = false; c.closing.Store(true) })
	if !shut {
		c.destroy()
	}
	return c.hangUp()
}

// hangUp closes the connection. Over TLS without a keeper, this may wait for
// the client.
func (c *Conn) hangUp() error {
	c.hangOnce.Do(func() { c.hangErr = c.raw.Close() })
	return c.hangErr
}

// destroy closes the socket and then the rest, so that nothing waits for the
// client.
func (c *Conn) destroy() {
	c.closing.Store(true)
	wake := c.unpark() // before the descriptor can be used again
	c.retire()
	if base := baseOf(c.raw); base != c.raw {
		_ = base.Close()
	}
	_ = c.hangUp()
	if wake != nil {
		go wake()
	}
}

// retire stops the timers forever.
func (c *Conn) retire() {
	c.timeMu.Lock()
	defer c.timeMu.Unlock()
	c.gone = true
	c.cfg.wheel.remove(c)
	if c.killer != nil {
		c.killer.Stop()
	}
}

// baseOf returns the socket below conn. It calls the method NetConn, which
// tls.Conn and similar wrappers have.
func baseOf(conn net.Conn) net.Conn {
	for {
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = wrapper.NetConn()
	}
}
