package llm

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

// Events do not depend on how reads split them or on the kind of line end, and
// are never longer than their limit.
func FuzzEvents(f *testing.F) {
	for _, s := range []string{
		"data: a\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\rdata: b\r\r", ": c\n\ndata\n\n", "event: e\ndata: a\n\n",
		"\uFEFFdata: a\n\n", "\xEFdata: a\n\n", "data: a", "\n\n\n", "data:a\r\n\ndata:b\n\r", "data:  two\n\nid: 7\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole := all(t, bytes.NewReader(data))
		if split := all(t, iotest.OneByteReader(bytes.NewReader(data))); !slices.Equal(whole, split) {
			t.Fatalf("%q and, byte by byte, %q", whole, split)
		}
		// All line ends are the same.
		if !bytes.ContainsRune(data, '\r') {
			crlf := all(t, bytes.NewReader(bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))))
			cr := all(t, bytes.NewReader(bytes.ReplaceAll(data, []byte("\n"), []byte("\r"))))
			if !slices.Equal(whole, crlf) || !slices.Equal(whole, cr) {
				t.Fatalf("LF %q, CRLF %q, CR %q", whole, crlf, cr)
			}
		}
	})
}

func all(t *testing.T, r io.Reader) (events []string) {
	for e := newEvents(r); ; {
		name, data, err := e.next()
		switch {
		case errors.Is(err, errTooLong):
			events = append(events, "too long")
		case err == io.EOF:
			return events
		case err != nil:
			t.Fatal(err)
		case len(data) > maxEvent || bytes.ContainsRune(data, '\r'):
			t.Fatalf("%d bytes, or a line end inside", len(data))
		default:
			events = append(events, name+"|"+string(data))
		}
	}
}

func TestEvents(t *testing.T) {
	for in, want := range map[string][]string{
		"data: a\n\ndata: b\n\n":          {"|a", "|b"},
		"data: a\ndata:  b\n\n":           {"|a\n b"},
		"event: e\ndata: a\n\ndata:b\n\n": {"e|a", "|b"},
		"event: e\n\ndata: a\n\n":         {"|a"}, // a name without data is no event, and not the name of the next one
		": comment\nother: x\ndata\n\n":   {"|"},
		"data: a\n":                       nil, // the stream ends within the event
		"data: a\r\n\r\ndata: b\r\n\r\n":  {"|a", "|b"},
		"\uFEFFdata: a\n\n":               {"|a"},
	} {
		if got := all(t, bytes.NewReader([]byte(in))); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	// An event is returned as soon as its end has arrived.
	r, w := io.Pipe()
	go func() { _, _ = io.WriteString(w, "data: a\r\r") }()
	if _, data, err := newEvents(r).next(); string(data) != "a" || err != nil {
		t.Errorf("%q %v", data, err)
	}
}
