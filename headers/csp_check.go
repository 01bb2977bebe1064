package headers

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// kind is the kind of value that a directive has, with the keywords that have a
// meaning in it.
type kind uint16

const (
	fetches    kind = 1 << iota // a source list
	scripts                     // governs script
	styles                      // governs style
	elements                    // governs elements, so nonces apply
	attributes                  // governs attributes: 'unsafe-hashes' applies
	flag                        // takes no value
	sandboxes                   // sandbox tokens
	locations                   // report-uri
	endpoint                    // report-to
	sinks                       // require-trusted-types-for
	policies                    // trusted-types
	webrtc                      // 'allow' or 'block'
	enforced                    // ignored by browsers in a report-only policy
)

const inline = scripts | styles

var directives = map[string]kind{
	"default-src":               fetches | inline | elements | attributes,
	"script-src":                fetches | scripts | elements | attributes,
	"script-src-elem":           fetches | scripts | elements,
	"script-src-attr":           fetches | scripts | attributes,
	"style-src":                 fetches | styles | elements | attributes,
	"style-src-elem":            fetches | styles | elements,
	"style-src-attr":            fetches | styles | attributes,
	"child-src":                 fetches,
	"connect-src":               fetches,
	"fenced-frame-src":          fetches,
	"font-src":                  fetches,
	"frame-src":                 fetches,
	"img-src":                   fetches,
	"manifest-src":              fetches,
	"media-src":                 fetches,
	"object-src":                fetches,
	"worker-src":                fetches,
	"base-uri":                  fetches,
	"form-action":               fetches,
	"frame-ancestors":           fetches,
	"sandbox":                   sandboxes | enforced,
	"upgrade-insecure-requests": flag | enforced,
	"report-uri":                locations,
	"report-to":                 endpoint,
	"require-trusted-types-for": sinks,
	"trusted-types":             policies,
	"webrtc":                    webrtc,
}

// keywords maps each keyword to the kinds of directive in which it has a
// meaning. One common bit is enough.
var keywords = map[Source]kind{
	"'self'":                     fetches,
	"'none'":                     fetches | policies,
	"'unsafe-inline'":            inline,
	"'unsafe-eval'":              scripts,
	"'wasm-unsafe-eval'":         scripts,
	"'trusted-types-eval'":       scripts,
	"'unsafe-hashes'":            attributes,
	"'strict-dynamic'":           scripts,
	"'report-sample'":            inline,
	"'report-sha256'":            scripts,
	"'report-sha384'":            scripts,
	"'report-sha512'":            scripts,
	"'inline-speculation-rules'": scripts,
	"'allow-duplicates'":         policies,
	"'script'":                   sinks,
	"'allow'":                    webrtc,
	"'block'":                    webrtc,
	NonceSource:                  elements,
}

var sandboxTokens = []Source{
	"allow-downloads", "allow-forms", "allow-modals", "allow-orientation-lock", "allow-pointer-lock", "allow-popups",
	"allow-popups-to-escape-sandbox", "allow-presentation", "allow-same-origin", "allow-scripts",
	"allow-storage-access-by-user-activation", "allow-top-navigation", "allow-top-navigation-by-user-activation",
	"allow-top-navigation-to-custom-protocols",
}

var schemes = []Source{"http", "https", "ws", "wss", "data", "blob", "filesystem", "mediastream"}

var (
	schemeSource = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:$`)
	hostSource   = regexp.MustCompile(`^(?:[A-Za-z][A-Za-z0-9+.-]*://)?` +
		`(?:\*|(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?)` +
		`(?::(?:[0-9]{1,5}|\*))?` +
		`(?:/(?:[A-Za-z0-9._~!$&'()*+=:@/-]|%[0-9A-Fa-f]{2})*)?$`)
	trustedTypesName = regexp.MustCompile(`^(?:\*|[A-Za-z0-9#=_/@.%-]+)$`)
)

// fault is one mistake in a CSP: in a directive, or in one item of its value.
type fault struct {
	directive string
	at        int // index of the item, or whole
	value     Source
	reason    Reason
}

const whole = -1

// field returns the path of the fault within the CSP.
func (f fault) field() string {
	if f.at == whole {
		return fmt.Sprintf("[%q]", f.directive)
	}
	return fmt.Sprintf("[%q][%d]", f.directive, f.at)
}

