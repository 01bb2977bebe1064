package wsframe_test

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// The bit is cleared only where a message begins, and reported in the order of
// the messages, however the bytes are cut.
func TestScanCompressed(t *testing.T) {
	const packed = wsframe.Text | wsframe.RSV1
	first := func(head byte, payload string) []byte { return client(head, payload) }
	in := slices.Concat(
		first(packed, "a"), first(wsframe.Text, "b"), first(wsframe.Ping, "p"),
		first(packed&^0x80, "c"), first(wsframe.Pong, ""), first(0x00, "more"), first(0x80, "end"),
		first(wsframe.Binary|wsframe.RSV1, strings.Repeat("\xc1", 300)), first(packed, ""),
		first(0x80|wsframe.RSV1, "a continuation keeps it"), first(wsframe.Ping|wsframe.RSV1, "a ping too"), first(wsframe.Text, "d"),
	)
	want := slices.Concat(
		first(wsframe.Text, "a"), first(wsframe.Text, "b"), first(wsframe.Ping, "p"),
		first(0x01, "c"), first(wsframe.Pong, ""), first(0x00, "more"), first(0x80, "end"),
		first(wsframe.Binary, strings.Repeat("\xc1", 300)), first(wsframe.Text, ""),
		first(0x80|wsframe.RSV1, "a continuation keeps it"), first(wsframe.Ping|wsframe.RSV1, "a ping too"), first(wsframe.Text, "d"),
	)
	for _, size := range []int{1, 2, 7, len(in)} {
		var m wsframe.Meter
		var asked atomic.Bool
		got := bytes.Clone(in)
		for chunk := range slices.Chunk(got, size) {
			if !m.ScanCompressed(chunk, &asked) {
				t.Fatal("a flood")
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes at a time: %q, want %q", size, got, want)
		}
		var order []bool
		for range 7 {
			order = append(order, m.Compressed())
		}
		if !slices.Equal(order, []bool{true, false, true, true, true, false, false}) {
			t.Errorf("%d bytes at a time: %v", size, order)
		}
	}
}

// No library reads so far ahead. If one did, messages would be taken for
// others.
func TestScanCompressedAhead(t *testing.T) {
	var m wsframe.Meter
	var asked atomic.Bool
	for i := range 32 {
		if !m.ScanCompressed(client(wsframe.Text, ""), &asked) {
			t.Fatalf("message %d is refused", i)
		}
	}
	if m.ScanCompressed(client(wsframe.Text, ""), &asked) {
		t.Error("the 33rd message that waits is accepted")
	}
	m.Compressed()
	if !m.ScanCompressed(client(wsframe.Text, ""), &asked) {
		t.Error("no room after one was taken")
	}
}

// ScanCompressed counts as Scan does, and changes nothing but the bit.
func FuzzScanCompressed(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add(bytes.Repeat(client(wsframe.Ping, "x"), 101), uint8(3))
	f.Add(client(wsframe.Text|wsframe.RSV1, strings.Repeat("x", 700)), uint8(20))
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8) {
		synctest.Test(t, func(t *testing.T) { // in which no time passes
			var plain, packed wsframe.Meter
			var asked atomic.Bool
			out := bytes.Clone(in)
			for at := 0; at < len(in); at += int(chunk) + 1 {
				end := min(len(in), at+int(chunk)+1)
				want, got := plain.Scan(in[at:end], &asked), packed.ScanCompressed(out[at:end], &asked)
				for range 40 {
					packed.Compressed()
				}
				if chunk < 64 && got != want || plain.Closed() != packed.Closed() {
					t.Fatalf("%t, %t by Scan", got, want)
				}
			}
			for i := range in {
				if out[i] != in[i] && out[i] != in[i]&^wsframe.RSV1 {
					t.Fatalf("byte %d: %#x became %#x", i, in[i], out[i])
				}
			}
		})
	})
}
