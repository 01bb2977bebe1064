package headers

import (
	"errors"
	"iter"
	"slices"
	"strings"
)

// A Source is one item of a directive's value: a keyword with its quotes, a scheme, a host, a hash, or, in directives
// that are no source lists, whatever stands there (an endpoint's name in report-to).
type Source string

// Sources of Content Security Policy Level 3. The quotes belong to them. Write the
// others as they are, with their quotes: "'unsafe-hashes'".
const (
	Self          = "'self'"
	None          = "'none'"
	Any           = "*"
	StrictDynamic = "'strict-dynamic'"

	// NonceSource stands for 'nonce-…' with 128 fresh bits in every response; see Nonce and NonceAttr.
	NonceSource = "'nonce'"
)

// A CSP is a Content-Security-Policy: directives in the order in which they were added. It is immutable; With and
// Without return changed copies, so a CSP may be shared and derived from anywhere. The zero value is no policy.
//
// A CSP is checked by New, not while it is put together.
type CSP struct {
	directives []directive
}

type directive struct {
	name    string
	sources []Source
}

// With returns a copy in which the directive has exactly these sources. A directive that was there keeps its place, a
// new one goes to the end. Directives without a value (upgrade-insecure-requests) take no sources.
func (c CSP) With(name string, sources ...Source) CSP {
	d := directive{strings.ToLower(name), slices.Clone(sources)}
	ds := slices.Clone(c.directives)
	if i := c.index(d.name); i >= 0 {
		ds[i] = d
	} else {
		ds = append(ds, d)
	}
	return CSP{ds}
}

// Without returns a copy that lacks the directives.
func (c CSP) Without(names ...string) CSP {
	var ds []directive
	for _, d := range c.directives {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, d.name) }) {
			ds = append(ds, d)
		}
	}
	return CSP{ds}
}

// Sources returns a copy of the directive's sources, and whether the directive is there. It does not fall back to
// default-src.
func (c CSP) Sources(name string) ([]Source, bool) {
	if i := c.index(strings.ToLower(name)); i >= 0 {
		return slices.Clone(c.directives[i].sources), true
	}
	return nil, false
}

// All yields the directives in order.
func (c CSP) All() iter.Seq2[string, []Source] {
	return func(yield func(string, []Source) bool) {
		for _, d := range c.directives {
			if !yield(d.name, slices.Clone(d.sources)) {
				return
			}
		}
	}
}

// IsZero reports whether the policy has no directive, and so no header.
func (c CSP) IsZero() bool { return len(c.directives) == 0 }

// String returns the header's value. NonceSource appears as 'nonce', a form that ParseCSP reads and browsers ignore.
func (c CSP) String() string {
	var b strings.Builder
	for i, d := range c.directives {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(d.name)
		for _, s := range d.sources {
			b.WriteByte(' ')
			b.WriteString(string(s))
		}
	}
	return b.String()
}

func (c CSP) index(name string) int {
	return slices.IndexFunc(c.directives, func(d directive) bool { return d.name == name })
}

func (c CSP) has(s Source) bool {
	return slices.ContainsFunc(c.directives, func(d directive) bool { return slices.Contains(d.sources, s) })
}

// ParseCSP reads a policy as a header or a <meta> element carries it, and refuses what New would refuse in it, all at
// once. Directive names and quoted keywords are folded to lower case. For every policy it accepts,
// ParseCSP(c.String()) gives c again.
//
// Browsers are more lenient: they skip what they do not know. This one is for policies that somebody is about to send;
// Grade reads as browsers do.
func ParseCSP(policy string) (CSP, error) {
	var c CSP
	var errs []error
	for part := range strings.SplitSeq(policy, ";") {
		words := strings.FieldsFunc(part, isCSPSpace)
		if len(words) == 0 {
			continue
		}
		d := directive{name: strings.ToLower(words[0])}
		for _, w := range words[1:] {
			d.sources = append(d.sources, foldKeyword(Source(w)))
		}
		if c.index(d.name) >= 0 {
			errs = append(errs, &Error{Directive: d.name, Reason: ReasonDuplicate})
			continue
		}
		c.directives = append(c.directives, d)
	}
	for _, f := range c.check(false) {
		errs = append(errs, &Error{Directive: f.directive, Value: string(f.value), Reason: f.reason})
	}
	if len(errs) > 0 {
		return CSP{}, errors.Join(errs...)
	}
	return c, nil
}

// isCSPSpace is the ASCII whitespace of the grammar; Unicode has more, which browsers do not split at.
func isCSPSpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\n' || r == '\f' || r == '\r'
}

// foldKeyword lowers a quoted keyword; nonces and hashes are case-sensitive after their prefix.
func foldKeyword(s Source) Source {
	if len(s) > 1 && s[0] == '\'' {
		if low := Source(strings.ToLower(string(s))); keywords[low] != 0 {
			return low
		}
	}
	return s
}
