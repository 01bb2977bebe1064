package wsconn

import (
	"bytes"
	"io"
	"os"
	"time"

	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// Park lets the connection wait for its client without a goroutine and without
// the WebSocket library, and reports whether it does. It returns at once. A
// parked connection takes less than 2 KB of memory; with a goroutine in Read it
// takes more than 10.
//
// When there is something for Read to return, a message or the error of an
// ended connection, wake is called once, in a new goroutine, and the connection
// is no longer parked. Then call Read, which may still wait for the rest of a
// message. After Read has returned a message, you may call Park again. If Close
// or Abort ends the parking, wake is called when the connection has ended.
//
// Meanwhile, pings are sent and answered within the same bounds as by Read, and
// you may call all other methods. If you call Read, it ends the parking, and
// wake is not called.
//
// Park returns false, and wake is never called, if the connection cannot be
// parked now: a Read is running, a message or a part of one has already
// arrived, or the connection has ended. Then call Read. Park always returns
// false if the net.Conn does not give access to its socket ([syscall.Conn]), as
// over TLS, and on systems other than Linux, macOS and the BSDs.
//
// All parked connections of a process share one goroutine, which exists while
// there are any.
func (c *Conn) Park(wake func()) bool {
	if c.direct == nil || !c.readMu.TryLock() {
		return false
	}
	defer c.readMu.Unlock()
	if c.early != nil && !c.takeEarly() {
		return false
	}
	if c.partial != nil || c.isFlooded() || c.readErr != nil || c.ioErr != nil || c.closing.Load() || !c.lib.Load().idle() {
		return false
	}
	c.timeMu.Lock()
	if c.gone || c.parked {
		c.timeMu.Unlock()
		return false
	}
	c.parked = true
	if c.awaiting.Load() {
		_ = c.raw.SetReadDeadline(time.Time{})
		c.setDue(time.Duration(c.due-time.Now().UnixNano()), c.last)
	}
	c.timeMu.Unlock()
	c.lib.Swap(nil).detach()
	if !parking.add(c, wake) {
		c.notParked()
		return false
	}
	// If the connection was ended meanwhile, its end may have come before add.
	// If it came after add, it calls wake.
	return !c.closing.Load() || c.unpark() == nil
}

// takeEarly handles the control frames that arrived with the handshake, and
// reports whether there was nothing else.
func (c *Conn) takeEarly() bool {
	b := make([]byte, c.early.Len())
	_, _ = c.early.ReadAt(b, c.early.Size()-int64(len(b)))
	c.early = nil
	return !c.handle(b)
}

// unpark ends the parking and returns wake, which the caller must call. It
// returns nil if the connection is not parked, or another goroutine has ended
// the parking.
func (c *Conn) unpark() (wake func()) {
	if wake = parking.take(c); wake != nil {
		c.notParked()
	}
	return wake
}

func (c *Conn) notParked() {
	c.timeMu.Lock()
	c.parked = false
	c.timeMu.Unlock()
}

// arrived handles what a read from a parked connection has returned, and
// reports whether the connection must be woken. It needs readMu.
func (c *Conn) arrived(b []byte, err error) bool {
	switch {
	case err != nil:
		c.ioErr = err
		return true
	case len(b) == 0:
		c.ioErr = io.EOF
		return true
	}
	if c.awaiting.Load() {
		c.answered()
	}
	return c.handle(b)
}

// handle handles control frames, and reports whether there is something for
// Read. It needs readMu.
func (c *Conn) handle(b []byte) bool {
	rest, within := c.control(b)
	if !within {
		c.timeMu.Lock()
		c.flooded = true // Read sends the close frame, which may wait
		c.timeMu.Unlock()
		c.lib.Swap(nil).detach()
		return true
	}
	if len(rest) > 0 {
		c.early = bytes.NewReader(bytes.Clone(rest))
		return true
	}
	return false
}

// control handles the pings and pongs at the beginning of b, and returns the
// rest. It takes only whole and valid frames, and leaves the judgement of all
// others to the library. It reports whether they are within the budget.
func (c *Conn) control(b []byte) (rest []byte, within bool) {
	const masked, head = 0x80, 2 + 4
	var ping []byte
	for len(b) >= head && (b[0] == wsframe.Ping || b[0] == wsframe.Pong) && masked <= b[1] && b[1] <= masked+125 {
		n := head + int(b[1]-masked)
		if len(b) < n {
			break
		}
		if !c.meter.Scan(b[:n], &c.asked) {
			return b, false
		}
		if b[0] == wsframe.Ping {
			ping = b[:n]
		}
		b = b[n:]
	}
	if ping != nil {
		// Only the last of several pings needs an answer, see sendPong.
		pong := append([]byte{wsframe.Pong, ping[1] - masked}, ping[head:]...)
		for i := range pong[2:] {
			pong[2+i] ^= ping[2+i%4]
		}
		c.pong.Store(&pong)
		c.startPending()
	}
	return b, true
}

// called does what is due at the tick now of the wheel, which has forgotten c:
// the next ping, or to give up a parked client that has not answered one. While
// a Read is running, its deadline does the latter.
func (c *Conn) called(now int64) {
	c.timeMu.Lock()
	if c.gone || c.closing.Load() {
		c.timeMu.Unlock()
		return
	}
	waits := c.parked && c.awaiting.Load()
	late := waits && c.dueAt <= now
	ping := c.pingAt <= now
	if ping {
		c.pingAt = c.cfg.wheel.spread(c, c.cfg.PingInterval)
	}
	switch {
	case waits && !late:
		c.cfg.wheel.at(c, min(c.dueAt, c.pingAt))
	case !ping:
		c.cfg.wheel.at(c, c.pingAt)
	}
	c.timeMu.Unlock()
	if late {
		c.overdue()
	}
	if ping {
		c.ping.Store(true)
		c.startPending()
	}
}

// overdue gives up a parked client, if no answer has arrived that the poller
// has not read yet.
func (c *Conn) overdue() {
	if !c.readMu.TryLock() { // the poller is reading
		c.cfg.wheel.at(c, 0)
		return
	}
	defer c.readMu.Unlock()
	if !parking.has(c) {
		return
	}
	if parking.peek(c) {
		c.answered()
		return
	}
	if c.waitLonger() {
		return
	}
	c.ioErr = os.ErrDeadlineExceeded
	if wake := c.unpark(); wake != nil {
		go wake()
	}
}
