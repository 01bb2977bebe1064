package wsconn

import "github.com/relayguard/relayguard/wsauth/internal/wsframe"

var pingFrame = []byte{wsframe.Ping, 0}

// Frame is an encoded text message, to write to any number of connections. It
// is immutable and safe for concurrent use.
type Frame struct{ wire []byte }

// NewFrame encodes text, which must be UTF-8, and copies it.
func NewFrame(text []byte) *Frame { return &Frame{wsframe.New(wsframe.Text, text)} }

// Len returns the size of the frame on the wire, in bytes.
func (f *Frame) Len() int { return len(f.wire) }
