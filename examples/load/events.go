//go:build unix

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
)

// besideSocket returns the path of the events of a server whose WebSocket has
// this path, with its query.
func besideSocket(uri string) string {
	at, query, found := strings.Cut(uri, "?")
	to := path.Join(path.Dir(at), "events")
	if found {
		to += "?" + query
	}
	return to
}

// maxLine is the longest line of an event but its data, in bytes.
const maxLine = 1 << 10

var errEvents = fmt.Errorf("%w: not a stream of events", errProtocol)

// eventReader parses server-sent events in chunks (RFC 9112, section 7.1) as
// their bytes arrive. It keeps no part of the data.
type eventReader struct {
	left   int  // the bytes of the chunk that have not arrived
	size   int  // of the next chunk, as far as it has arrived
	digits bool // some of it has arrived

	line   []byte
	inData bool // the line's data is passed on as it arrives
	last   bool // it is the event with which the server ends the stream
}

// feed parses b and calls s with the data of each event. At the end of the
// stream it returns [io.EOF], and calls s.control with the close frame that a
// WebSocket would have got.
func (r *eventReader) feed(b []byte, s sink) error {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(len(b), r.left)
			if err := r.lines(b[:n], s); err != nil {
				return err
			}
			b, r.left = b[n:], r.left-n
			continue
		}
		c := b[0]
		b = b[1:]
		switch digit := bytes.IndexByte([]byte("0123456789abcdef"), c|0x20); {
		case digit >= 0:
			r.size, r.digits = r.size<<4|digit, true
		case c == '\n' && r.digits:
			if r.size == 0 {
				return io.EOF
			}
			r.left, r.size, r.digits = r.size, 0, false
		case c != '\r' && c != '\n' || r.size > 1<<30:
			return errEvents
		}
	}
	return nil
}

func (r *eventReader) lines(b []byte, s sink) error {
	for len(b) > 0 {
		if r.inData {
			end := bytes.IndexByte(b, '\n')
			if end < 0 {
				return s.data(b, false)
			}
			if err := s.data(b[:end], true); err != nil {
				return err
			}
			b, r.inData = b[end+1:], false
			continue
		}
		c := b[0]
		b = b[1:]
		if c == '\n' {
			if err := r.whole(s); err != nil {
				return err
			}
			r.line = r.line[:0]
			continue
		}
		r.line = append(r.line, c)
		switch {
		case len(r.line) > maxLine:
			return errEvents
		case !r.last && string(r.line) == "data: ":
			r.line, r.inData = r.line[:0], true
		}
	}
	return nil
}

// whole takes a line that is not data of a message.
func (r *eventReader) whole(s sink) error {
	if string(r.line) == "event: close" {
		r.last = true
	}
	text, found := bytes.CutPrefix(r.line, []byte("data: "))
	if !found {
		return nil
	}
	var why struct {
		Code   uint16
		Reason string
	}
	if err := json.Unmarshal(text, &why); err != nil {
		return errEvents
	}
	return s.control(opClose, append(binary.BigEndian.AppendUint16(nil, why.Code), why.Reason...))
}
