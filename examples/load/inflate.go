//go:build unix

package main

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strings"
	"sync"
)

// offer is what load offers with -deflate (RFC 7692, section 7.1). The server
// must then compress each message by itself, so that no viewer needs memory for
// the context of the messages before.
const offer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

// agreed reports whether the server has accepted the offer. It returns an error
// for any other answer.
func agreed(header []string) (bool, error) {
	answer := strings.Join(header, ",")
	if answer == "" {
		return false, nil
	}
	accepted := false
	for i, word := range strings.Split(answer, ";") {
		switch word = strings.TrimSpace(word); {
		case i == 0 && word == "permessage-deflate", i > 0 && word == "client_no_context_takeover":
		case i > 0 && word == "server_no_context_takeover":
			accepted = true
		default:
			return false, fmt.Errorf("the server has agreed to %q, which was not offered", answer)
		}
	}
	if !accepted {
		return false, fmt.Errorf("the server has agreed to %q, without server_no_context_takeover, which was offered", answer)
	}
	return true, nil
}

// Bounds of a compressed message, in bytes.
const (
	maxPacked   = 1 << 20
	maxUnpacked = 16 << 20
)

// unpacked holds the newest compressed messages with their texts. A server
// sends the same bytes to many viewers. Otherwise load would spend most of its
// time on decompressing them again and again.
var unpacked recent

type recent struct {
	mu    sync.RWMutex
	slots [16]struct{ packed, text []byte }
	next  int
}

// unpack returns the text of a compressed message. The caller must not change
// it.
func (r *recent) unpack(packed []byte) ([]byte, error) {
	r.mu.RLock()
	for i := range r.slots {
		if s := &r.slots[i]; s.text != nil && bytes.Equal(s.packed, packed) {
			defer r.mu.RUnlock()
			return s.text, nil
		}
	}
	r.mu.RUnlock()
	// The end of every message (section 7.2.1), and a last block.
	tail := strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(io.MultiReader(bytes.NewReader(packed), tail)), maxUnpacked+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: a message that cannot be decompressed", errProtocol)
	case len(text) > maxUnpacked:
		return nil, fmt.Errorf("%w: a compressed message of more than %d bytes", errProtocol, maxUnpacked)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.slots[r.next]
	r.next = (r.next + 1) % len(r.slots)
	s.packed, s.text = bytes.Clone(packed), text
	return text, nil
}

// inflate passes the text of a compressed message to s, when its last piece has
// arrived.
func (r *frameReader) inflate(piece []byte, last bool, s sink) error {
	if len(r.packed)+len(piece) > maxPacked {
		return fmt.Errorf("%w: a compressed message of more than %d bytes", errProtocol, maxPacked)
	}
	if !last || len(r.packed) > 0 {
		r.packed = append(r.packed, piece...)
		piece = r.packed
	}
	if !last {
		return nil
	}
	r.packed = nil
	text, err := unpacked.unpack(piece)
	if err != nil {
		return err
	}
	return s.data(text, true)
}