// check returns every mistake in the policy.
func (c CSP) check(reportOnly bool) []fault {
	var faults []fault
	for _, d := range c.directives {
		bad := func(at int, value Source, reason Reason) {
			faults = append(faults, fault{d.name, at, value, reason})
		}
		k, known := directives[d.name]
		switch {
		case !known:
			bad(whole, "", ReasonUnknown)
			continue
		case k&enforced != 0 && reportOnly:
			bad(whole, "", ReasonMisplaced)
		}
		for i, s := range d.sources {
			if reason := k.refuses(s); reason != "" {
				bad(i, s, reason)
			} else if slices.Contains(d.sources[:i], s) {
				bad(i, s, ReasonDuplicate)
			}
		}
		if reason := k.refusesList(d.sources); reason != "" {
			bad(whole, "", reason)
		}
	}
	return faults
}

func (k kind) refusesList(list []Source) Reason {
	n := len(list)
	switch {
	case n == 0 && k&(flag|sandboxes|policies) == 0:
		return ReasonEmpty
	case n > 0 && k&flag != 0, n > 1 && k&(endpoint|sinks|webrtc) != 0:
		return ReasonExtra
	case n > 1 && slices.Contains(list, None):
		return ReasonNotAlone
	case slices.Contains(list, StrictDynamic) && !slices.ContainsFunc(list, isNonceOrHash):
		return ReasonDynamic
	}
	return ""
}

// refuses returns the reason to refuse an item in a directive of this kind, or
// "".
func (k kind) refuses(s Source) Reason {
	if s == "" || strings.ContainsFunc(string(s), func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ';' || r == ',' }) {
		return ReasonCharacter
	}
	switch {
	case k&flag != 0:
		return "" // refusesList reports it
	case k&sandboxes != 0:
		if !slices.Contains(sandboxTokens, s) {
			return ReasonValue
		}
		return ""
	case k&locations != 0:
		if !isReportURL(string(s)) {
			return ReasonURL
		}
		return ""
	case k&endpoint != 0:
		if !isToken(string(s)) {
			return ReasonName
		}
		return ""
	}
	if s[0] == '\'' {
		return k.refusesQuoted(s)
	}
	if isBareKeyword(s) {
		return ReasonUnquoted
	}
	switch {
	case k&fetches != 0 && slices.Contains(schemes, Source(strings.ToLower(string(s)))):
		return ReasonColon
	case k&policies != 0 && !trustedTypesName.MatchString(string(s)):
		return ReasonName
	case k&(sinks|webrtc) != 0:
		return ReasonValue
	case k&fetches != 0 && !schemeSource.MatchString(string(s)) && !hostSource.MatchString(string(s)):
		return ReasonSource
	}
	return ""
}

func (k kind) refusesQuoted(s Source) Reason {
	if where, ok := keywords[s]; ok {
		if k&where == 0 {
			return ReasonMisplaced
		}
		return ""
	}
	switch {
	case strings.HasPrefix(string(s), "'nonce-"):
		return ReasonFixedNonce
	case !isHash(s):
		return ReasonValue
	case k&inline == 0:
		return ReasonMisplaced
	}
	return ""
}

func isNonceOrHash(s Source) bool { return s == NonceSource || isHash(s) }

// quotedPrefixes are those of sources with a value of their own.
var quotedPrefixes = []string{"'nonce-", "'sha256-", "'sha384-", "'sha512-"}

var digestLen = map[string]int{"'sha256-": 32, "'sha384-": 48, "'sha512-": 64}

// isHash accepts both alphabets of base64, as browsers do, and checks the
// length of the digest.
func isHash(s Source) bool {
	t := string(s)
	if len(t) < 9 || t[len(t)-1] != '\'' {
		return false
	}
	want, ok := digestLen[t[:8]]
	if !ok {
		return false
	}
	body := strings.NewReplacer("-", "+", "_", "/").Replace(t[8 : len(t)-1])
	sum, err := base64.StdEncoding.Strict().DecodeString(body)
	return err == nil && len(sum) == want
}

// isBareKeyword reports whether s is a keyword, nonce or hash without its
// quotes.
func isBareKeyword(s Source) bool {
	low := Source(strings.ToLower(string(s)))
	if _, ok := keywords["'"+low+"'"]; ok {
		return true
	}
	for _, prefix := range quotedPrefixes {
		if strings.HasPrefix("'"+string(low), prefix) {
			return true
		}
	}
	return false
}
