package wsconn

import (
	"sync"

	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

var pingFrame = []byte{wsframe.Ping, 0}

// Frame is an encoded text message, to write to any number of connections. It
// is immutable and safe for concurrent use.
type Frame struct {
	wire  []byte
	text  []byte        // the end of wire
	small func() []byte // the wire of a compressed frame; nil if it has none
}

// NewFrame encodes text, which must be UTF-8, and copies it. No connection gets
// it compressed.
func NewFrame(text []byte) *Frame {
	wire := wsframe.New(wsframe.Text, text)
	return &Frame{wire: wire, text: wire[len(wire)-len(text):]}
}

// NewCompressedFrame is [NewFrame] for a text that connections get compressed
// if they have negotiated it; see [Config].Compress. The first of them
// compresses it, for all. This takes about 5 ns a byte, so use it for texts
// that many connections get, and not for short ones.
//
// Do not compress a secret in one frame with text that others choose: the
// length of the frame tells them how much of their text is in the secret.
func NewCompressedFrame(text []byte) *Frame {
	f := NewFrame(text)
	f.small = sync.OnceValue(func() []byte {
		small := wsframe.New(wsframe.Text|wsframe.RSV1, compress(f.text))
		if len(small) >= len(f.wire) {
			return f.wire
		}
		return small
	})
	return f
}

// Text returns the text of the frame, for clients that get it by other means. It
// is not a copy, so do not change it.
func (f *Frame) Text() []byte { return f.text }

// Len returns the size of the frame on the wire, in bytes, without compression.
func (f *Frame) Len() int { return len(f.wire) }

// wireOf returns what c sends for f.
func (c *Conn) wireOf(f *Frame) []byte {
	if c.deflate && f.small != nil {
		return f.small()
	}
	return f.wire
}
