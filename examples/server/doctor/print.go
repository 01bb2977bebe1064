package doctor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/relayguard/relayguard/examples/internal/terminal"
)

// The layout of the text form, in columns of a terminal that has 80.
const (
	width     = 80
	indent    = 30
	separator = "  "
)

// plain is the terminal's sequence for text without a colour.
const plain = "\x1b[0m"

// colours are the terminal's sequences for each outcome.
var colours = map[Outcome]string{OK: "\x1b[32m", Warn: "\x1b[33m", Fail: "\x1b[1;31m", Manual: "\x1b[36m", Skipped: "\x1b[2m"}

// WriteText writes the report for people: a line for each item, and below it
// how to fix the problem. If colour is set, the outcomes are in colour.
func (r Report) WriteText(w io.Writer, colour bool) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s\n", clean(r.URL))
	list := ""
	for _, item := range r.Items {
		if item.Checklist != list {
			list = item.Checklist
			fmt.Fprintf(b, "\n%s\n", strings.ToUpper(list[:1])+list[1:])
		}
		fmt.Fprint(b, separator)
		if colour {
			if err := errors.Join(b.Flush(), terminal.Control(w, colours[item.Outcome])); err != nil {
				return err
			}
		}
		fmt.Fprintf(b, "%-7s", item.Outcome)
		if colour {
			if err := errors.Join(b.Flush(), terminal.Control(w, plain)); err != nil {
				return err
			}
		}
		fmt.Fprintf(b, "%s%-19s", separator, item.ID)
		paragraph(b, item.Seen)
		if item.Mend != "" {
			fmt.Fprint(b, strings.Repeat(" ", indent))
			paragraph(b, "→ "+item.Mend)
		}
	}
	fmt.Fprintf(b, "\n%d ok, %d to improve, %d failed, %d to look at by hand, %d skipped\n",
		r.Count[OK], r.Count[Warn], r.Count[Fail], r.Count[Manual], r.Count[Skipped])
	return b.Flush()
}

// paragraph writes text from the column indent on, and wraps it. The cursor
// must be in that column.
func paragraph(w io.Writer, text string) {
	at := 0
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case at+1+n > width-indent:
			fmt.Fprint(w, "\n", strings.Repeat(" ", indent))
			at = 0
		default:
			fmt.Fprint(w, " ")
			at++
		}
		fmt.Fprint(w, word)
		at += n
	}
	fmt.Fprintln(w)
}

// WriteJSON writes the report as one JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
