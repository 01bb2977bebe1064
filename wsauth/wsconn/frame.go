package wsconn

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// First bytes of frames that a server sends: FIN and the opcode (RFC 6455,
// section 5.2).
const (
	headText   = 0x80 | 0x1
	headBinary = 0x80 | 0x2
	headClose  = 0x80 | 0x8
	headPing   = 0x80 | 0x9
	headPong   = 0x80 | 0xA
)

const (
	maxControl = 125            // bytes of payload in a control frame
	maxReason  = maxControl - 2 // the code of a close frame takes two
)

var pingFrame = []byte{headPing, 0}

// Frame is an encoded text message, to write to any number of connections. It
// is immutable and safe for concurrent use.
type Frame struct{ wire []byte }

// NewFrame encodes text, which must be UTF-8, and copies it.
func NewFrame(text []byte) *Frame { return newFrame(headText, text) }

func newFrame(head byte, payload []byte) *Frame {
	wire := make([]byte, 0, 10+len(payload))
	switch n := len(payload); {
	case n <= 125:
		wire = append(wire, head, byte(n))
	case n <= 0xffff:
		wire = binary.BigEndian.AppendUint16(append(wire, head, 126), uint16(n))
	default:
		wire = binary.BigEndian.AppendUint64(append(wire, head, 127), uint64(n))
	}
	return &Frame{append(wire, payload...)}
}

// Len returns the size of the frame on the wire, in bytes.
func (f *Frame) Len() int { return len(f.wire) }

// closeFrame encodes a close frame. If the code must not be sent (RFC 6455,
// section 7.4), the frame has neither code nor reason. A reason that is too
// long is cut between two characters.
func closeFrame(code int, reason string) []byte {
	if !sendable(code) {
		return []byte{headClose, 0}
	}
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) > maxReason {
		cut := maxReason
		for !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = reason[:cut]
	}
	frame := []byte{headClose, byte(2 + len(reason))}
	frame = binary.BigEndian.AppendUint16(frame, uint16(code))
	return append(frame, reason...)
}

func sendable(code int) bool {
	switch code {
	case 1004, 1005, 1006:
		return false
	}
	return 1000 <= code && code <= 1014 || 3000 <= code && code <= 4999
}
