//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

func TestEvents(t *testing.T) {
	for _, row := range []struct {
		why, in string
		want    []string
		err     error
	}{
		{"nothing", "", nil, nil},
		{"an event in a chunk", chunk("id: p\ndata: a\n\n"), []string{"message a"}, nil},
		{"an event in several", chunk("retry: 1\n\nid: ") + chunk("p\nda") + chunk("ta: a") + chunk("b\n") + chunk("\n"), []string{"message ab"}, nil},
		{"several in one, with a comment", chunk("data: a\n\n:\n\ndata: b\n\n"), []string{"message a", "message b"}, nil},
		{"data that looks like a field", chunk("data: data: \n\n"), []string{"message data: "}, nil},
		{"the last", chunk("retry: 17000\nevent: close\ndata: {\"code\":1001,\"reason\":\"retry=17\"}\n\n"), []string{"control 8 \x03\xe9retry=17"}, nil},
		{"the end", chunk("data: a\n\n") + "0\r\n\r\n", []string{"message a"}, io.EOF},
		{"no chunk", "<html>", nil, errProtocol},
		{"a chunk without an end", "fffffffffffff\r\n", nil, errProtocol},
		{"a line without an end", chunk(strings.Repeat("x", 2*maxLine)), nil, errProtocol},
		{"a last event that is none", chunk("event: close\ndata: bye\n\n"), nil, errProtocol},
	} {
		for _, size := range []int{max(1, len(row.in)), 1, 3} {
			var r eventReader
			var got record
			var err error
			for piece := range slices.Chunk([]byte(row.in), size) {
				if err = r.feed(piece, &got); err != nil {
					break
				}
			}
			if !errors.Is(err, row.err) || !slices.Equal(got.events, row.want) {
				t.Errorf("%s, %d bytes at a time: %q, %v", row.why, size, got.events, err)
			}
		}
	}
}

func TestBesideSocket(t *testing.T) {
	for at, want := range map[string]string{"/ws": "/events", "/art/ws?a=b": "/art/events?a=b", "/": "/events"} {
		if got := besideSocket(at); got != want {
			t.Errorf("%s: %s", at, got)
		}
	}
}
