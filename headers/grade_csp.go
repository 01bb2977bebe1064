package headers

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Outcomes of the Observatory's test of the CSP.
const (
	cspNone        = "csp-implemented-with-no-unsafe-default-src-none"
	cspSafe        = "csp-implemented-with-no-unsafe"
	cspStyleOnly   = "csp-implemented-with-unsafe-inline-in-style-src-only"
	cspPassive     = "csp-implemented-with-insecure-scheme-in-passive-content-only"
	cspEval        = "csp-implemented-with-unsafe-eval"
	cspInline      = "csp-implemented-with-unsafe-inline"
	cspActive      = "csp-implemented-with-insecure-scheme"
	cspInvalid     = "csp-header-invalid"
	cspAbsent      = "csp-not-implemented"
	cspReportsOnly = "csp-not-implemented-but-reporting-enabled"
	cspDuplicates  = "csp-implemented-but-duplicate-directives"
)

// sources is the value of a directive as a set. Two directives that fall back
// to default-src share one set, so a source that is deleted from one is deleted
// from both, as in the Observatory.
type sources map[string]bool

func (s sources) any(is func(string) bool) bool {
	for src := range s {
		if is(src) {
			return true
		}
	}
	return false
}

// observation is a CSP as the Observatory reads it.
type observation struct {
	directives map[string]sources
	repeated   bool // report-uri or report-to occurs twice in one policy
	result     string
}

// minPolicy is the length of the shortest text that the Observatory reads.
const minPolicy = 6

// seen is a source of a directive, with the policy that it is from.
type seen struct {
	source string
	policy int
	keep   bool
}

// readPolicies combines the policies of a header, which commas separate, and
// returns whether they can be read. It accepts unknown directives and sources.
//
// The Observatory keeps the sources of the first policy that a later one has as
// well. A directive that only a later policy has keeps no source. That is not
// how browsers combine policies; see the remark on several policies.
func readPolicies(header string) (o observation, ok bool) {
	policies := strings.Split(header, ",")
	lists := make(map[string][]seen)
	for i, policy := range policies {
		policy = strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(policy))
		if policies[i] = policy; len(policy) < minPolicy {
			return observation{}, false
		}
	}
	for i, policy := range policies {
		here := make(map[string]bool)
		for part := range strings.SplitSeq(policy, ";") {
			words := strings.Fields(strings.ToLower(part))
			if len(words) == 0 {
				continue
			}
			name := words[0]
			if here[name] && name != "report-uri" && name != "report-to" {
				return observation{}, false
			}
			o.repeated = o.repeated || here[name]
			here[name] = true
			if len(words) == 1 && strings.HasSuffix(name, "-src") {
				words = append(words, None)
			}
			var list []seen
			if i > 0 {
				list = slices.Clone(lists[name])
			}
			for _, w := range words[1:] {
				list = append(list, seen{w, i, i == 0})
			}
			if list, ok = combine(list); !ok {
				return observation{}, false
			}
			for j := range list {
				list[j].keep = list[j].keep && (i > 0 || len(policies) == 1)
			}
			lists[name] = list
		}
	}
	o.directives = make(map[string]sources)
	for name, list := range lists {
		set := make(sources)
		for _, s := range list {
			set[s.source] = true
		}
		if len(set) == 0 {
			set[None] = true
		}
		o.directives[name] = set
	}
	return o, true
}

// combine sorts the sources of a directive and returns those to keep. It
// returns false if a path that it compares is not escaped correctly.
func combine(list []seen) (kept []seen, ok bool) {
	slices.SortStableFunc(list, func(a, b seen) int { return collate(a.source, b.source) })
	for i := 1; i < len(list); i++ {
		s, prev := &list[i], list[i-1]
		if s.policy == prev.policy {
			s.keep = s.keep && !strings.HasPrefix(s.source, prev.source)
			continue
		}
		matches, ok := matchPath(prev.source, s.source)
		if !ok {
			return nil, false
		}
		s.keep = s.keep || matches
	}
	for _, s := range list {
		if s.keep {
			kept = append(kept, s)
		}
	}
	return kept, true
}

