//go:build unix

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// record is a sink that records whole messages.
type record struct {
	events []string
	buf    []byte
}

func (r *record) data(piece []byte, last bool) error {
	r.buf = append(r.buf, piece...)
	if last {
		r.events, r.buf = append(r.events, "message "+string(r.buf)), nil
	}
	return nil
}

func (r *record) control(op byte, payload []byte) error {
	r.events = append(r.events, fmt.Sprintf("control %d %s", op, payload))
	return nil
}

// serverFrame returns payload in one frame, without a mask, as servers send it.
func serverFrame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// bytesRow is what a frameReader finds in the bytes of a server.
type bytesRow struct {
	why  string
	in   []byte
	want []string
	bad  bool
}

// check feeds the bytes to r, size of them at a time.
func (row bytesRow) check(t *testing.T, r frameReader, size int) {
	t.Helper()
	var got record
	var err error
	for piece := range slices.Chunk(row.in, size) {
		if err = r.feed(piece, &got); err != nil {
			break
		}
	}
	if errors.Is(err, errProtocol) != row.bad || err != nil && !row.bad || !slices.Equal(got.events, row.want) {
		t.Errorf("%s, %d bytes at a time: %.100q, %v", row.why, size, got.events, err)
	}
}

func TestFrames(t *testing.T) {
	long, longer := strings.Repeat("x", 200), strings.Repeat("y", 70_000)
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, row := range []bytesRow{
		{"nothing", nil, nil, false},
		{"one", serverFrame(0x81, "a"), []string{"message a"}, false},
		{"an empty one", serverFrame(0x81, ""), []string{"message "}, false},
		{"each form of the length", cat(serverFrame(0x81, "a"), serverFrame(0x81, long), serverFrame(0x82, longer)),
			[]string{"message a", "message " + long, "message " + longer}, false},
		{"in fragments, with a ping between", cat(serverFrame(0x01, "a"), serverFrame(0x89, "p"), serverFrame(0x00, ""), serverFrame(0x80, "b")),
			[]string{"control 9 p", "message ab"}, false},
		{"a close", serverFrame(0x88, "\x03\xe9bye"), []string{"control 8 \x03\xe9bye"}, false},
		{"cut off in the header", []byte{0x81, 126, 1}, nil, false},
		{"cut off in the payload", []byte{0x81, 3, 'a'}, nil, false},
		{"masked", []byte{0x81, 0x81, 0, 0, 0, 0, 'a'}, nil, true},
		{"compressed without being asked", serverFrame(0xc1, "a"), nil, true},
		{"an unknown opcode", serverFrame(0x83, "a"), nil, true},
		{"a ping in fragments", serverFrame(0x09, "a"), nil, true},
		{"a ping that is too long", serverFrame(0x89, long), nil, true},
		{"a continuation of no message", serverFrame(0x80, "a"), nil, true},
		{"a message inside a message", cat(serverFrame(0x01, "a"), serverFrame(0x81, "b")), nil, true},
		{"a length of 2^63", append([]byte{0x81, 127, 0x80}, make([]byte, 7)...), nil, true},
	} {
		// Feed it in one piece, and byte by byte.
		for _, size := range []int{max(1, len(row.in)), 1} {
			row.check(t, frameReader{}, size)
		}
	}
}

// The messages do not depend on how their bytes arrive.
func FuzzFrames(f *testing.F) {
	f.Add(serverFrame(0x81, "hello"), uint64(1))
	f.Add(append(serverFrame(0x01, "a"), serverFrame(0x80, strings.Repeat("b", 300))...), uint64(2))
	f.Add(append(serverFrame(0x89, "ping"), serverFrame(0x88, "\x03\xe8")...), uint64(3))
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		var whole, parts frameReader
		var a, b record
		errA := whole.feed(in, &a)
		var errB error
		r := rand.New(rand.NewPCG(seed, 0))
		for rest := in; len(rest) > 0 && errB == nil; {
			n := 1 + r.IntN(len(rest))
			errB, rest = parts.feed(rest[:n], &b), rest[n:]
		}
		if !slices.Equal(a.events, b.events) || (errA == nil) != (errB == nil) {
			t.Fatalf("at once %q, %v; in parts %q, %v", a.events, errA, b.events, errB)
		}
	})
}

func TestParseStat(t *testing.T) {
	good := "7 (a (b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 5 0 100 1000000 300 18446744073709551615"
	cpu, rss, err := parseStat([]byte(good))
	if err != nil || cpu.Seconds() != 3 || rss <= 0 || rss%300 != 0 {
		t.Errorf("%v, %d, %v", cpu, rss, err)
	}
	for _, bad := range []string{"", "7 (a) S 1", "7 (a) " + strings.Repeat("x ", 30)} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
