package main

import (
	"context"
	"errors"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

// The marks go, in whatever pieces the text comes.
func TestPlain(t *testing.T) {
	for _, tc := range []struct{ text, want, why string }{
		{"plain words.\n", "plain words.\n", "no marks"},
		{"so *very* **sure** and __so__ _on_.", "so very sure and so on.", "emphasis"},
		{"***all*** of it", "all of it", "two at once"},
		{"snake_case 2 * 3 2*3*4 a_b", "snake_case 2 * 3 2*3*4 a_b", "marks that are text"},
		{"# One\n## Two ##\n#tag\n", "One\nTwo ##\n#tag\n", "headings"},
		{"a `b *c*` d", "a b *c* d", "code in a line"},
		{"x\n```go\na *b* # c\n# d\n```\ny", "x\na *b* # c\n# d\ny", "a block of code"},
		{"- a\n* b\n1. c\n", "- a\n* b\n1. c\n", "marks of lists stay"},
		{`\*a\* \d`, "*a* \\d", "escapes"},
		{"这是**重要**的", "这是重要的", "a script without spaces"},
		{"an open *emphasis\n2*3\n", "an open emphasis\n2*3\n", "the end of a line ends it"},
		{"**a** *b*", "a b", "one after the other"},
		{"*\\*", "*", "an escape after a mark"},
	} {
		for cut := range tc.text {
			var s stripper
			// The full stop explains a mark at the end.
			if got := s.strip(tc.text[:cut]) + s.strip(tc.text[cut:]) + s.strip("."); got != tc.want+"." {
				t.Errorf("%s, cut at %d: got %q, want %q", tc.why, cut, got, tc.want)
			}
		}
	}
}

type script []wire.Message

func (s *script) Next(context.Context) (wire.Message, error) {
	if len(*s) == 0 {
		return wire.Message{}, errors.New("the end")
	}
	m := (*s)[0]
	*s = (*s)[1:]
	return m, nil
}

// A message of which only marks were left is not published. Figures are. A life
// that ended within an emphasis does not begin the next one with it.
func TestPlainMessages(t *testing.T) {
	restarting := true
	p := &plain{source: &script{
		{Text: "**"}, {Text: "bold"}, {Text: "**", Memory: &wire.Memory{TotalMB: 1}}, {Text: " `"},
		{Status: &wire.Status{IsRestarting: &restarting}}, {Text: "`x", Memory: &wire.Memory{}}, {Text: "*y*."},
	}}
	var got []string
	for {
		m, err := p.Next(t.Context())
		if err != nil {
			break
		}
		got = append(got, m.Text)
	}
	want := []string{"bold", "", " ", "", "x", "*y*."}
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("message %d: got %q, want %q", i, got[i], want[i])
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("a *b* `c`\n# d\n", uint8(3))
	f.Add("```\n*\n```\n**", uint8(5))
	f.Fuzz(func(t *testing.T, text string, at uint8) {
		cut := min(int(at), len(text))
		for cut > 0 && cut < len(text) && text[cut]&0xc0 == 0x80 {
			cut--
		}
		var whole, parts stripper
		want := whole.strip(text)
		if got := parts.strip(text[:cut]) + parts.strip(text[cut:]); got != want {
			t.Errorf("in pieces %q, at once %q", got, want)
		}
		if len(want) > len(text)+3*len([]rune(text)) {
			t.Errorf("the text grows: %q to %q", text, want)
		}
	})
}
