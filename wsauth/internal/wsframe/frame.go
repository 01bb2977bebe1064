// Package wsframe contains what the transports of package wsauth share: the
// frames that a server sends, a meter of the frames that a client sends, and a
// lock that works in the time of testing/synctest.
package wsframe

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// First bytes of frames that a server sends: FIN and the opcode (RFC 6455,
// section 5.2).
const (
	Text   = 0x80 | 0x1
	Binary = 0x80 | 0x2
	Close  = 0x80 | 0x8
	Ping   = 0x80 | 0x9
	Pong   = 0x80 | 0xA
)

// RSV1 is the bit of the first byte that marks a compressed message (RFC 7692,
// section 6).
const RSV1 = 0x40

const (
	maxControl = 125            // bytes of payload in a control frame
	maxReason  = maxControl - 2 // the code of a close frame takes two
)

// New encodes a frame whose first byte is head, and copies the payload.
func New(head byte, payload []byte) []byte {
	wire := make([]byte, 0, 10+len(payload))
	switch n := len(payload); {
	case n <= 125:
		wire = append(wire, head, byte(n))
	case n <= 0xffff:
		wire = binary.BigEndian.AppendUint16(append(wire, head, 126), uint16(n))
	default:
		wire = binary.BigEndian.AppendUint64(append(wire, head, 127), uint64(n))
	}
	return append(wire, payload...)
}

// NewClose encodes a close frame. If the code must not be sent (RFC 6455,
// section 7.4), the frame has neither code nor reason. A reason that is too
// long is cut between two characters.
func NewClose(code int, reason string) []byte {
	if !sendable(code) {
		return []byte{Close, 0}
	}
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) > maxReason {
		cut := maxReason
		for !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = reason[:cut]
	}
	frame := []byte{Close, byte(2 + len(reason))}
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
