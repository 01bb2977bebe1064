//go:build unix

package main

import (
	"bytes"
	"compress/flate"
	"io"
	"strings"
	"testing"
)

// squeeze compresses a message as a server does (RFC 7692, section 7.2.1).
func squeeze(text string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestSpeed)
	io.WriteString(w, text)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

func TestAgreed(t *testing.T) {
	for _, row := range []struct {
		why    string
		header []string
		want   bool
		bad    bool
	}{
		{"declined", nil, false, false},
		{"an empty header", []string{""}, false, false},
		{"accepted", []string{"permessage-deflate; server_no_context_takeover; client_no_context_takeover"}, true, false},
		{"without what load does not need", []string{"permessage-deflate;server_no_context_takeover"}, true, false},
		{"each message would need those before", []string{"permessage-deflate"}, false, true},
		{"a window that was not offered", []string{"permessage-deflate; server_no_context_takeover; server_max_window_bits=10"}, false, true},
		{"another extension", []string{"permessage-bzip2; server_no_context_takeover"}, false, true},
		{"two extensions", []string{"permessage-deflate; server_no_context_takeover", "x"}, false, true},
	} {
		if got, err := agreed(row.header); got != row.want || (err != nil) != row.bad {
			t.Errorf("%s: %t, %v", row.why, got, err)
		}
	}
}

func TestCompressedFrames(t *testing.T) {
	long := strings.Repeat("a long text ", 10_000)
	packed := squeeze(long)
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, row := range []bytesRow{
		{"one", serverFrame(0xc1, squeeze("a")), []string{"message a"}, false},
		{"an empty one", serverFrame(0xc1, "\x00"), []string{"message "}, false},
		{"a long one", serverFrame(0xc1, packed), []string{"message " + long}, false},
		{"the same again, between plain ones", cat(serverFrame(0x81, "a"), serverFrame(0xc1, packed), serverFrame(0x81, "b"), serverFrame(0xc1, packed)),
			[]string{"message a", "message " + long, "message b", "message " + long}, false},
		{"in fragments, with a ping between", cat(serverFrame(0x41, packed[:9]), serverFrame(0x89, "p"), serverFrame(0x00, packed[9:20]), serverFrame(0x80, packed[20:])),
			[]string{"control 9 p", "message " + long}, false},
		{"cut off in the payload", serverFrame(0xc1, packed)[:40], nil, false},
		{"not compressed", serverFrame(0xc1, "\xff\xff"), nil, true},
		{"RSV1 on a continuation", cat(serverFrame(0x41, packed[:9]), serverFrame(0xc0, packed[9:])), nil, true},
		{"RSV1 on a ping", serverFrame(0xc9, ""), nil, true},
		{"RSV2", serverFrame(0xe1, packed), nil, true},
		{"more than a message may have", serverFrame(0xc1, strings.Repeat("x", maxPacked+1)), nil, true},
		{"a bomb", serverFrame(0xc1, squeeze(strings.Repeat("x", maxUnpacked+1))), nil, true},
	} {
		for _, size := range []int{max(1, len(row.in)), 1000} {
			row.check(t, frameReader{deflate: true}, size)
		}
	}
}
