package headers

import (
	"regexp"
	"slices"
	"strings"
)

// Integrity is an Integrity-Policy (W3C Subresource Integrity): the kinds of
// file that the page loads only if their elements have an integrity attribute.
// The elements need a crossorigin attribute as well, even for files of the
// page's own origin, because browsers block requests in no-cors mode. The zero
// value omits the header.
//
// A file whose content its owner changes, such as the script of a payment
// provider, has no lasting hash. Use [Policy.IntegrityReportOnly] on pages with
// such files.
//
// By MDN's browser-compat-data of November 2026, Chromium 138, Firefox 145 and
// Safari 26 support scripts. Only Firefox supports styles.
type Integrity struct {
	Scripts bool
	Styles  bool
	// ReportTo is the name of the endpoint for reports of violations. If empty,
	// the browser shows them on its console only.
	ReportTo string
}

func (i Integrity) value() string {
	var kinds []string
	if i.Scripts {
		kinds = append(kinds, "script")
	}
	if i.Styles {
		kinds = append(kinds, "style")
	}
	switch {
	case kinds == nil:
		return ""
	case i.ReportTo == "":
		return "blocked-destinations=(" + strings.Join(kinds, " ") + ")"
	}
	return "blocked-destinations=(" + strings.Join(kinds, " ") + "), endpoints=(" + i.ReportTo + ")"
}

// Connections is a Connection-Allowlist: the URLs to which a page may connect,
// whatever the means. It covers what a CSP leaves open, such as WebRTC,
// prefetched names, and links that the user follows. Browsers enforce it beside
// the CSP. The zero value omits the header.
//
// The header is a draft of the WICG (wicg.github.io/connection-allowlists, read
// in November 2026). Only Chromium supports it, since version 152. Its syntax
// may change, and this type with it.
type Connections struct {
	// Allow holds [Self] for the origin of the page, and URL patterns such as
	// "https://api.example" or "https://*.example/v1/*". [None] alone allows no
	// connection. Patterns must not contain regular expressions, which Chromium
	// refuses.
	Allow []Source
	// Redirects allows all redirects, to any URL. Otherwise each redirect is
	// blocked, even one to an allowed URL.
	Redirects bool
	// WebRTC allows all connections of WebRTC, to any peer. Otherwise they are
	// blocked.
	WebRTC bool
	// ReportTo is the name of the endpoint for reports of violations. If empty,
	// none are sent.
	ReportTo string
}

func (c Connections) value() string {
	if len(c.Allow) == 0 {
		return ""
	}
	var items []string
	for _, s := range c.Allow {
		switch s {
		case None:
		case Self:
			items = append(items, "response-origin")
		default:
			items = append(items, `"`+string(s)+`"`)
		}
	}
	v := "(" + strings.Join(items, " ") + ")"
	if c.Redirects {
		v += ";redirects=allow"
	}
	if c.WebRTC {
		v += ";webrtc=allow"
	}
	if c.ReportTo != "" {
		v += ";report-to=" + c.ReportTo
	}
	return v
}

// urlPattern is an absolute URL pattern without regular expressions, and
// without the characters that a string of RFC 9651 would have to escape.
var urlPattern = regexp.MustCompile(`^[a-z*{][a-z0-9*{}?+.-]*://[A-Za-z0-9*{}:._-]+(?:/[A-Za-z0-9._~*{}:?#/&=%+@!$',;-]*)?$`)

func (c Connections) check(field string, bad reportFunc) {
	if len(c.Allow) == 0 && (c.Redirects || c.WebRTC || c.ReportTo != "") {
		bad(field+".Allow", ConfigMissing, "the other fields have no effect without it")
	}
	for i, s := range c.Allow {
		item := field + index(".Allow", i)
		switch {
		case slices.Contains(c.Allow[:i], s):
			bad(item, ConfigDuplicate, "%q", s)
		case s == Self:
		case s == None:
			if len(c.Allow) > 1 {
				bad(item, ConfigConflict, "%q allows no connection", s)
			}
		case !urlPattern.MatchString(string(s)):
			bad(item, ConfigMalformed, "%q is neither 'self' nor an absolute URL pattern", s)
		}
	}
}
