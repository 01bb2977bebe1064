package wsconn_test

import (
	"strings"
	"testing"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

const (
	declined = ""
	agreed   = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	windowed = agreed + "; server_max_window_bits=15"
)

// Sections are of RFC 7692 if there is no other name.
var offers = []struct {
	why, answer string
	lines       []string
}{
	{"no header", declined, nil},
	{"an empty header", declined, []string{""}},
	{"only empty elements", declined, []string{" , ,", ","}},
	{"Firefox and Safari", agreed, []string{"permessage-deflate"}},
	{"Chromium", agreed, []string{"permessage-deflate; client_max_window_bits"}},
	{"ws of Node.js", agreed, []string{"permessage-deflate; client_max_window_bits"}},
	{"gorilla", agreed, []string{"permessage-deflate; server_no_context_takeover; client_no_context_takeover"}},
	{"websockets of Python: the smallest client window", agreed, []string{"permessage-deflate; client_max_window_bits=8"}},
	{"no blanks", agreed, []string{"permessage-deflate;client_max_window_bits;server_no_context_takeover"}},
	{"tabs and blanks around everything", agreed, []string{"\t permessage-deflate ;\tclient_max_window_bits = 10 \t"}},
	{"empty elements (RFC 9110, section 5.6.1)", agreed, []string{", ,permessage-deflate,,"}},

	{"only another extension", declined, []string{"permessage-bzip2"}},
	{"another one first", agreed, []string{"x-webkit-deflate-frame; no_context_takeover, permessage-deflate"}},
	{"another one after it", agreed, []string{"permessage-deflate, bbf-usp-protocol; eid=1"}},
	{"a longer name", declined, []string{"permessage-deflate-2"}},
	{"another case is not the registered name", declined, []string{"Permessage-Deflate"}},

	{"server_max_window_bits=15 must be in the answer (7.1.2.1)", windowed, []string{"permessage-deflate; server_max_window_bits=15"}},
	{"a window that compress/flate does not have", declined, []string{"permessage-deflate; server_max_window_bits=10"}},
	{"the same, with a second offer without it (7.1.2.1)", agreed, []string{"permessage-deflate; server_max_window_bits=10, permessage-deflate"}},
	{"the first that can be fulfilled (5.1)", windowed, []string{"permessage-deflate; server_max_window_bits=9; client_max_window_bits, permessage-deflate; server_max_window_bits=15, permessage-deflate"}},
	{"a second offer in another line (RFC 6455, section 9.1)", agreed, []string{"permessage-deflate; server_max_window_bits=10", "permessage-deflate; client_max_window_bits"}},
	{"server_max_window_bits without a value (7.1.2.1)", declined, []string{"permessage-deflate; server_max_window_bits"}},
	{"a window that is too large", declined, []string{"permessage-deflate; server_max_window_bits=16"}},
	{"a leading zero (7.1.2.1)", declined, []string{"permessage-deflate; server_max_window_bits=015"}},
	{"a sign", declined, []string{"permessage-deflate; server_max_window_bits=+15"}},

	{"client_max_window_bits with the largest value", agreed, []string{"permessage-deflate; client_max_window_bits=15"}},
	{"a client window that is too small (7.1.2.2)", declined, []string{"permessage-deflate; client_max_window_bits=7"}},
	{"a client window that is too large", declined, []string{"permessage-deflate; client_max_window_bits=16"}},
	{"a client window of 1", declined, []string{"permessage-deflate; client_max_window_bits=1"}},
	{"a leading zero (7.1.2.2)", declined, []string{"permessage-deflate; client_max_window_bits=09"}},
	{"a number in letters", declined, []string{"permessage-deflate; client_max_window_bits=1e"}},
	{"more digits", declined, []string{"permessage-deflate; client_max_window_bits=100"}},

	{"a value of server_no_context_takeover (7.1.1.1)", declined, []string{"permessage-deflate; server_no_context_takeover=1"}},
	{"a value of client_no_context_takeover (7.1.1.2)", declined, []string{"permessage-deflate; client_no_context_takeover=true"}},
	{"an unknown parameter (7.1)", declined, []string{"permessage-deflate; unknown"}},
	{"an unknown parameter with a value (7.1)", declined, []string{"permessage-deflate; client_max_window_bits; mux=1"}},
	{"an unknown parameter, and an offer without", agreed, []string{"permessage-deflate; unknown, permessage-deflate"}},
	{"a parameter twice (7.1)", declined, []string{"permessage-deflate; server_no_context_takeover; server_no_context_takeover"}},
	{"a parameter twice, with and without a value (7.1)", declined, []string{"permessage-deflate; client_max_window_bits; client_max_window_bits=15"}},
	{"a parameter twice, with the same value (7.1)", declined, []string{"permessage-deflate; server_max_window_bits=15; server_max_window_bits=15"}},
	{"a parameter in another case is unknown", declined, []string{"permessage-deflate; Client_Max_Window_Bits"}},

	{"a quoted value (RFC 6455, section 9.1)", windowed, []string{`permessage-deflate; server_max_window_bits="15"`}},
	{"a quoted pair in it (RFC 9110, section 5.6.4)", windowed, []string{`permessage-deflate; server_max_window_bits="\1\5"`}},
	{"a quoted value of the client's", agreed, []string{`permessage-deflate; client_max_window_bits="12"`}},
	{"an empty quoted value is no token", declined, []string{`permessage-deflate; client_max_window_bits=""`}},
	{"a quoted offer is none", declined, []string{`foo; a="x, permessage-deflate"`}},
	{"a quoted comma makes the header malformed, because it is no token", declined, []string{`foo; a="x, y", permessage-deflate`}},
	{"an open quote", declined, []string{`permessage-deflate; client_max_window_bits="15`}},
	{"an open quote that ends in a backslash", declined, []string{`permessage-deflate; client_max_window_bits="15\`}},
	{"an open quote goes on over lines", declined, []string{`foo; a="x`, `permessage-deflate`}},
	{"a quoted name", declined, []string{`"permessage-deflate"`}},

	{"a parameter without a name", declined, []string{"permessage-deflate; =15"}},
	{"a semicolon without a parameter", declined, []string{"permessage-deflate;"}},
	{"an equals sign without a value", declined, []string{"permessage-deflate; client_max_window_bits="}},
	{"two words", declined, []string{"permessage-deflate client_max_window_bits"}},
	{"garbage before it", declined, []string{"\x00, permessage-deflate"}},
	{"garbage after it", declined, []string{"permessage-deflate \xff"}},
	{"a parameter without an extension", declined, []string{"; permessage-deflate"}},
	{"garbage after a good offer is not read", agreed, []string{"permessage-deflate, \x00"}},
}

func TestNegotiate(t *testing.T) {
	for _, row := range offers {
		if got := wsconn.Negotiate(row.lines); got != row.answer {
			t.Errorf("%s: %q is answered with %q, want %q", row.why, row.lines, got, row.answer)
		}
	}
}

// Whatever is offered, the answer is one of three, and agrees only if the words
// are there. How an offer is divided into lines does not matter (RFC 6455,
// section 9.1).
func FuzzNegotiate(f *testing.F) {
	for _, row := range offers {
		f.Add(strings.Join(row.lines, ","))
	}
	f.Fuzz(func(t *testing.T, header string) {
		got := wsconn.Negotiate([]string{header})
		switch got {
		case declined:
		case windowed:
			if !strings.Contains(header, "server_max_window_bits") {
				t.Errorf("%q: %q", header, got)
			}
		case agreed:
			if !strings.Contains(header, "permessage-deflate") {
				t.Errorf("%q: %q", header, got)
			}
		default:
			t.Errorf("%q: %q", header, got)
		}
		if divided := wsconn.Negotiate(strings.Split(header, ",")); divided != got {
			t.Errorf("%q: %q, and in several lines %q", header, got, divided)
		}
		// With a parameter that is unknown, nothing is agreed to.
		if got := wsconn.Negotiate([]string{"permessage-deflate; unknown; " + strings.ReplaceAll(header, ",", "")}); got != declined {
			t.Errorf("%q after an unknown parameter: %q", header, got)
		}
	})
}
