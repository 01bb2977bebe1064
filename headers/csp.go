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
// they were added. It is immutable; Add, With and Without return changed
// copies. The zero value has no directive and omits the header.
//
// [New] checks a CSP; Add, With and Without do not.
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

// Add returns a copy in which the directive has these sources beside those that
// it has. So everything that was allowed stays allowed, with two exceptions:
// browsers ignore 'unsafe-inline' next to a nonce or a hash, and hosts next to
// 'strict-dynamic'. Add drops 'none' next to other sources.
//
// If the directive is absent and browsers use another one instead, such as
// default-src instead of img-src, Add starts from a copy of the other's
// sources. If nothing restricts the directive, Add is the same as
// [CSP.With]: the new directive restricts it.
//
//	p.CSP = p.CSP.Add("script-src", "https://js.stripe.com").
//		Add("frame-src", "https://js.stripe.com")
func (c CSP) Add(name string, sources ...Source) CSP {
	name = strings.ToLower(name)
	if name == "child-src" && c.index(name) < 0 && c.index("worker-src") < 0 && c.index("script-src") >= 0 {
		// Workers would lose what they have by script-src.
		c = c.Add("worker-src", sources...)
	}
	var all []Source
	for _, s := range append(c.effective(name), sources...) {
		if s = fold(name, s); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	if len(all) > 1 {
		all = slices.DeleteFunc(all, func(s Source) bool { return s == None })
	}
	return c.With(name, all...)
}

// effective returns a copy of the sources that browsers use for the directive.
// Of the sources of another directive, it returns only those that have a
// meaning in this one.
func (c CSP) effective(name string) []Source {
	if own, ok := c.Sources(name); ok {
		return own
	}
	for _, other := range fallbacks(name) {
		if sources, ok := c.Sources(other); ok {
			return slices.DeleteFunc(sources, func(s Source) bool { return directives[name].refuses(s) != "" })
		}
	}
	return nil
}

// fallbacks returns the directives that browsers use instead of an absent one,
// in order (CSP Level 3, section 6.8.3).
func fallbacks(name string) []string {
	switch name {
	case "default-src", "base-uri", "form-action", "frame-ancestors":
		return nil
	case "script-src-elem", "script-src-attr":
		return []string{"script-src", "default-src"}
	case "style-src-elem", "style-src-attr":
		return []string{"style-src", "default-src"}
	case "worker-src":
		return []string{"child-src", "script-src", "default-src"}
	case "frame-src":
		return []string{"child-src", "default-src"}
	case "fenced-frame-src":
		return []string{"frame-src", "child-src", "default-src"}
	}
	if directives[name]&fetches != 0 {
		return []string{"default-src"}
	}
	return nil
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
