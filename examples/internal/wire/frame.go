package wire

import "encoding/binary"

// AppendHeader appends the header of a client's frame (RFC 6455, section 5.2)
// to dst. first is its first byte: FIN, the reserved bits and the opcode.
// length is the length that the header announces; the caller must append as
// many bytes, unless it tests a peer.
func AppendHeader(dst []byte, first byte, length uint64, mask [4]byte) []byte {
	dst = append(dst, first)
	switch {
	case length <= 125:
		dst = append(dst, 0x80|byte(length))
	case length < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(length))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), length)
	}
	return append(dst, mask[:]...)
}

// AppendFrame appends a client's whole frame to dst. Masking protects proxies
// from bytes that a page's script could make a browser send. A client that runs
// no scripts, or that must show its bytes unmasked, can use a mask of zeros.
func AppendFrame(dst []byte, first byte, payload []byte, mask [4]byte) []byte {
	dst = AppendHeader(dst, first, uint64(len(payload)), mask)
	at := len(dst)
	dst = append(dst, payload...)
	if mask != [4]byte{} {
		for i := range payload {
			dst[at+i] ^= mask[i%4]
		}
	}
	return dst
}
