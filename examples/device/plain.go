package main

import (
	"context"
	"regexp"
	"strings"
	"unicode"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// plain is a source that returns the messages of another source without the
// marks of Markdown: of headings, emphasis and code. Marks of lists stay, since
// they are readable.
type plain struct {
	source publish.Source
	text   stripper
}

// Next returns the source's next message that still has something to say.
func (p *plain) Next(ctx context.Context) (wire.Message, error) {
	for {
		m, err := p.source.Next(ctx)
		if err != nil {
			return m, err
		}
		if m.Restarting() {
			p.text = stripper{}
		}
		if m.Text = p.text.strip(m.Text); m.Text != "" || m.Memory != nil || m.Status != nil || m.Prompt != nil {
			return m, nil
		}
	}
}

// longestHead is the number of bytes at the beginning of a line that the
// stripper holds, at most, until it knows whether they are marks.
const longestHead = 40

var (
	fenceOfCode = regexp.MustCompile("^ {0,3}(?:`{3,}|~{3,})[^`]*$")
	headingMark = regexp.MustCompile(`^ {0,3}#{1,6}[ \t]+`)
	perhapsMark = regexp.MustCompile("^ {0,3}(?:#{0,6}[ \t]*|`{0,2}|~{0,2})$")
)

// stripper removes the marks of Markdown from a text that comes in pieces. It
// holds a mark until the next character shows what it is. The zero value is at
// the beginning of a text.
type stripper struct {
	head   []rune        // of a line, not known what it is
	inLine bool          // the rest of the line is text
	code   bool          // in a block of code
	held   []rune        // a run of equal marks
	last   rune          // before held; 0 at the beginning of a line
	open   map[rune]bool // emphasis, by its mark, and code
}

// strip returns what is known to be text.
func (s *stripper) strip(piece string) string {
	var out strings.Builder
	for _, r := range piece {
		s.next(&out, r)
	}
	return out.String()
}

func (s *stripper) next(out *strings.Builder, r rune) {
	if s.inLine {
		s.inline(out, r)
		return
	}
	s.head = append(s.head, r)
	head := string(s.head)
	line, ended := strings.CutSuffix(head, "\n")
	fence := fenceOfCode.MatchString(line)
	switch {
	case ended && fence:
		s.code = !s.code
		s.head = nil
		return
	case !ended && len(head) <= longestHead && (fence || perhapsMark.MatchString(head)):
		return
	}
	s.head, s.inLine = nil, true
	if !s.code {
		head = strings.TrimPrefix(head, headingMark.FindString(head))
	}
	for _, r := range head {
		s.inline(out, r)
	}
}

// inline adds a character of a line.
func (s *stripper) inline(out *strings.Builder, r rune) {
	mark := !s.code && strings.ContainsRune("*_`\\", r) && (!s.open['`'] || r == '`')
	if mark && len(s.held) < longestHead && (len(s.held) == 0 || s.held[0] == r && r != '\\') {
		s.held = append(s.held, r)
		return
	}
	if s.resolve(out, r) && mark {
		s.held = []rune{r} // another mark
		return
	}
	out.WriteRune(r)
	s.last = r
	if r == '\n' {
		s.inLine, s.last, s.open = false, 0, nil
	}
}

// resolve writes the held run unless it is a mark, since the next character is
// known. It reports whether that character may be a mark itself.
func (s *stripper) resolve(out *strings.Builder, next rune) bool {
	if len(s.held) == 0 {
		return true
	}
	run, mark := string(s.held), s.held[0]
	s.held = nil
	if mark == '\\' {
		if escaped := strings.ContainsRune("*_`\\#", next); escaped {
			return false
		}
	} else if s.isMark(mark, next) {
		return true
	}
	out.WriteString(run)
	s.last = mark
	return true
}

// isMark reports whether a run between the last character and the next begins
// or ends an emphasis or code, and remembers that.
func (s *stripper) isMark(mark, next rune) bool {
	if s.open == nil {
		s.open = make(map[rune]bool)
	}
	if mark == '`' {
		s.open[mark] = !s.open[mark]
		return true
	}
	if s.open[mark] && !unicode.IsSpace(s.last) && (mark == '*' || !wordly(next)) {
		s.open[mark] = false
		return true
	}
	begins := !unicode.IsSpace(next) && (!wordly(s.last) || mark == '*' && unicode.In(s.last, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai))
	s.open[mark] = s.open[mark] || begins
	return begins
}

func wordly(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }
