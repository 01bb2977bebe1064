//go:build unix

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

// Opcodes (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// rsv1 marks a compressed message (RFC 7692, section 6).
const rsv1 = 0x40

// maxControl is the longest payload of a control frame, in bytes (section 5.5).
const maxControl = 125

var errProtocol = errors.New("the server broke the WebSocket protocol")

// sink is called by a frameReader. It must not keep the bytes after the call.
type sink interface {
	// data is called with the next piece of a message. If last is set, the
	// message ends with this piece.
	data(piece []byte, last bool) error
	// control is called with the payload of a ping, pong or close frame.
	control(op byte, payload []byte) error
}

// frameReader parses a server's frames as their bytes arrive. It keeps an
// incomplete header or control frame, but no part of a message that is not
// compressed. So ten thousand viewers can be in the middle of a large message
// at the same time.
type frameReader struct {
	head    [14]byte // the header so far
	headLen int

	inFrame bool
	fin     bool
	op      byte
	left    uint64 // the bytes of the payload that have not arrived
	message bool   // a fragmented message has begun and not ended

	ctl []byte // the payload of a control frame so far

	deflate    bool   // messages may be compressed
	compressed bool   // the present message is
	packed     []byte // a compressed message so far
}

// feed parses b and calls s with its content.
func (r *frameReader) feed(b []byte, s sink) error {
	for len(b) > 0 || r.inFrame && r.left == 0 {
		if !r.inFrame {
			used, err := r.header(b)
			if err != nil {
				return err
			}
			b = b[used:]
			continue
		}
		n := int(min(uint64(len(b)), r.left))
		piece := b[:n]
		b, r.left = b[n:], r.left-uint64(n)
		done := r.left == 0
		if done {
			r.inFrame = false
		}
		if err := r.payload(piece, done, s); err != nil {
			return err
		}
	}
	return nil
}

// payload passes a piece of a frame's payload to s. If done is set, the frame
// ends with this piece.
func (r *frameReader) payload(piece []byte, done bool, s sink) error {
	if r.op < opClose {
		r.message = !(r.fin && done)
		if r.compressed {
			return r.inflate(piece, r.fin && done, s)
		}
		return s.data(piece, r.fin && done)
	}
	if done && len(r.ctl) == 0 {
		return s.control(r.op, piece)
	}
	r.ctl = append(r.ctl, piece...)
	if !done {
		return nil
	}
	defer func() { r.ctl = nil }()
	return s.control(r.op, r.ctl)
}

// header parses the header of a frame, or a part of it, at the beginning of b.
// It returns how many bytes of b belong to the header.
func (r *frameReader) header(b []byte) (used int, err error) {
	need := 2
	for {
		if r.headLen >= 2 {
			switch r.head[1] & 0x7f {
			case 126:
				need = 4
			case 127:
				need = 10
			}
		}
		n := copy(r.head[r.headLen:need], b[used:])
		used += n
		r.headLen += n
		if r.headLen < 2 || r.headLen == 2 && r.head[1]&0x7f >= 126 {
			if used == len(b) {
				return used, nil
			}
			continue
		}
		if r.headLen < need {
			return used, nil
		}
		break
	}
	h := r.head[:need]
	r.headLen = 0
	r.fin, r.op = h[0]&0x80 != 0, h[0]&0x0f
	switch r.left = uint64(h[1] & 0x7f); r.left {
	case 126:
		r.left = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		r.left = binary.BigEndian.Uint64(h[2:])
	}
	reserved := h[0] & 0x70
	if r.deflate && (r.op == opText || r.op == opBinary) {
		r.compressed, reserved = reserved&rsv1 != 0, reserved&^rsv1
	}
	switch {
	case reserved != 0:
		return used, fmt.Errorf("%w: reserved bits without an extension", errProtocol)
	case h[1]&0x80 != 0:
		return used, fmt.Errorf("%w: a masked frame", errProtocol)
	case r.op > opBinary && r.op < opClose || r.op > opPong:
		return used, fmt.Errorf("%w: opcode %#x", errProtocol, r.op)
	case r.op >= opClose && (!r.fin || r.left > maxControl):
		return used, fmt.Errorf("%w: a control frame in pieces or too long", errProtocol)
	case r.op == opContinuation != r.message && r.op < opClose:
		return used, fmt.Errorf("%w: a message inside another, or a continuation of none", errProtocol)
	case r.left > 1<<62:
		return used, fmt.Errorf("%w: a frame of %d bytes", errProtocol, r.left)
	}
	r.inFrame = true
	return used, nil
}

// clientFrame returns payload in one frame, with a mask of zeros.
func clientFrame(op byte, payload []byte) []byte {
	return wire.AppendFrame(nil, 0x80|op, payload, [4]byte{})
}

// closeCode returns the code in the payload of a close frame. If there is none,
// it is 1005 (RFC 6455, section 7.1.5).
func closeCode(payload []byte) int {
	if len(payload) < 2 {
		return 1005
	}
	return int(binary.BigEndian.Uint16(payload))
}

// readFrames parses the frames in r until it ends. It is for a connection with
// little traffic, because it holds a buffer all the time.
func readFrames(r io.Reader, s sink) error {
	var frames frameReader
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		if ferr := frames.feed(buf[:n], s); ferr != nil {
			return ferr
		}
		if err != nil {
			return err
		}
	}
}
