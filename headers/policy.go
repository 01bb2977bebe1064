package headers

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Policy is a set of response headers. An empty field omits its header, so the
// zero Policy sends no header; start from [Baseline] or [Strict]. [New] checks
// a Policy and copies it.
//
// Browsers enforce CSP. They only report violations of CSPReportOnly, so you
// can try out a CSP there. A handler may replace Cache-Control in its own
// response.
type Policy struct {
	NoSniff            bool           // X-Content-Type-Options: nosniff
	FrameOptions       FrameOptions   // X-Frame-Options (RFC 7034)
	XSSProtection      XSSProtection  // X-XSS-Protection
	ReferrerPolicy     ReferrerPolicy // Referrer-Policy
	CSP                CSP            // Content-Security-Policy
	CSPReportOnly      CSP            // Content-Security-Policy-Report-Only
	HSTS               HSTS           // Strict-Transport-Security (RFC 6797)
	Permissions        Permissions    // Permissions-Policy
	OpenerPolicy       OpenerPolicy   // Cross-Origin-Opener-Policy
	EmbedderPolicy     EmbedderPolicy // Cross-Origin-Embedder-Policy
	ResourcePolicy     ResourcePolicy // Cross-Origin-Resource-Policy
	OriginAgent        OriginAgent    // Origin-Agent-Cluster
	ReportingEndpoints []Endpoint     // Reporting-Endpoints
	CacheControl       string         // Cache-Control (RFC 9111)

	// Remove names headers to delete: those that an outer middleware has set
	// or, with [Middleware.Apply], those of an upstream server. A header that a
	// handler sets later is not deleted, because the ResponseWriter is not
	// wrapped.
	Remove []string
}

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

// ReferrerPolicy is a value of Referrer-Policy.
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

// EmbedderPolicy is a value of Cross-Origin-Embedder-Policy.
type EmbedderPolicy string

// Values of Cross-Origin-Embedder-Policy.
const (
	EmbedderRequireCORP    EmbedderPolicy = "require-corp"
	EmbedderCredentialless EmbedderPolicy = "credentialless"
	EmbedderUnsafeNone     EmbedderPolicy = "unsafe-none"
)

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

// HSTS is a value of Strict-Transport-Security. RFC 6797, section 7.2, forbids
// the header over plain HTTP, where browsers ignore it. So it is sent only if
// r.TLS is set, or if Always is.
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
// refers to the name.
type Endpoint struct {
	Name string // a lower-case key of RFC 8941, such as "csp"
	URL  string // an https URL, or an absolute path on the same origin
}

// Year is a common MaxAge of HSTS: 31,536,000 seconds.
const Year = 365 * 24 * time.Hour

// Baseline returns the six headers that every site can send today: nosniff,
// DENY for frames, the XSS filter in block mode, a referrer that is only the
// origin for other sites, a CSP that allows files of the site and no inline
// script or style, and HSTS for a year.
func Baseline() Policy {
	return Policy{
		NoSniff:        true,
		FrameOptions:   FrameDeny,
		XSSProtection:  XSSBlock,
		ReferrerPolicy: ReferrerStrictOriginWhenCrossOrigin,
		CSP: CSP{}.
			With("default-src", Self).
			With("script-src", Self).
			With("style-src", Self).
			With("connect-src", Self).
			With("object-src", None).
			With("base-uri", Self).
			With("form-action", Self).
			With("frame-ancestors", None),
		HSTS: HSTS{MaxAge: Year, IncludeSubDomains: true},
	}
}

// Strict returns Baseline with a stricter CSP, which starts from default-src
// 'none', and with headers that isolate the page's process from documents of
// other origins. It is for a page whose scripts, styles and images are files of
// its own origin. A WebSocket to the same host is allowed, since 'self' in
// connect-src includes wss:. The page can embed a resource of another origin
// only if the resource has Cross-Origin-Resource-Policy. No page can embed this
// one.
func Strict() Policy {
	p := Baseline()
	p.CSP = CSP{}.
		With("default-src", None).
		With("script-src", Self).
		With("style-src", Self).
		With("connect-src", Self).
		With("img-src", Self).
		With("base-uri", None).
		With("form-action", None).
		With("frame-ancestors", None).
		With("object-src", None)
	p.Permissions = DenyAll()
	p.OpenerPolicy = OpenerSameOrigin
	p.EmbedderPolicy = EmbedderRequireCORP
	p.ResourcePolicy = ResourceSameOrigin
	p.OriginAgent = AgentOriginKeyed
	return p
}

// The names are in canonical form, so that a lookup in an http.Header finds
// them.
const (
	sniffHeader       = "X-Content-Type-Options"
	frameHeader       = "X-Frame-Options"
	xssHeader         = "X-Xss-Protection"
	referrerHeader    = "Referrer-Policy"
	cspHeader         = "Content-Security-Policy"
	reportOnlyHeader  = "Content-Security-Policy-Report-Only"
	hstsHeader        = "Strict-Transport-Security"
	permissionsHeader = "Permissions-Policy"
	openerHeader      = "Cross-Origin-Opener-Policy"
	embedderHeader    = "Cross-Origin-Embedder-Policy"
	resourceHeader    = "Cross-Origin-Resource-Policy"
	agentHeader       = "Origin-Agent-Cluster"
	endpointsHeader   = "Reporting-Endpoints"
	cacheHeader       = "Cache-Control"
)

// line is one header of a policy.
type line struct{ name, value string }

// lines returns the headers whose value is a fixed text, including empty ones.
func (p *Policy) lines() []line {
	sniff := ""
	if p.NoSniff {
		sniff = "nosniff"
	}
	return []line{
		{sniffHeader, sniff},
		{frameHeader, string(p.FrameOptions)},
		{xssHeader, string(p.XSSProtection)},
		{referrerHeader, string(p.ReferrerPolicy)},
		{permissionsHeader, p.Permissions.String()},
		{openerHeader, string(p.OpenerPolicy)},
		{embedderHeader, string(p.EmbedderPolicy)},
		{resourceHeader, string(p.ResourcePolicy)},
		{agentHeader, string(p.OriginAgent)},
		{endpointsHeader, endpointsValue(p.ReportingEndpoints)},
		{cacheHeader, p.CacheControl},
	}
}

func endpointsValue(es []Endpoint) string {
	parts := make([]string, len(es))
	for i, e := range es {
		parts[i] = e.Name + `="` + e.URL + `"`
	}
	return strings.Join(parts, ", ")
}

var (
	sfKey     = regexp.MustCompile(`^[a-z*][a-z0-9_.*-]*$`)
	urlText   = regexp.MustCompile(`^[A-Za-z0-9._~:/?#@!$&'()*+=%\[\]-]+$`)
	cacheItem = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+" + `(?:=(?:[A-Za-z0-9._-]+|"[^"\\;\x00-\x1f\x7f-\xff]*"))?$`)
)

func isReportURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || !urlText.MatchString(s) || u.Fragment != "" || u.User != nil {
		return false
	}
	if u.Scheme == "" {
		return u.Host == "" && strings.HasPrefix(s, "/")
	}
	return u.Scheme == "https" && u.Host != ""
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
