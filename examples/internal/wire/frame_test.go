package wire_test

import (
	"bytes"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

func TestAppendFrame(t *testing.T) {
	// RFC 6455, section 5.7: a single-frame masked text message, "Hello".
	want := []byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}
	if got := wire.AppendFrame(nil, 0x81, []byte("Hello"), [4]byte{0x37, 0xfa, 0x21, 0x3d}); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
	for _, row := range []struct {
		why  string
		size int
		head []byte
	}{
		{"nothing", 0, []byte{0x82, 0x80}},
		{"the longest of 7 bits", 125, []byte{0x82, 0x80 | 125}},
		{"the shortest of 16", 126, []byte{0x82, 0x80 | 126, 0, 126}},
		{"the longest of 16", 65535, []byte{0x82, 0x80 | 126, 0xff, 0xff}},
		{"the shortest of 64", 65536, []byte{0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0}},
	} {
		payload := bytes.Repeat([]byte{7}, row.size)
		got := wire.AppendFrame([]byte("before"), 0x82, payload, [4]byte{})
		want := append(append(append([]byte("before"), row.head...), 0, 0, 0, 0), payload...)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: % .20x, want % .20x", row.why, got, want)
		}
	}
}
