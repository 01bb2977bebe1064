package sse_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history/sse"
)

// event is an event as a browser dispatches it.
type event struct{ name, id, data string }

// events reads a stream as the HTML standard says in section 9.2.6. It is
// written from the standard, and shares nothing with the package.
type events struct {
	r     *bufio.Reader
	id    string // the last one, which later events inherit
	pings int    // comments
}

// errQuiet ends a test that waits for an event which does not come.
var errQuiet = errors.New("nothing but pings")

func newEvents(r io.Reader) *events { return &events{r: bufio.NewReader(r)} }

// line returns the next line. A line ends with "\n", "\r" or "\r\n".
func (e *events) line() (string, error) {
	var line []byte
	for {
		c, err := e.r.ReadByte()
		switch {
		case err != nil:
			return "", err
		case c == '\r':
			if next, err := e.r.Peek(1); err == nil && next[0] == '\n' {
				e.r.ReadByte()
			}
			return string(line), nil
		case c == '\n':
			return string(line), nil
		}
		line = append(line, c)
	}
}

// next returns the next event. An event that the stream does not complete is
// discarded.
func (e *events) next() (event, error) {
	var name, data string
	for {
		line, err := e.line()
		if err != nil {
			return event{}, err
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data == "":
			name = ""
		case line == "":
			return event{name, e.id, strings.TrimSuffix(data, "\n")}, nil
		case line[0] == ':':
			if e.pings++; e.pings > 1000 {
				return event{}, errQuiet
			}
		case field == "event":
			name = value
		case field == "data":
			data += value + "\n"
		case field == "id" && !strings.Contains(value, "\x00"):
			e.id = value
		}
	}
}

// unified returns s with each line end as "\n".
func unified(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

func TestFraming(t *testing.T) {
	for _, row := range []struct{ why, data, want string }{
		{"one line", "hello", "id: 7\ndata: hello\n\n"},
		{"nothing is an event too", "", "id: 7\ndata: \n\n"},
		{"a space at the begin is kept", " x", "id: 7\ndata:  x\n\n"},
		{"two lines", "a\nb", "id: 7\ndata: a\ndata: b\n\n"},
		{"a line end at the end", "a\n", "id: 7\ndata: a\ndata: \n\n"},
		{"an empty line would end the event", "a\n\nevent: end", "id: 7\ndata: a\ndata: \ndata: event: end\n\n"},
		{"a line end of Windows is one", "a\r\nb", "id: 7\ndata: a\ndata: b\n\n"},
		{"a lone return ends a line too", "a\rid: 9\r\rb", "id: 7\ndata: a\ndata: id: 9\ndata: \ndata: b\n\n"},
		{"the wrong way round they are two", "a\n\rb", "id: 7\ndata: a\ndata: \ndata: b\n\n"},
		{"a return at the end", "a\r", "id: 7\ndata: a\ndata: \n\n"},
		{"other line ends of Unicode are none", "a\u2028b\vc\u0085d", "id: 7\ndata: a\u2028b\vc\u0085d\n\n"},
	} {
		if got := string(sse.AppendEvent(nil, "", "7", []byte(row.data))); got != row.want {
			t.Errorf("%s: got %q, want %q", row.why, got, row.want)
		}
	}
}

// Whatever the data is, the client gets it in one event, and the events after
// it are not affected.
func FuzzFraming(f *testing.F) {
	for _, s := range []string{"", "hello", "a\nb\r\nc\rd", "\n\n", "\r\r\n\n\r", "x\n\ndata: y\nid: z\nevent: end\n\n", ": ping", "\x00\xff\ufeff"} {
		f.Add([]byte(s), []byte("second"))
	}
	f.Fuzz(func(t *testing.T, data, second []byte) {
		stream := sse.AppendEvent(nil, "", "1", data)
		stream = sse.AppendEvent(stream, "reset", "", second)
		stream = sse.AppendEvent(stream, "end", "2", nil)
		r := newEvents(bytes.NewReader(stream))
		for _, want := range []event{{"", "1", unified(string(data))}, {"reset", "1", unified(string(second))}, {"end", "2", ""}} {
			if got, err := r.next(); err != nil || got != want {
				t.Fatalf("got %q, %v, want %q, of %q", got, err, want, stream)
			}
		}
		if got, err := r.next(); err != io.EOF || r.pings > 0 {
			t.Fatalf("one more: %q, %v", got, err)
		}
	})
}
