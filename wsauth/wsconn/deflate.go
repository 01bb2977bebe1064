package wsconn

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"

	"github.com/relayguard/relayguard/wsauth"
)

// flushed is the end of a compressed message, which is not sent (RFC 7692,
// section 7.2.1). finished is an empty block that is marked as the last one.
const (
	flushed  = "\x00\x00\xff\xff"
	finished = "\x01\x00\x00\xff\xff"
)

// compressors hold *flate.Writer. A higher level takes several times as long
// and saves a tenth: see BenchmarkCompress.
var compressors = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is valid
	return w
}}

// compress returns the payload of a compressed message.
func compress(text []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(text)/4 + 64)
	w := compressors.Get().(*flate.Writer)
	defer compressors.Put(w)
	w.Reset(&out)
	_, _ = w.Write(text) // a Buffer takes everything
	_ = w.Flush()
	return bytes.TrimSuffix(out.Bytes(), []byte(flushed))
}

// maxLimit keeps the sums below from overflowing.
const maxLimit = 1 << 40

// longest returns the size of the longest payload that a compressor makes of
// limit bytes. With the fixed codes of Deflate a byte takes nine bits at most
// (RFC 1951, section 3.2.6). A longer payload has blocks that deliver nothing.
func longest(limit int64) int64 { return min(limit, maxLimit)*9/8 + 64 }

var decompressors = sync.Pool{New: func() any { return flate.NewReader(bytes.NewReader(nil)) }}

// decompress returns the message in the payload of a compressed message, whose
// slice it may extend. If the message is larger than limit, it returns
// [wsauth.ErrTooBig]. It makes at most one byte more than limit, so that a
// small payload cannot fill the memory.
func decompress(payload []byte, limit int64) ([]byte, error) {
	limit = min(limit, maxLimit)
	r := decompressors.Get().(io.Reader)
	defer decompressors.Put(r)
	input := bytes.NewReader(append(payload, flushed+finished...))
	_ = r.(flate.Resetter).Reset(input, nil) // never fails
	msg, err := io.ReadAll(io.LimitReader(r, limit+1))
	input.Reset(nil) // r stays in the pool
	switch {
	case err != nil:
		return nil, errCompressed
	case int64(len(msg)) > limit:
		return nil, wsauth.ErrTooBig
	}
	return msg, nil
}

var errCompressed = errors.New("not a compressed message")
