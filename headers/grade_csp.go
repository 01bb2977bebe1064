package headers

import (
	"net/http"
	"strings"
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
	repeated   bool // report-uri or report-to occurs twice
	result     string
}

// minPolicy is the length of the shortest text that the Observatory reads.
const minPolicy = 6

// readPolicy returns the policy, and whether it can be read. It accepts unknown
// directives and sources.
func readPolicy(policy string) (o observation, ok bool) {
	o.directives = make(map[string]sources)
	policy = strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(policy))
	if len(policy) < minPolicy {
		return o, false
	}
	for part := range strings.SplitSeq(policy, ";") {
		words := strings.Fields(strings.ToLower(part))
		if len(words) == 0 {
			continue
		}
		name := words[0]
		if o.directives[name] != nil {
			if name != "report-uri" && name != "report-to" {
				return observation{}, false
			}
			o.repeated = true
		}
		set := make(sources)
		for _, w := range words[1:] {
			set[w] = true
		}
		if len(set) == 0 {
			set["'none'"] = true
		}
		o.directives[name] = set
	}
	return o, true
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
		if o, ok = readPolicy(value); !ok {
			return observation{result: cspInvalid}
		}
	}
	if len(o.directives) == 0 {
		o.result = cspAbsent
		if v, _ := observed(h, reportOnlyHeader); v != "" {
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
