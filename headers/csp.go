package headers

import (
	"errors"
	"iter"
	"slices"
	"strings"
)

// Source is one item of the value of a directive: a keyword with its quotes, a
// scheme, a host or a hash. In a directive that is not a source list, it is any
// item, such as the name of an endpoint in report-to.
type Source string

// Sources of Content Security Policy Level 3. The quotes belong to them. Write
// other keywords as strings with their quotes, such as "'unsafe-hashes'".
const (
	Self          = "'self'"
	None          = "'none'"
	Any           = "*"
	StrictDynamic = "'strict-dynamic'"

	// NonceSource becomes 'nonce-…' with a new random value of 128 bits in
	// every response; see [Nonce] and [NonceAttr].
	NonceSource = "'nonce'"
)

// CSP is a Content-Security-Policy: a list of directives in the order in which
// they were added. It is immutable; With and Without return changed copies. The
// zero value has no directive and omits the header.
//
// [New] checks a CSP; With and Without do not.
type CSP struct {
	directives []directive
}

type directive struct {
	name    string
	sources []Source
}

// With returns a copy in which the directive has exactly these sources. An
// existing directive keeps its place; a new one is added at the end. A
// directive without a value, such as upgrade-insecure-requests, takes no
// sources. With converts to lower case what browsers compare without case:
// names of directives, keywords, and the prefixes of hashes.
func (c CSP) With(name string, sources ...Source) CSP {
	d := directive{strings.ToLower(name), slices.Clone(sources)}
	for i, s := range d.sources {
		d.sources[i] = fold(d.name, s)
	}
	ds := slices.Clone(c.directives)
	if i := c.index(d.name); i >= 0 {
		ds[i] = d
	} else {
		ds = append(ds, d)
	}
	return CSP{ds}
}

// Without returns a copy without the named directives.
func (c CSP) Without(names ...string) CSP {
	var ds []directive
	for _, d := range c.directives {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, d.name) }) {
			ds = append(ds, d)
		}
	}
	return CSP{ds}
}

// Sources returns a copy of the sources of the directive, and whether the
// directive is there. It does not fall back to default-src.
func (c CSP) Sources(name string) ([]Source, bool) {
	if i := c.index(strings.ToLower(name)); i >= 0 {
		return slices.Clone(c.directives[i].sources), true
	}
	return nil, false
}

// All yields the directives in order, each with a copy of its sources.
func (c CSP) All() iter.Seq2[string, []Source] {
	return func(yield func(string, []Source) bool) {
		for _, d := range c.directives {
			if !yield(d.name, slices.Clone(d.sources)) {
				return
			}
		}
	}
}

// IsZero reports whether the CSP has no directive.
func (c CSP) IsZero() bool { return len(c.directives) == 0 }

// String returns the value of the header. NonceSource appears as 'nonce', which
// ParseCSP reads and browsers ignore.
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

// ParseCSP reads a policy in the form of the header or of a <meta> element. It
// refuses everything that [New] would refuse, and returns all mistakes, joined
// with [errors.Join], each an [*Error]. It converts the same parts to lower
// case as [CSP.With]. For every CSP c that it returns, ParseCSP(c.String())
// returns c again.
//
// Browsers skip the parts of a policy that they do not know. ParseCSP refuses
// them, because it is for a policy that you are about to send. [Grade] reads
// policies as browsers do.
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
			d.sources = append(d.sources, fold(d.name, Source(w)))
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

// isCSPSpace reports whether r is ASCII whitespace. Browsers do not split at
// other whitespace of Unicode.
func isCSPSpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\n' || r == '\f' || r == '\r'
}

// fold converts to lower case what browsers compare without case: keywords, the
// prefixes of nonces and hashes, and the tokens of a sandbox. Nonces and
// digests keep their case.
func fold(directive string, s Source) Source {
	low := Source(strings.ToLower(string(s)))
	switch {
	case directives[directive]&sandboxes != 0 && slices.Contains(sandboxTokens, low):
		return low
	case !strings.HasPrefix(string(s), "'"):
		return s
	case keywords[low] != 0:
		return low
	}
	for _, prefix := range quotedPrefixes {
		if strings.HasPrefix(string(low), prefix) {
			return low[:len(prefix)] + s[len(prefix):]
		}
	}
	return s
}