// collation is the order of the characters of a source in English (CLDR).
const collation = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz"

func collate(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if c := strings.IndexByte(collation, a[i]) - strings.IndexByte(collation, b[i]); c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}

// matchPath reports whether b is a, or begins with a if a ends in a slash.
func matchPath(a, b string) (matches, ok bool) {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	exact := !strings.HasSuffix(a, "/")
	if len(as) > len(bs) || exact && len(as) != len(bs) {
		return false, true
	}
	if !exact {
		as = as[:len(as)-1]
	}
	for i := range as {
		x, errX := url.PathUnescape(as[i])
		y, errY := url.PathUnescape(bs[i])
		if errX != nil || errY != nil || !utf8.ValidString(x) || !utf8.ValidString(y) {
			return false, false
		}
		if x != y {
			return false, true
		}
	}
	return true, true
}

// of returns the sources of the directive or of its fallback.
func (o observation) of(name string) sources {
	for _, n := range []string{name, "default-src"} {
		if s := o.directives[n]; s != nil {
			return s
		}
	}
	return sources{"*": true}
}

func observe(h http.Header, tls bool) observation {
	value, present := observed(h, cspHeader)
	o := observation{}
	if present {
		var ok bool
		if o, ok = readPolicies(value); !ok {
			return observation{result: cspInvalid}
		}
	}
	if len(o.directives) == 0 {
		o.result = cspAbsent
		if v, _ := observed(h, cspHeader+reportOnly); v != "" {
			o.result = cspReportsOnly
		}
		return o
	}
	o.result = o.judge(tls)
	if o.repeated {
		switch o.result {
		case cspNone, cspSafe, cspStyleOnly, cspPassive:
			o.result = cspDuplicates
		}
	}
	return o
}

func (o observation) judge(tls bool) string {
	script, style, object := o.of("script-src"), o.of("style-src"), o.of("object-src")

	// Browsers that know nonces and hashes ignore 'unsafe-inline' beside them.
	for _, s := range []sources{script, style} {
		if s.any(isNonceOrHashText) {
			delete(s, "'unsafe-inline'")
		}
	}
	// Browsers that know 'strict-dynamic' ignore hosts and schemes beside it.
	if script["'strict-dynamic'"] {
		if !script.any(isNonceOrHashText) {
			return cspInvalid
		}
		for src := range script {
			if src == "'self'" || src == "'unsafe-inline'" || hasAnyPrefix(src, "*", "http:", "https:", "ftp:") {
				delete(script, src)
			}
		}
	}

	none := o.directives["default-src"]
	switch {
	case script.any(isUnsafe), object.any(isBroad):
		return cspInline
	case tls && o.anyActive(isInsecureScheme):
		return cspActive
	case script["'unsafe-eval'"], style["'unsafe-eval'"]:
		return cspEval
	case tls && (o.passive("img-src").any(isInsecureScheme) || o.passive("media-src").any(isInsecureScheme)):
		return cspPassive
	case style.any(isUnsafe):
		return cspStyleOnly
	case len(none) == 1 && none["'none'"]:
		return cspNone
	}
	return cspSafe
}

// anyActive reports whether is returns true for a source of any directive
// except img-src and media-src. It also tests the URLs of report-uri.
func (o observation) anyActive(is func(string) bool) bool {
	for name, set := range o.directives {
		if name != "img-src" && name != "media-src" && set.any(is) {
			return true
		}
	}
	return false
}

func (o observation) passive(name string) sources {
	if o.directives[name] == nil && o.directives["default-src"] == nil {
		return nil
	}
	return o.of(name)
}

func isBroad(src string) bool {
	switch src {
	case "*", "http:", "https:", "ftp:", "http://*", "https://*", "http://*.*", "https://*.*":
		return true
	}
	return false
}

func isUnsafe(src string) bool { return isBroad(src) || src == "'unsafe-inline'" || src == "data:" }

func isInsecureScheme(src string) bool { return hasAnyPrefix(src, "http:", "ftp:") }

func isNonceOrHashText(src string) bool {
	return hasAnyPrefix(src, "'nonce-", "'sha256-", "'sha384-", "'sha512-")
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
