package terminal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/internal/terminal"
)

func TestGuard(t *testing.T) {
	for _, row := range []struct{ why, in, want string }{
		{"plain text, with line feeds and tabs", "a b\tc\n", "a b\tc\n"},
		{"letters, symbols and spaces of other scripts", "Grüße, 東京\u3000\u00a0🙂\n", "Grüße, 東京\u3000\u00a0🙂\n"},
		{"a sequence that clears the screen", "\x1b[2J", `\u001b[2J`},
		{"a sequence that sets the clipboard", "\x1b]52;c;eA\x07", `\u001b]52;c;eA\u0007`},
		{"a carriage return, which overwrites the line", "failed\rall ok\r\n", "failed" + `\u000dall ok\u000d` + "\n"},
		{"backspaces, DEL and NUL", "a\bb\x7f\x00", `a\u0008b\u007f\u0000`},
		{"C1: one character begins a sequence", "\u009b2J\u0085", `\u009b2J\u0085`},
		{"C1 as a byte, for a terminal without UTF-8", "\x9b2J", "\ufffd2J"},
		{"overrides of the direction of text", "a\u202eb\u2066c\u200fd\u061c", `a\u202eb\u2066c\u200fd\u061c`},
		{"other line ends", "a\u2028b\u2029c\vd\f", `a\u2028b\u2029c\u000bd\u000c`},
		{"characters of no width", "a\u200bb\ufeffc\u00add", `a\u200bb\ufeffc\u00add`},
		{"tags, which are invisible and need two escapes", "a\U000e0041", `a\udb40\udc41`},
		{"broken UTF-8", "a\xff\xe2\x82b", "a\ufffd\ufffd\ufffdb"},
		{"an overlong ESC", "\xc0\x9b[2J", "\ufffd\ufffd[2J"},
	} {
		var out bytes.Buffer
		if n, err := io.WriteString(terminal.Guard(&out), row.in); err != nil || n != len(row.in) {
			t.Errorf("%s: %d of %d bytes, %v", row.why, n, len(row.in), err)
		}
		if out.String() != row.want {
			t.Errorf("%s:\n%q, want\n%q", row.why, out.String(), row.want)
		}
		want := strings.NewReplacer("\n", `\u000a`, "\t", `\u0009`).Replace(row.want)
		if got := terminal.Line(row.in); got != want {
			t.Errorf("%s: in one line:\n%q, want\n%q", row.why, got, want)
		}
	}
}

// The program's own sequences and its data pass the guard.
func TestPassTheGuard(t *testing.T) {
	var out bytes.Buffer
	w := terminal.Guard(terminal.Guard(&out))
	for _, err := range []error{
		terminal.Control(w, terminal.ClearLine),
		second(io.WriteString(w, "\x1b\n")),
		second(terminal.Data(w).Write([]byte("\x1b\xff"))),
		terminal.Control(&out, "\x1b[0m"),
		second(terminal.Data(&out).Write([]byte("\x00"))),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := terminal.ClearLine + `\u001b` + "\n\x1b\xff\x1b[0m\x00"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func second(_ int, err error) error { return err }

// An error of the writer below is the guard's.
func TestGuardFails(t *testing.T) {
	broken, w := io.Pipe()
	broken.Close()
	for _, text := range []string{"plain", "\x1b"} {
		if n, err := terminal.Guard(w).Write([]byte(text)); !errors.Is(err, io.ErrClosedPipe) || n != 0 {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	if err := terminal.Control(terminal.Guard(w), "\r"); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// FuzzGuard holds all text to the guard's promises, also if it arrives in two
// parts.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{"", "plain\n", "\x1b[2J\r", "\u009b\u202e🙂", "\xf0\x9f\x99\x82", "\xe2\x80", "\"\\\u0085\U000e0001"} {
		f.Add(seed, 2)
	}
	f.Fuzz(func(t *testing.T, text string, cut int) {
		if cut < 0 || cut > len(text) {
			cut = len(text) / 2
		}
		once, twice := new(bytes.Buffer), new(bytes.Buffer)
		// The line feed ends a character that is not complete.
		_, _ = io.WriteString(terminal.Guard(once), text+"\n")
		w := terminal.Guard(twice)
		for _, part := range []string{text[:cut], text[cut:], "\n"} {
			if n, err := io.WriteString(w, part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if once.String() != twice.String() {
			t.Errorf("in two parts %q, in one %q", twice, once)
		}
		if !harmless(once.String()) || !harmless(terminal.Line(text)) || strings.ContainsAny(terminal.Line(text), "\n\t") {
			t.Errorf("%q, as a line %q", once, terminal.Line(text))
		}

		// JSON keeps its meaning.
		encoded, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var want, got string
		once.Reset()
		_, _ = terminal.Guard(once).Write(encoded)
		if err := errors.Join(json.Unmarshal(encoded, &want), json.Unmarshal(once.Bytes(), &got)); err != nil || got != want {
			t.Errorf("%v: %q became %q", err, want, got)
		}
	})
}

func harmless(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
	})
}
