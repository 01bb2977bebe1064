package llm

import (
	"encoding/json"
	"strings"
)

// piece is a part of what a model says: text of its answer, or a thought that
// the endpoint sends apart from the answer.
type piece struct {
	text    string
	thought bool
}

// content is what a delta says: its content is a string, or a list of parts, of
// which only those of the types for text and thoughts count. Any other value
// says nothing.
type content struct{ text, thought string }

// UnmarshalJSON implements [json.Unmarshaler].
func (c *content) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &c.text) == nil {
		return nil
	}
	c.text = ""
	var parts []struct {
		Type     string
		Text     json.RawMessage
		Thinking content
	}
	if json.Unmarshal(data, &parts) != nil {
		return nil
	}
	for _, p := range parts {
		var text string
		switch p.Type {
		case "text", "output_text", "":
			_ = json.Unmarshal(p.Text, &text) // no string is no text
			c.text += text
		case "thinking", "reasoning":
			_ = json.Unmarshal(p.Text, &text)
			c.thought += p.Thinking.text + text
		}
	}
	return nil
}

// Tags around the thoughts of models whose endpoint does not know them.
const (
	thinkBegins = "<think>"
	thinkEnds   = "</think>"
)

// thinkTags finds the thoughts at the beginning of an answer, between
// <think> and </think>. The tags may come in any number of pieces.
type thinkTags struct {
	state int
	held  string // may be the beginning of a tag
}

// States of thinkTags.
const (
	beforeThought = iota // nothing but white space was read
	inThought
	afterThought // white space may follow, which the answer does not need
	inAnswer
)

// take returns what is known of the answer after text.
func (t *thinkTags) take(text string) (pieces []piece) {
	text, t.held = t.held+text, ""
	if t.state == beforeThought {
		trimmed := strings.TrimLeft(text, " \t\r\n")
		switch {
		case strings.HasPrefix(trimmed, thinkBegins):
			text, t.state = trimmed[len(thinkBegins):], inThought
		case strings.HasPrefix(thinkBegins, trimmed):
			t.held = text
			return nil
		default:
			t.state = inAnswer
		}
	}
	if t.state == inThought {
		thought, rest, ended := strings.Cut(text, thinkEnds)
		if !ended {
			n := partOf(text, thinkEnds)
			thought, t.held = text[:len(text)-n], text[len(text)-n:]
		} else {
			t.state = afterThought
		}
		text = rest
		if thought != "" {
			pieces = append(pieces, piece{thought, true})
		}
	}
	if t.state == afterThought {
		if text = strings.TrimLeft(text, " \t\r\n"); text != "" {
			t.state = inAnswer
		}
	}
	if text != "" {
		pieces = append(pieces, piece{text, false})
	}
	return pieces
}

// end returns what was held, because the answer has ended.
func (t *thinkTags) end() (pieces []piece) {
	if t.held != "" {
		pieces = append(pieces, piece{t.held, t.state == inThought})
	}
	t.held = ""
	return pieces
}

// partOf returns the length of the longest end of text that begins tag.
func partOf(text, tag string) int {
	for n := min(len(text), len(tag)-1); n > 0; n-- {
		if strings.HasSuffix(text, tag[:n]) {
			return n
		}
	}
	return 0
}

// quoted returns a thought as lines of a quotation, which any reader can tell
// from the answer: each line after a line feed begins with "> ".
func quoted(thought string) string { return strings.ReplaceAll(thought, "\n", "\n> ") }
