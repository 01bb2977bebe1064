package llm

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxEvent is the longest line, and the longest data of an event, in bytes. A
// piece of text usually has a few dozen.
const maxEvent = 256 << 10

// errTooLong means that an event was longer than maxEvent and was skipped. The
// events after it can be read.
var errTooLong = errors.New("llm: an event is too long")

// events reads a text/event-stream (HTML standard, section "Server-sent
// events"). Lines end with LF, CR or CR LF. A line that begins with a colon is
// a comment. An event ends with an empty line, so an incomplete one at the end
// of the stream is ignored.
type events struct {
	r     *bufio.Reader
	begun bool // a byte order mark can no longer follow
	sawCR bool // the last byte was CR, so an LF belongs to the same line end
}

func newEvents(r io.Reader) *events { return &events{r: bufio.NewReader(r)} }

// next returns the name and the data of the next event that has data.
func (e *events) next() (name string, data []byte, err error) {
	var lines, size int
	var tooLong bool
	for {
		line, err := e.line()
		if errors.Is(err, errTooLong) {
			tooLong = true
			continue
		}
		if err != nil {
			return "", nil, err
		}
		if len(line) == 0 {
			if tooLong {
				return "", nil, errTooLong
			}
			if lines > 0 {
				return name, data, nil
			}
			name = ""
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "error": // of llama.cpp, in place of data
			name, data, size = "error", append([]byte(nil), value...), len(value)
			lines++
		case "event":
			name = string(value)
		case "data":
			if size += len(value) + 1; size > maxEvent {
				tooLong, data = true, nil
				continue
			}
			if lines++; lines > 1 {
				data = append(data, '\n')
			}
			data = append(data, value...)
		}
	}
}

// document returns the body, at most maxDocument bytes of it, if it is JSON and
// no stream of events. It reads as far as the first character.
func (e *events) document() ([]byte, bool) {
	e.mark()
	for {
		first, err := e.r.Peek(1)
		switch {
		case err != nil:
			return nil, false
		case first[0] == '{', first[0] == '[':
			data, _ := io.ReadAll(io.LimitReader(e.r, maxDocument))
			return data, true
		case first[0] != ' ' && first[0] != '\t' && first[0] != '\r' && first[0] != '\n':
			return nil, false
		}
		_, _ = e.r.Discard(1)
	}
}

// mark discards a byte order mark at the beginning.
func (e *events) mark() {
	if e.begun {
		return
	}
	e.begun = true
	if mark, err := e.r.Peek(1); err == nil && mark[0] == 0xEF {
		if mark, err = e.r.Peek(3); err == nil && string(mark) == "\uFEFF" {
			_, _ = e.r.Discard(3)
		}
	}
}

// line returns the next line without its line end. It does not wait for the
// byte after the line end, which may arrive much later.
func (e *events) line() (line []byte, err error) {
	e.mark()
	tooLong := false
	for {
		c, err := e.r.ReadByte()
		if err != nil {
			return nil, err
		}
		after := e.sawCR
		e.sawCR = c == '\r'
		switch {
		case c == '\n' && after && len(line) == 0 && !tooLong:
			continue
		case c == '\n', c == '\r':
			if tooLong {
				return nil, errTooLong
			}
			return line, nil
		case len(line) == maxEvent:
			line, tooLong = nil, true
		case !tooLong:
			line = append(line, c)
		}
	}
}
