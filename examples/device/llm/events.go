package llm

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxEvent is the largest event that is looked at, in bytes. A delta has a few dozen.
const maxEvent = 256 << 10

// errTooLong is a line or an event of more than maxEvent. What follows can be read.
var errTooLong = errors.New("llm: an event is too long")

// events reads a text/event-stream, as the HTML standard lays it down: lines end with
// LF, CR or both, those that begin with a colon are comments, an event ends with an
// empty line, and one that the stream ends in is none.
type events struct {
	r     *bufio.Reader
	begun bool // past the place where a byte order mark may be
	sawCR bool // the last line ended with CR, so that LF after it belongs to it
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

// line returns the next line without its end. It does not wait for what follows the
// end, which may be long in coming.
func (e *events) line() (line []byte, err error) {
	if !e.begun {
		e.begun = true
		if mark, err := e.r.Peek(1); err == nil && mark[0] == 0xEF {
			if mark, err = e.r.Peek(3); err == nil && string(mark) == "\uFEFF" {
				_, _ = e.r.Discard(3)
			}
		}
	}
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
