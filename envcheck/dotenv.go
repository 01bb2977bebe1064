package envcheck

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// maxDotenv is the most bytes that a .env file may hold.
const maxDotenv = 256 << 10

// maxDotenvErrors is the most lines of a .env file that are reported.
const maxDotenvErrors = 20

// DotenvError is one problem in a .env file. It never holds a text of the file.
type DotenvError struct {
	Line   int    // from 1; 0 if the problem is not in one line
	Detail string // such as "has no = after a name"

	cause error
}

func (e *DotenvError) Error() string {
	if e.Line == 0 {
		return "envcheck: the .env file " + e.Detail
	}
	return fmt.Sprintf("envcheck: line %d of the .env file %s", e.Line, e.Detail)
}

// Unwrap returns [fs.ErrNotExist] if there is no such file, or else nil.
func (e *DotenvError) Unwrap() error { return e.cause }

// Dotenv returns a Lookup of the variables in a .env file, which it reads once,
// as [ParseDotenv] does. The Lookup is never nil: after an error it is empty.
// If the file is optional, ignore an error that is a [fs.ErrNotExist].
func Dotenv(path string) (Lookup, error) {
	f, reason := openFile(path)
	if reason != "" {
		err := &DotenvError{Detail: "is not read: its path " + string(reason)}
		if reason == missingFile {
			err.cause = fs.ErrNotExist
		}
		return FromMap(nil), err
	}
	defer f.Close()
	vars, err := ParseDotenv(f)
	return FromMap(vars), err
}

