package envcheck

import (
	"slices"
	"strings"
	"unicode"
)

// The reasons for which a value is refused that has something on it that its
// file, and not its author, put there.
const (
	hasReturn    CheckReason = "contains a carriage return; store the file that sets it with the line ends of Unix"
	hasInvisible CheckReason = "contains a character that cannot be seen, such as a byte order mark or a zero-width space; type it anew"
	hasQuotes    CheckReason = "has quotes around it, or a quote at one end, that became part of the value; remove them"
)

// leftover returns the reason to refuse a value with something on it that is
// only part of the notation of the file from which it came, or that came with a
// copied text. Without one, it returns "".
//
// Readers of environment files differ: docker run --env-file and many others
// keep the quotes, and most keep a carriage return.
func leftover(value string, secret bool) CheckReason {
	switch {
	case strings.ContainsRune(value, '\r'):
		return hasReturn
	case containsInvisible(value):
		return hasInvisible
	case quoted(value), !secret && halfQuoted(value):
		return hasQuotes
	}
	return ""
}

// leftoverOfFile is leftover for the content of a file named by NAME_FILE. The
// lines of such a file may end as in Windows.
func leftoverOfFile(content string, secret bool) CheckReason {
	return leftover(strings.ReplaceAll(content, "\r\n", "\n"), secret)
}

// containsInvisible reports whether value has a character that cannot be seen
// and that is no part of its spelling.
func containsInvisible(value string) bool {
	if value != strings.TrimFunc(value, func(r rune) bool { return r > unicode.MaxASCII && unicode.IsSpace(r) }) {
		return true
	}
	text := []rune(value)
	for i, r := range text {
		if !invisible(r) {
			continue
		}
		// Persian words and joined emoji are spelled with joiners, between
		// characters that are not ASCII.
		joiner := r == '\u200c' || r == '\u200d'
		if !joiner || i == 0 || i+1 == len(text) || text[i-1] <= unicode.MaxASCII || text[i+1] <= unicode.MaxASCII {
			return true
		}
	}
	return false
}

// invisible reports whether r has no width, or shows as an empty place without
// being a space.
func invisible(r rune) bool {
	switch r {
	case '\u00ad', '\u034f', '\u061c', '\u115f', '\u1160', '\u17b4', '\u17b5', '\u180e',
		'\u2028', '\u2029', '\u3164', '\ufeff', '\uffa0':
		return true
	}
	return r >= '\u200b' && r <= '\u200f' || r >= '\u202a' && r <= '\u202e' || r >= '\u2060' && r <= '\u206f'
}

// quotes are pairs of quotes, those of word processors included.
var quotes = [][2]string{{`"`, `"`}, {"'", "'"}, {"`", "`"}, {"“", "”"}, {"‘", "’"}, {"„", "“"}, {"«", "»"}}

// quoted reports whether all of value is in quotes. A comment may follow them.
func quoted(value string) bool {
	value = strings.TrimSpace(value)
	return slices.ContainsFunc(quotes, func(q [2]string) bool {
		rest, begins := strings.CutPrefix(value, q[0])
		if !begins {
			return false
		}
		if strings.HasSuffix(rest, q[1]) {
			return true
		}
		_, behind, closed := strings.Cut(rest, q[1])
		comment := strings.TrimLeft(behind, " \t")
		return closed && behind != comment && strings.HasPrefix(comment, "#")
	})
}

// halfQuoted reports whether value has one quote, at one of its ends. A text of
// several words may have an apostrophe there.
func halfQuoted(value string) bool {
	value = strings.TrimSpace(value)
	if strings.ContainsFunc(value, unicode.IsSpace) {
		return false
	}
	for _, q := range []string{`"`, "'"} {
		if strings.Count(value, q) == 1 && (strings.HasPrefix(value, q) || strings.HasSuffix(value, q)) {
			return true
		}
	}
	return false
}

// bare returns the name of a variable without the characters that a file or a
// copied text leaves on it.
func bare(name string) string {
	if rest, ok := strings.CutPrefix(strings.TrimSpace(name), "export "); ok {
		name = rest
	}
	return strings.Map(func(r rune) rune {
		if invisible(r) || unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("\"'`“”‘’„«»", r) {
			return -1
		}
		return r
	}, name)
}
