package wsframe

import (
	"sync/atomic"
	"time"
)

// Each frame of a client costs the server work, but these deliver nothing to
// the caller: pings, pongs, and empty fragments of a message that goes on.
// Without a bound, one client could keep a core busy with them forever.
const (
	idleBurst = 100                    // frames at once
	idlePause = 200 * time.Millisecond // then one in this time, on average
)

// After a close frame, everything that arrives is discarded: quickly, so that
// the close frame of the client is found, but only MaxDrain bytes. The rest is
// read slowly, with a DrainPause before each read.
const (
	MaxDrain   = 256 << 10
	DrainPause = 10 * time.Millisecond
)

// Meter follows the frames in the bytes that a library reads, and counts those
// that deliver nothing. The library decides which frames are valid. A Meter is
// as small as it is because every connection has one.
type Meter struct {
	left          uint64 // bytes of the payload to come; in a header, the length so far
	idleAt        int64  // when the budget is or was whole, in Unix nanoseconds
	seen          uint8  // bytes of the header, 0 in a payload and between frames
	first, second byte   // of the header

	begun uint8  // messages that have begun, and that Compressed has not reported
	marks uint32 // a bit for each of them, the oldest lowest: it is compressed
}

// Scan reads the bytes that follow those of the call before, and reports
// whether the frames that begin in them are within the budget. If asked is set,
// a ping was sent, and one pong is free. Scan reads nothing behind a close
// frame.
func (m *Meter) Scan(p []byte, asked *atomic.Bool) bool {
	within := true
	for len(p) > 0 && !m.Closed() {
		if m.seen == 0 && m.left > 0 {
			n := min(m.left, uint64(len(p)))
			m.left -= n
			p = p[n:]
			continue
		}
		if m.header(p[0]) && !m.pay(asked) {
			within = false
		}
		p = p[1:]
	}
	return within
}

// ScanCompressed is Scan for a connection with permessage-deflate (RFC 7692)
// and a library that does not know this extension. It clears the bit RSV1 of
// frames that begin a message. [Meter.Compressed] reports the bit.
//
// The bit of other frames stays, and the library refuses it.
func (m *Meter) ScanCompressed(p []byte, asked *atomic.Bool) bool {
	within := true
	for len(p) > 0 && !m.Closed() {
		n := 1 // a byte of a header, or the rest of a payload
		if m.seen == 0 && m.left > 0 {
			n = int(min(m.left, uint64(len(p))))
		} else if m.seen == 0 && !m.begin(&p[0]) {
			return false
		}
		within = m.Scan(p[:n], asked) && within
		p = p[n:]
	}
	return within
}

// begin takes the first byte of a frame. It reports false if more messages wait
// than a library reads ahead.
func (m *Meter) begin(first *byte) bool {
	if op := *first & 0xf; op != Text&0xf && op != Binary&0xf {
		return true
	}
	if m.begun == 32 {
		return false
	}
	if *first&RSV1 != 0 {
		*first &^= RSV1
		m.marks |= 1 << m.begun
	}
	m.begun++
	return true
}

// Compressed reports whether the next message that the library returns is
// compressed. Call it once for each message.
func (m *Meter) Compressed() bool {
	if m.begun == 0 {
		return false // nothing was scanned, after a close frame
	}
	compressed := m.marks&1 != 0
	m.begun--
	m.marks >>= 1
	return compressed
}

// Closed reports whether the last frame that was read is a close frame, and was
// read completely.
func (m *Meter) Closed() bool { return m.first == Close && m.seen == 0 && m.left == 0 }

// header takes the next byte of a frame header (RFC 6455, section 5.2), and
// reports whether it is the last one.
func (m *Meter) header(b byte) bool {
	m.seen++
	switch m.seen {
	case 1:
		m.first = b
		return false
	case 2:
		m.second, m.left = b, 0
	}
	length, mask := uint8(0), m.second>>7*4
	switch n := m.second & 0x7f; n {
	case 126:
		length = 2
	case 127:
		length = 8
	default:
		m.left = uint64(n)
	}
	if 2 < m.seen && m.seen <= 2+length {
		m.left = m.left<<8 | uint64(b)
	}
	if m.seen < 2+length+mask {
		return false
	}
	m.seen = 0
	return true
}

// pay takes the present frame from the budget if it delivers nothing, and
// reports whether the budget allowed it. A frame that ends a message gives one
// back, because some clients send a ping or an empty fragment with every
// message. The number of messages is for the caller to bound.
func (m *Meter) pay(asked *atomic.Bool) bool {
	control, final := m.first&0x8 != 0, m.first&0x80 != 0
	switch {
	case m.first == Close: // the library reads nothing after it
		return true
	case m.first == Pong && asked.Swap(false):
		return true
	case !control && final:
		m.idleAt -= int64(idlePause)
		return true
	case !control && m.left > 0:
		return true
	}
	now := time.Now().UnixNano()
	if m.idleAt < now || m.idleAt > now+int64(idleBurst*idlePause) { // the latter if the clock was set back
		m.idleAt = now
	}
	m.idleAt += int64(idlePause)
	return m.idleAt <= now+int64(idleBurst*idlePause)
}
