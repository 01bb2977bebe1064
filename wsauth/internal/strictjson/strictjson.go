// Package strictjson walks one JSON value (RFC 8259) without building it: enough to tell whether a message is JSON at
// all and to look at the members of an object, with duplicates visible and depth bounded. encoding/json cannot do
// that: it lets the last of several equal members win and matches names regardless of case.
package strictjson

import (
	"errors"
	"math"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may be nested. A deeper value is refused rather than followed, so that no
// input can make the walk use more than a small, fixed stack.
const MaxDepth = 32

// Errors that Scan returns. They carry no part of the input.
var (
	ErrSyntax = errors.New("strictjson: not a JSON value")
	ErrDepth  = errors.New("strictjson: nested too deeply")
	ErrUTF8   = errors.New("strictjson: not UTF-8")
)

// Scan reports whether data is exactly one JSON value, surrounded by nothing but white space. Where the value is an
// object, member is called for each of its own members in order: with the name as it was written, quotes included,
// and the value's text. Nothing is copied. member may be nil.
//
// It is called before the rest of data has been checked, so its findings count only if Scan returns nil.
func Scan(data []byte, member func(name, value []byte)) error {
	if !utf8.Valid(data) {
		return ErrUTF8
	}
	s := scanner{data: data, member: member}
	s.space()
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.pos != len(data) {
		return ErrSyntax
	}
	return nil
}

type scanner struct {
	data    []byte
	pos     int
	member  func(name, value []byte)
	element func(value []byte)
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
		nameAt := s.pos
		if s.peek() != '"' {
			return ErrSyntax
		}
		if err := s.text(); err != nil {
			return err
		}
		name := s.data[nameAt:s.pos]
		s.space()
		if s.peek() != ':' {
			return ErrSyntax
		}
		s.pos++
		s.space()
		valueAt := s.pos
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if depth == 0 && s.member != nil {
			s.member(name, s.data[valueAt:s.pos])
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case '}':
			s.pos++
			return nil
		default:
			return ErrSyntax
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
		valueAt := s.pos
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if depth == 0 && s.element != nil {
			s.element(s.data[valueAt:s.pos])
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case ']':
			s.pos++
			return nil
		default:
			return ErrSyntax
		}
	}
}

func (s *scanner) word(w string) error {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return ErrSyntax
	}
	s.pos += len(w)
	return nil
}

// number follows the grammar of RFC 8259, section 6: no leading zeros, no bare signs or points.
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

// escapeLen is the length of the escape that b begins with, 0 if it is none.
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

// hex4 decodes the \uXXXX that b begins with.
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

// Int returns the value of a JSON number written as a plain integer: no fraction, no exponent, no minus zero, within
// int64. 1.0 and 1e3 are refused although they are whole, because decoders disagree about them.
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
