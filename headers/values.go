package headers

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// FrameOptions is a value of X-Frame-Options. It is for browsers that do not
// know frame-ancestors of a CSP; all others ignore it next to frame-ancestors.
// So [New] refuses a value that allows less than frame-ancestors does.
type FrameOptions string

// Values of X-Frame-Options.
const (
	FrameDeny       FrameOptions = "DENY"
	FrameSameOrigin FrameOptions = "SAMEORIGIN"
)

// XSSProtection is a value of X-XSS-Protection. The header controls a filter
// that no current browser has. OWASP recommends XSSOff, because attackers could
// use the filter itself against a page in browsers that had it. Scanners and
// older guides, such as the one that Baseline follows, require XSSBlock. With a
// CSP that refuses inline script, both are harmless.
type XSSProtection string

// Values of X-XSS-Protection.
const (
	XSSBlock XSSProtection = "1; mode=block"
	XSSOff   XSSProtection = "0"
)

// ReferrerPolicy is a value of Referrer-Policy, or several values with commas
// between them. Of several, browsers follow the last one that they know
// (Referrer Policy, section 11.1), so the values before it are fallbacks for
// older browsers:
//
//	headers.ReferrerNone + ", " + headers.ReferrerStrictOriginWhenCrossOrigin
type ReferrerPolicy string

// Values of Referrer-Policy.
const (
	ReferrerNone                        ReferrerPolicy = "no-referrer"
	ReferrerNoneWhenDowngrade           ReferrerPolicy = "no-referrer-when-downgrade"
	ReferrerOrigin                      ReferrerPolicy = "origin"
	ReferrerOriginWhenCrossOrigin       ReferrerPolicy = "origin-when-cross-origin"
	ReferrerSameOrigin                  ReferrerPolicy = "same-origin"
	ReferrerStrictOrigin                ReferrerPolicy = "strict-origin"
	ReferrerStrictOriginWhenCrossOrigin ReferrerPolicy = "strict-origin-when-cross-origin"
	ReferrerUnsafeURL                   ReferrerPolicy = "unsafe-url"
)

// OpenerPolicy is a value of Cross-Origin-Opener-Policy.
type OpenerPolicy string

// Values of Cross-Origin-Opener-Policy.
const (
	OpenerSameOrigin            OpenerPolicy = "same-origin"
	OpenerSameOriginAllowPopups OpenerPolicy = "same-origin-allow-popups"
	OpenerNoopenerAllowPopups   OpenerPolicy = "noopener-allow-popups"
	OpenerUnsafeNone            OpenerPolicy = "unsafe-none"
)

// ReportTo returns the value with the endpoint to which browsers report what
// the policy blocks. [Policy.ReportingEndpoints] defines the endpoint.
func (p OpenerPolicy) ReportTo(endpoint string) OpenerPolicy { return withReportTo(p, endpoint) }

// EmbedderPolicy is a value of Cross-Origin-Embedder-Policy.
type EmbedderPolicy string

// Values of Cross-Origin-Embedder-Policy.
const (
	EmbedderRequireCORP    EmbedderPolicy = "require-corp"
	EmbedderCredentialless EmbedderPolicy = "credentialless"
	EmbedderUnsafeNone     EmbedderPolicy = "unsafe-none"
)

// ReportTo returns the value with the endpoint to which browsers report what
// the policy blocks. [Policy.ReportingEndpoints] defines the endpoint.
func (p EmbedderPolicy) ReportTo(endpoint string) EmbedderPolicy { return withReportTo(p, endpoint) }

const reportToParameter = `; report-to="`

func withReportTo[T ~string](value T, endpoint string) T {
	return value + reportToParameter + T(endpoint) + `"`
}

// cutReportTo is the reverse of withReportTo. If there is no parameter, the
// endpoint is "".
func cutReportTo[T ~string](value T) (bare T, endpoint string) {
	before, after, _ := strings.Cut(string(value), reportToParameter)
	name, ok := strings.CutSuffix(after, `"`)
	if !ok {
		return value, ""
	}
	return T(before), name
}

// ResourcePolicy is a value of Cross-Origin-Resource-Policy.
type ResourcePolicy string

// Values of Cross-Origin-Resource-Policy.
const (
	ResourceSameOrigin  ResourcePolicy = "same-origin"
	ResourceSameSite    ResourcePolicy = "same-site"
	ResourceCrossOrigin ResourcePolicy = "cross-origin"
)

// OriginAgent is a value of Origin-Agent-Cluster.
type OriginAgent string

// Values of Origin-Agent-Cluster.
const (
	AgentOriginKeyed OriginAgent = "?1"
	AgentSiteKeyed   OriginAgent = "?0"
)

// Year is a common MaxAge of HSTS: 31,536,000 seconds.
const Year = 365 * 24 * time.Hour

// HSTS is a value of Strict-Transport-Security. RFC 6797, section 7.2, forbids
// the header over plain HTTP, where browsers ignore it. So it is sent only if
// r.TLS is set, or if Always or Secure says so.
type HSTS struct {
	// MaxAge is the time for which browsers use only TLS, in whole seconds. If
	// zero, the header is not sent, unless Withdraw is set.
	MaxAge            time.Duration
	IncludeSubDomains bool
	// Preload asks to be in the list that is built into browsers. It needs
	// MaxAge of a year and IncludeSubDomains. It is hard to leave the list
	// again.
	Preload bool
	// Withdraw sends max-age=0, so that browsers forget the host. MaxAge must
	// be 0.
	Withdraw bool

	// Always treats every request as one over TLS, for this header and for
	// upgrade-insecure-requests. Set it if a proxy in front ends TLS for every
	// request. If the proxy also serves plain HTTP and the site has no
	// certificate, users cannot reach the site any more.
	Always bool
	// Secure decides instead of r.TLS, for this header and for
	// upgrade-insecure-requests. Set it if a proxy in front ends TLS for some
	// requests only, or if some hosts of the site must not have the header.
	// Read only request headers that your proxy always sets itself. Secure is
	// called once per response, by several goroutines at once. If nil, r.TLS
	// decides. It excludes Always.
	Secure func(*http.Request) bool
}

// covers reports whether the response to r counts as one over TLS.
func (h *HSTS) covers(r *http.Request) bool {
	if h.Secure != nil {
		return h.Secure(r)
	}
	return h.Always || r.TLS != nil
}

// value returns the value of the header, or "" if it is not sent.
func (h HSTS) value() string {
	if h.MaxAge == 0 && !h.Withdraw {
		return ""
	}
	s := "max-age=" + strconv.FormatInt(int64(h.MaxAge/time.Second), 10)
	if h.IncludeSubDomains {
		s += "; includeSubDomains"
	}
	if h.Preload {
		s += "; preload"
	}
	return s
}

// Endpoint gives a name to a URL for reports. The directive report-to of a CSP
// and the ReportTo of other headers refer to the name. Chromium sends some
// reports, such as those on deprecated features, to the endpoint called
// "default".
type Endpoint struct {
	Name string // a lower-case key of RFC 9651, such as "csp"
	URL  string // an https URL, or an absolute path on the same origin
}
