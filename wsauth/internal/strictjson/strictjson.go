// Package strictjson reads one JSON value (RFC 8259) without building it in
// memory. It reports whether a message is JSON, and returns the members of an
// object as they were written, duplicates included, with bounded depth.
//
// encoding/json is not strict enough: of several members with the same name it
// keeps the last, and it ignores the case of names.
package strictjson

import (
	"errors"
	"math"
	"unicode/utf8"
)

// MaxDepth is the maximum depth of nested arrays and objects. A deeper value is
// refused, so that no input can use more than a small, fixed stack.
const MaxDepth = 32

// Errors of [Members]. They contain no part of the input.
var (
	ErrSyntax = errors.New("strictjson: not a JSON value")
	ErrDepth  = errors.New("strictjson: nested too deeply")
	ErrUTF8   = errors.New("strictjson: not UTF-8")
)

// Members reads one JSON value. If the value is an object, Next returns true
// for each of its members, in order. There are no callbacks, so nothing escapes
// to the heap.
//
//	for m.Next() {
//		… m.Name(), m.Value() …
//	}
//	if m.Err != nil { … }
//
// While Next returns true, the rest of the data is not checked yet: use the
// members only if Err is nil at the end.
type Members struct {
	Err error // after the last Next: nil if data is exactly one JSON value

	s           scanner
	begun, over bool
	// These are offsets, not slices: if a struct contains slices of its own
	// contents, the compiler puts it on the heap.
	name, colon, value int
}

// Name returns the name of the member as it was written, quotes included.
func (m *Members) Name() []byte { return m.s.data[m.name:m.colon] }

// Value returns the value of the member as it was written.
func (m *Members) Value() []byte { return m.s.data[m.value:m.s.pos] }

// Read returns the Members of data, which must be exactly one JSON value, with
// only white space around it.
func Read(data []byte) Members { return Members{s: scanner{data: data}} }

// Next moves to the next member. If there is none, or the value is not an
// object, Next checks the rest of the data, sets Err and returns false.
func (m *Members) Next() bool {
	s := &m.s
	switch {
	case m.over:
		return false
	case !m.begun:
		m.begun = true
		if !utf8.Valid(s.data) {
			return m.end(ErrUTF8)
		}
		s.space()
		if s.peek() != '{' {
			return m.end(s.value(0))
		}
		s.pos++
		s.space()
		if s.peek() == '}' {
			s.pos++
			return m.end(nil)
		}
	default:
		more, err := s.next('}')
		if err != nil || !more {
			return m.end(err)
		}
	}
	var err error
	m.name = s.pos
	if m.colon, err = s.name(); err != nil {
		return m.end(err)
	}
	m.value = s.pos
	if err := s.value(1); err != nil {
		return m.end(err)
	}
	return true
}

func (m *Members) end(err error) bool {
	m.over = true
	m.s.space()
	if err == nil && m.s.pos != len(m.s.data) {
		err = ErrSyntax
	}
	m.Err = err
	return false
}

// Check returns nil if data is exactly one JSON value.
func Check(data []byte) error {
	m := Read(data)
	for m.Next() {
	}
	return m.Err
}

type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		return s.text()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	return ErrSyntax
}

func (s *scanner) object(depth int) error {
	if depth == MaxDepth {
		return ErrDepth
	}
	s.pos++
	s.space()
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		if _, err := s.name(); err != nil {
			return err
		}
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if more, err := s.next('}'); err != nil || !more {
			return err
		}
	}
}

func (s *scanner) array(depth int) error {
	if depth == MaxDepth {
		return ErrDepth
	}
	s.pos++
	s.space()
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if more, err := s.next(']'); err != nil || !more {
			return err
		}
	}
}

// name reads the name of a member and the colon. It returns the offset at which
// the name ends.
func (s *scanner) name() (end int, err error) {
	if s.peek() != '"' {
		return 0, ErrSyntax
	}
	if err := s.text(); err != nil {
		return 0, err
	}
	end = s.pos
	s.space()
	if s.peek() != ':' {
		return 0, ErrSyntax
	}
	s.pos++
	s.space()
	return end, nil
}

// next reads the comma between two elements, or the bracket after the last.
func (s *scanner) next(bracket byte) (more bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.pos++
		s.space()
		return true, nil
	case bracket:
		s.pos++
		return false, nil
	}
	return false, ErrSyntax
}

func (s *scanner) word(w string) error {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return ErrSyntax
	}
	s.pos += len(w)
	return nil
}

// number reads a number by the grammar of RFC 8259, section 6: no leading
// zeros, and no sign or point without digits.
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return ErrSyntax
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return ErrSyntax
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return ErrSyntax
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	from := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > from
}

func (s *scanner) text() error {
	s.pos++
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return nil
		case c < ' ':
			return ErrSyntax
		case c == '\\':
			n := escapeLen(s.data[s.pos:])
			if n == 0 {
				return ErrSyntax
			}
			s.pos += n
		default:
			s.pos++
		}
	}
	return ErrSyntax
}

// escapeLen returns the length of the escape at the start of b, or 0 if b
// starts with none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b); ok {
			return 6
		}
	}
	return 0
}

// hex4 decodes the \uXXXX at the start of b.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// Int returns the value of a JSON number that is written as an integer and fits
// into int64. It returns false for a fraction, an exponent and minus zero. It
// refuses even 1.0 and 1e3, because decoders disagree about them.
func Int(value []byte) (int64, bool) {
	digits, negative := value, false
	if len(digits) > 0 && digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' || negative && digits[0] == '0' {
		return 0, false
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' || n > (math.MaxInt64-int64(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, true
}