// ParseDotenv reads a .env file of up to 256 KiB. It returns all problems at
// once, joined with [errors.Join], each a [*DotenvError]; an error of r is
// returned as it is. It sets no variable of the process, and it expands
// nothing.
//
// A line is NAME=VALUE, empty, or a comment that begins with #. The word export
// may stand before the name. Readers of such files for shells and for other
// languages differ, so ParseDotenv refuses what some of them read differently,
// and says how to write it:
//
//   - A value in single quotes is taken as it is, and may have several lines.
//     It must not end in a backslash.
//   - In double quotes, \\, \", \$, \` and \n are one character each; the value
//     may have several lines. Shells and systemd keep \n as two characters, and
//     Node.js reads only \n of these.
//   - A value without quotes ends at the end of the line, or at a # with a
//     space before it, which only systemd and docker run take for a part of the
//     value. It may contain spaces and characters such as & and ~, which only
//     shells refuse or replace, but no quotes, no backslashes, no other # and
//     no tab at its end.
//   - A $ that begins the name of a variable, and a backtick, must be in single
//     quotes, or after a backslash in double quotes.
//   - There are no spaces around the =, and no name is set twice.
//
// The file must be UTF-8 without NUL characters. A byte order mark at its
// beginning and the line ends of Windows are accepted.
func ParseDotenv(r io.Reader) (map[string]string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDotenv+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxDotenv {
		return nil, &DotenvError{Detail: "has more than 256 KiB"}
	}
	text := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	line := 1
	for part := range strings.SplitSeq(text, "\n") {
		if !utf8.ValidString(part) || strings.ContainsRune(part, 0) {
			return nil, &DotenvError{Line: line, Detail: "must be UTF-8 without NUL characters"}
		}
		line++
	}
	p := dotenv{rest: text, line: 1, vars: make(map[string]string), lines: make(map[string]int)}
	for p.rest != "" && len(p.errs) < maxDotenvErrors {
		p.statement()
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.vars, nil
}

// dotenv is the state of ParseDotenv.
type dotenv struct {
	rest  string // what is not yet read
	line  int    // the line in which rest begins
	vars  map[string]string
	lines map[string]int // the lines that set vars
	errs  []error
}

// take reads n bytes.
func (p *dotenv) take(n int) string {
	taken := p.rest[:n]
	p.rest = p.rest[n:]
	p.line += strings.Count(taken, "\n")
	return taken
}

// takeLine reads up to the end of the line, and returns that without the
// newline.
func (p *dotenv) takeLine() string {
	line, _, _ := strings.Cut(p.rest, "\n")
	p.take(min(len(line)+1, len(p.rest)))
	return line
}

// statement reads a line, and further ones if its value has several.
func (p *dotenv) statement() {
	at := p.line
	fail := func(detail string) {
		p.errs = append(p.errs, &DotenvError{Line: at, Detail: detail})
	}
	line, _, _ := strings.Cut(p.rest, "\n")
	if blankOrComment(line) {
		p.takeLine()
		return
	}
	name, value, found := strings.Cut(line, "=")
	if !found {
		p.takeLine()
		fail("has no = after a name")
		return
	}
	p.take(len(line) - len(value))
	name = strings.TrimLeft(name, " \t")
	if rest, ok := strings.CutPrefix(name, "export "); ok {
		name = strings.TrimLeft(rest, " \t")
	}
	text, problem := p.value()
	switch {
	case strings.TrimRight(name, " \t") != name:
		fail("has a space before the =")
	case !dotenvName(name):
		fail("has a name that is not made of letters, digits and underscores")
	case problem != "":
		fail(problem)
	case p.lines[name] > 0:
		fail(fmt.Sprintf("sets the same variable as line %d", p.lines[name]))
	default:
		p.vars[name], p.lines[name] = text, at
	}
}

func blankOrComment(line string) bool {
	line = strings.TrimLeft(line, " \t")
	return line == "" || line[0] == '#'
}

func dotenvName(name string) bool { return validName(strings.ToUpper(name)) }

// value reads a value and the rest of its last line. It returns the value, or
// why it is refused.
func (p *dotenv) value() (value, problem string) {
	if !strings.HasPrefix(p.rest, "'") && !strings.HasPrefix(p.rest, `"`) {
		return unquoted(p.takeLine())
	}
	quote := p.take(1)
	n := closing(p.rest, quote[0])
	if n < 0 {
		p.take(len(p.rest))
		return "", "opens a quote that is not closed"
	}
	value = p.take(n)
	p.take(1)
	if rest := p.takeLine(); rest != "" && (rest[0] == '#' || !blankOrComment(rest)) {
		return "", "has text behind the closing quote"
	}
	if quote == "'" {
		if strings.HasSuffix(value, `\`) {
			return "", "has a backslash before the closing quote, which some readers take for a part of the value; put the value in double quotes, with each backslash written twice"
		}
		return value, ""
	}
	return unescaped(value)
}

// closing returns the place of the quote that closes text, or -1.
func closing(text string, quote byte) int {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == quote:
			return i
		case text[i] == '\\' && quote == '"':
			i++
		}
	}
	return -1
}

// unescaped returns a text of double quotes without its backslashes.
func unescaped(text string) (value, problem string) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '`', c == '$' && expands(text[i:]):
			return "", expansion
		case c != '\\':
			b.WriteByte(c)
		default:
			i++
			switch c := text[i]; c {
			case 'n':
				b.WriteByte('\n')
			case '\\', '"', '$', '`':
				b.WriteByte(c)
			default:
				return "", "has a backslash in double quotes that readers take differently; write it twice, or use single quotes"
			}
		}
	}
	return b.String(), ""
}

// unquoted returns the value in the rest of a line.
func unquoted(rest string) (value, problem string) {
	value = rest
	for i := range len(rest) {
		if rest[i] != '#' {
			continue
		}
		if i == 0 || rest[i-1] != ' ' && rest[i-1] != '\t' {
			return "", "has a # that only some readers take for a comment; put the value in single quotes, or a space before the #"
		}
		value = rest[:i]
		break
	}
	value = strings.TrimRight(value, " ")
	switch {
	case strings.HasSuffix(value, "\t"):
		return "", "has a tab at its end that only some readers remove; remove it"
	case strings.TrimLeft(value, " \t") != value:
		return "", "has a space after the ="
	case strings.ContainsAny(value, "'\"\\"):
		return "", "has a quote or a backslash in a value without quotes; put the whole value in single quotes"
	}
	for i := range len(value) {
		if value[i] == '`' || value[i] == '$' && expands(value[i:]) {
			return "", expansion
		}
	}
	return value, ""
}

const expansion = "has a $ or a backtick that some readers replace; put the whole value in single quotes"

// expands reports whether some readers replace the $ at the beginning of text.
func expands(text string) bool {
	if len(text) < 2 {
		return false
	}
	c := text[1]
	return c == '_' || c == '{' || c == '(' || c == '$' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
