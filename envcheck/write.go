package envcheck

import (
	"bufio"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteExample writes an .env.example file: every variable with its Doc, those
// that are required to be filled in, the others commented out with their
// default. Shells, systemd and compose files read it alike. (docker run
// --env-file does too, but for values in quotes, which it does not take off.)
func (s Spec) WriteExample(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i := range s.Vars {
		v := &s.Vars[i]
		if i > 0 {
			b.WriteByte('\n')
		}
		writeComment(b, v.Doc)
		writeComment(b, v.summary())
		value := v.Default
		if value == "" {
			value = v.Example
		}
		if !v.Required {
			b.WriteByte('#')
		}
		b.WriteString(v.Name + "=" + quote(value) + "\n")
	}
	return b.Flush()
}

// writeComment writes text in lines of at most 80 characters.
func writeComment(b *bufio.Writer, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 80 && line != "#" {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	if line != "#" {
		b.WriteString(line + "\n")
	}
}

// summary says what kind of value v wants.
func (v *Var) summary() string {
	kind := v.Into.kind
	if kind == "" {
		kind = "text"
	}
	text := "Optional: "
	if v.Required {
		text = "Required: "
	}
	text += kind + "."
	if v.secret() {
		text += " A secret."
	}
	if name := v.fileName(); name != "" {
		text += " Or " + name + ": the path of a file with it."
	}
	return text
}

// quote returns value as shells and .env readers understand it alike.
func quote(value string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("_-.,:/@%+=", r)
	}
	if strings.IndexFunc(value, func(r rune) bool { return !plain(r) }) < 0 {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// WriteMarkdown writes a table of every variable for a README.
func (s Spec) WriteMarkdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	b.WriteString("| Variable | Default | Meaning |\n|---|---|---|\n")
	for i := range s.Vars {
		v := &s.Vars[i]
		def := ""
		switch {
		case v.Required:
			def = "required"
		case v.Default != "":
			def = code(v.Default)
		}
		doc := strings.ReplaceAll(strings.Join(strings.Fields(v.Doc), " "), "|", `\|`)
		if len(v.Into.words) > 0 {
			var words []string
			for _, word := range v.Into.words {
				words = append(words, code(word))
			}
			doc += " One of " + strings.Join(words, ", ") + "."
		}
		if name := v.fileName(); name != "" {
			doc += " Or " + code(name) + "."
		}
		b.WriteString("| " + code(v.Name) + " | " + def + " | " + doc + " |\n")
	}
	return b.Flush()
}

// code returns text as code in a cell of a table.
func code(text string) string {
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`"
}

// WriteReport writes a table of every variable, where its value comes from and
// what is wrong with it, then misspelt names. It shows no value from the
// environment, secret or not. Its error is w's, or that of a mistake in the
// Spec; whether the environment is acceptable is for [Spec.Check] to say.
func (s Spec) WriteReport(w io.Writer, lookup Lookup) error {
	if err := s.validate(); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { io.WriteString(t, strings.Join(cells, "\t")+"\n") }
	row("VARIABLE", "SOURCE", "STATE")
	results, _ := s.results(lookup)
	for _, r := range results {
		state, source := "ok", string(r.source)
		switch {
		case r.err != nil && r.name != r.v.Name:
			state = "PROBLEM: " + r.name + " " + r.err.predicate()
		case r.err != nil:
			state = "PROBLEM: " + r.err.predicate()
		case r.source == fromNowhere:
			state = "not set"
		}
		if source == "" {
			source = "-"
		}
		row(r.v.Name, source, state)
	}
	for _, n := range s.NearMisses(lookup) {
		row(n.Set, "environment", "UNKNOWN: misspelt "+n.Like+"?")
	}
	return t.Flush()
}
