package strictjson

import (
	"unicode/utf16"
	"unicode/utf8"
)

// String returns the text of a JSON string in the form that Members returns,
// quotes included. It returns false for any other value, and for a string in
// which an escape is half of a surrogate pair, since no encoding can express
// it.
func String(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	if inner := value[1 : len(value)-1]; plain(inner) {
		return string(inner), true
	}
	text, ok := AppendString(make([]byte, 0, len(value)), value)
	return string(text), ok
}

// Is reports whether the text of a JSON string, in the form that Members
// returns, is want. Escapes make no difference.
func Is(value []byte, want string) bool {
	if len(value) < 2 {
		return false
	}
	if inner := value[1 : len(value)-1]; plain(inner) {
		return string(inner) == want
	}
	var room [64]byte
	text, ok := AppendString(room[:0], value)
	return ok && string(text) == want
}

func plain(inner []byte) bool {
	for _, c := range inner {
		if c == '\\' {
			return false
		}
	}
	return true
}

// AppendString appends the text of a JSON string to dst. It returns false under
// the same conditions as [String].
func AppendString(dst, value []byte) ([]byte, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return dst, false
	}
	in := value[1 : len(value)-1]
	for i := 0; i < len(in); {
		if in[i] != '\\' {
			dst = append(dst, in[i])
			i++
			continue
		}
		n := escapeLen(in[i:])
		switch n {
		case 0:
			return dst, false
		case 2:
			dst = append(dst, unescape(in[i+1]))
		case 6:
			r, _ := hex4(in[i:])
			if utf16.IsSurrogate(r) {
				low, ok := hex4(in[i+6:])
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					return dst, false
				}
				n = 12
			}
			dst = utf8.AppendRune(dst, r)
		}
		i += n
	}
	return dst, true
}

func unescape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// Elements returns the elements of a JSON array as they were written. It
// returns false for any other value. The value must be valid JSON, such as one
// that Members returned.
func Elements(value []byte) ([][]byte, bool) {
	s := scanner{data: value}
	if s.peek() != '[' {
		return nil, false
	}
	s.pos++
	s.space()
	if s.peek() == ']' {
		return nil, true
	}
	var list [][]byte
	for {
		from := s.pos
		if s.value(0) != nil {
			return nil, false
		}
		list = append(list, value[from:s.pos])
		if more, err := s.next(']'); err != nil || !more {
			return list, err == nil
		}
	}
}
