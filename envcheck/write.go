package envcheck

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteExample writes an .env.example file with every variable and its Doc.
// Required variables are left to be filled in; the others are commented out and
// show their default. Shells, systemd, Docker Compose and readers of .env files
// for other languages read the file alike, except for a value that ends in a
// backslash, or that has an apostrophe and one of the characters " $ ` ! \ in
// it: some readers for other languages keep the backslashes that shells need.
// docker run --env-file does not remove the quotes around a value.
func (s Spec) WriteExample(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i := range s.Vars {
		v := &s.Vars[i]
		if i > 0 {
			b.WriteByte('\n')
		}
		writeComment(b, v.Doc)
		writeComment(b, s.summary(v))
		value := v.Default
		if value == "" {
			value = v.Example
		}
		line := v.Name + "=" + quote(value)
		if !v.Required {
			line = "#" + strings.ReplaceAll(line, "\n", "\n#") // or a reader would see the rest of the value
		}
		b.WriteString(line + "\n")
	}
	return b.Flush()
}

// writeComment writes the text in lines of at most 80 characters.
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

// sayings returns the rules of the Spec as sentences for v.
func (s Spec) sayings(v *Var, show func(string) string) string {
	var text string
	for _, rule := range s.Rules {
		if slices.Contains(rule.names, v.Name) {
			if says := rule.says(v.Name, show); says != "" {
				text += " " + says
			}
		}
	}
	return text
}

// summary describes the values that v accepts.
func (s Spec) summary(v *Var) string {
	kind := anyText
	if v.Into.kind != nil {
		kind = v.Into.kind()
	}
	text := "Optional: " + kind + "."
	switch {
	case v.Required:
		text = "Required: " + kind + "."
	case slices.ContainsFunc(s.Rules, func(rule Rule) bool { return slices.Contains(rule.requires, v.Name) }):
		text = sentence(kind)
	}
	if v.secret() {
		text += " A secret."
	}
	if name := v.fileName(); name != "" {
		text += " Or " + name + ": the path of a file with it."
	}
	return text + s.sayings(v, plainly)
}

// quote returns the value in a form that shells and .env readers read alike.
func quote(value string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("_-.,:/@%+=", r)
	}
	if strings.IndexFunc(value, func(r rune) bool { return !plain(r) }) < 0 {
		return value
	}
	if !strings.Contains(value, "'") && !strings.HasSuffix(value, `\`) { // see ParseDotenv
		return "'" + value + "'"
	}
	// No reader for other languages joins pieces, as in 'it'\''s', so that the
	// value is one piece.
	return `"` + inDouble.Replace(value) + `"`
}

// inDouble escapes what has a meaning within double quotes.
var inDouble = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`")

// WriteMarkdown writes a table of every variable in Markdown, for a README.
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
		doc += s.sayings(v, code)
		b.WriteString("| " + code(v.Name) + " | " + def + " | " + strings.TrimSpace(doc) + " |\n")
	}
	return b.Flush()
}

// code returns the text as code in a cell of a Markdown table.
func code(text string) string {
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`"
}

// WriteReport writes a table of every variable with the source of its value and
// its problem, followed by the names that are probably misspelt. It never shows
// a value from the environment. It returns the errors of w and the mistakes in
// the Spec; problems of the environment are only in the table. Use [Spec.Check]
// to find out whether there are any.
func (s Spec) WriteReport(w io.Writer, lookup Lookup) error {
	if err := s.validate(); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { io.WriteString(t, strings.Join(cells, "\t")+"\n") }
	row("VARIABLE", "SOURCE", "STATE")
	for _, r := range s.results(lookup) {
		state, source := "ok", string(r.source)
		if r.source == fromNowhere {
			state, source = "not set", "-"
		}
		if len(r.errs) == 0 {
			row(r.v.Name, source, state)
		}
		for _, err := range r.errs {
			state = "PROBLEM: " + err.predicate()
			if err.Name != r.v.Name {
				state = "PROBLEM: " + err.Name + " " + err.predicate()
			}
			row(r.v.Name, source, state)
		}
	}
	for _, n := range s.NearMisses(lookup) {
		row(visible(n.Set), "environment", "UNKNOWN: misspelt "+n.Like+"?")
	}
	return t.Flush()
}
