package terminal

import (
	"fmt"
	"io"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/internal/runes"
)

// ClearLine is the sequence for [Control] that empties the line of the cursor.
const ClearLine = "\r\x1b[K"

// Guard returns a writer that passes text on to w and escapes the characters
// that control a terminal or change how a line reads: control characters with
// C1, bidirectional controls, and the other format characters and line ends of
// Unicode. Line feeds and tabs stay.
//
// The text of a stranger, such as a server's answer, a name in a file or an
// environment variable, then cannot move the cursor, hide or reorder text, or
// set the clipboard (CVE-2021-42574 and the like). An escaped character becomes
// \u and four hexadecimal digits, as in JSON, so JSON keeps its meaning. A byte
// that is not UTF-8 becomes U+FFFD.
//
// A program guards its standard output and standard error once, at its start,
// whether they are terminals or not: `ssh HOST server audit` writes to a pipe,
// and the person sees a terminal. The program's own sequences go through
// [Control], and bytes that only a program reads through [Data]. The writer is
// safe for concurrent use if w is.
func Guard(w io.Writer) io.Writer {
	if g, ok := w.(*guard); ok {
		return g
	}
	return &guard{w: w}
}

// Control writes a sequence that controls the terminal, such as a colour, past
// the guard of w. The sequence must be the program's own. If w has no guard,
// Control writes to w.
func Control(w io.Writer, sequence string) error {
	g, ok := w.(*guard)
	if !ok {
		_, err := io.WriteString(w, sequence)
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := io.WriteString(g.w, sequence)
	return err
}

// Data returns the writer for bytes that must arrive unchanged, such as an
// archive: the one below the guard of w, unless that is a terminal. If w is a
// terminal or has no guard, Data returns w.
func Data(w io.Writer) io.Writer {
	if g, ok := w.(*guard); ok && !Is(w) {
		return g.w
	}
	return w
}

// Line returns text as one line without the characters that [Guard] escapes.
// Line feeds and tabs are escaped too, so that the text cannot pose as another
// line or another column.
func Line(text string) string {
	return string(escape(nil, []byte(text), func(r rune) bool { return controls(r) }))
}

// guard is the writer of [Guard].
type guard struct {
	w io.Writer

	mu   sync.Mutex
	rest []byte // the beginning of a character whose other bytes may follow
	buf  []byte
}

// Write implements [io.Writer]. It takes all of p, or returns the error of the
// writer below. If p ends within a character, these bytes wait for the next
// call.
func (g *guard) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.rest) == 0 && plain(p) {
		return g.w.Write(p)
	}
	text := append(g.rest, p...)
	whole := len(text) - runes.Unfinished(text)
	g.buf = escape(g.buf[:0], text[:whole], func(r rune) bool { return r != '\n' && r != '\t' && controls(r) })
	g.rest = append([]byte(nil), text[whole:]...)
	if cap(g.buf) > 64<<10 {
		defer func() { g.buf = nil }() // a large text is rare
	}
	if _, err := g.w.Write(g.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// plain reports whether p is ASCII text that needs no escapes, as most text is.
func plain(p []byte) bool {
	for _, b := range p {
		if b < ' ' && b != '\n' && b != '\t' || b >= 0x7f {
			return false
		}
	}
	return true
}

// controls reports whether r controls how text is shown. Cc are the controls,
// Cf the formats such as bidirectional controls, Zl and Zp the other line ends.
func controls(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// escape appends text to out and escapes the characters for which special
// returns true.
func escape(out, text []byte, special func(rune) bool) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		text = text[n:]
		switch high, low := utf16.EncodeRune(r); {
		case !special(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
