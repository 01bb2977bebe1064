package wsconn

import (
	"slices"
	"strings"
)

// negotiate returns the Sec-WebSocket-Extensions header that answers the offers
// in the lines of a client's header, or an empty string to decline them all. It
// accepts the first offer of permessage-deflate (RFC 7692, section 7.1) whose
// parameters are valid and which it can fulfil.
//
// A header that breaks the grammar is declined too, and not answered with 400:
// such a client works as it did without compression.
func negotiate(lines []string) string {
	offers := &scanner{rest: strings.Join(lines, ",")}
	for {
		name, params, ok := offers.next()
		if !ok {
			return ""
		}
		if name != "permessage-deflate" {
			continue
		}
		if answer, ok := accept(params); ok {
			return answer
		}
	}
}

// param is a parameter of an offer. valued reports whether it has a value.
type param struct {
	name, value string
	valued      bool
}

// accept returns the answer to an offer of permessage-deflate with these
// parameters. Both sides forget each message when it ends, whatever the client
// has asked for: a server may demand that (sections 7.1.1.1 and 7.1.1.2).
func accept(params []param) (answer string, ok bool) {
	answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	for i, p := range params {
		if slices.ContainsFunc(params[:i], func(q param) bool { return q.name == p.name }) {
			return "", false
		}
		switch p.name {
		case "server_no_context_takeover", "client_no_context_takeover":
			if p.valued {
				return "", false
			}
		case "server_max_window_bits":
			// Package compress/flate always uses the largest window. A
			// client that asks for a smaller one may not be able to
			// decompress what it writes.
			if p.value != "15" {
				return "", false
			}
			answer += "; server_max_window_bits=15"
		case "client_max_window_bits":
			// The client may use any window. So the answer need not limit it.
			if p.valued && !windowBits(p.value) {
				return "", false
			}
		default:
			return "", false
		}
	}
	return answer, true
}

// windowBits reports whether s is a number from 8 to 15 without leading zeros.
func windowBits(s string) bool {
	return s == "8" || s == "9" || len(s) == 2 && s[0] == '1' && '0' <= s[1] && s[1] <= '5'
}

// scanner reads the offers in a header (RFC 6455, section 9.1).
type scanner struct{ rest string }

// next returns the next offer. After the last one, and if the header is
// malformed, ok is false.
func (s *scanner) next() (name string, params []param, ok bool) {
	for s.skip(','); name == ""; name = s.token() {
		if s.rest == "" {
			return "", nil, false
		}
		// A list may have empty elements (RFC 9110, section 5.6.1).
		if !s.skip(',') && strings.IndexByte(tokenLetters, s.rest[0]) < 0 {
			return "", nil, false
		}
	}
	for s.skip(';') {
		p := param{name: s.token()}
		if p.name == "" {
			return "", nil, false
		}
		if s.skip('=') {
			p.valued = true
			if p.value = s.value(); p.value == "" {
				return "", nil, false
			}
		}
		params = append(params, p)
	}
	if s.rest != "" && !s.skip(',') {
		return "", nil, false
	}
	return name, params, true
}

// blank skips spaces and tabs.
func (s *scanner) blank() { s.rest = strings.TrimLeft(s.rest, " \t") }

// skip skips c and the blanks around it, and reports whether there was a c.
func (s *scanner) skip(c byte) bool {
	s.blank()
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	s.blank()
	return true
}

// token returns the next token, or an empty string if there is none.
func (s *scanner) token() string {
	n := len(s.rest) - len(strings.TrimLeft(s.rest, tokenLetters))
	t := s.rest[:n]
	s.rest = s.rest[n:]
	return t
}

// value returns the next token. If it is quoted, value returns what the quotes
// contain, which must be a token too. If it is neither, value returns an empty
// string.
func (s *scanner) value() string {
	if !strings.HasPrefix(s.rest, `"`) {
		return s.token()
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		if s.rest[i] == '"' {
			s.rest = s.rest[i+1:]
			return b.String()
		}
		if s.rest[i] == '\\' && i+1 < len(s.rest) {
			i++ // a quoted pair
		}
		if strings.IndexByte(tokenLetters, s.rest[i]) < 0 {
			return ""
		}
		b.WriteByte(s.rest[i])
	}
	return ""
}
