package headers

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Policy is the set of headers that every response carries. An empty field is an absent header, so the zero Policy
// sends nothing: start from Baseline or Strict. A Policy is checked by New and copied there.
type Policy struct {
	NoSniff            bool           // X-Content-Type-Options: nosniff
	FrameOptions       FrameOptions   // X-Frame-Options (RFC 7034), for browsers without frame-ancestors
	XSSProtection      XSSProtection  // X-XSS-Protection
	ReferrerPolicy     ReferrerPolicy // Referrer-Policy
	CSP                CSP            // Content-Security-Policy
	CSPReportOnly      CSP            // Content-Security-Policy-Report-Only: tried out beside CSP
	HSTS               HSTS           // Strict-Transport-Security (RFC 6797)
	Permissions        Permissions    // Permissions-Policy
	OpenerPolicy       OpenerPolicy   // Cross-Origin-Opener-Policy
	EmbedderPolicy     EmbedderPolicy // Cross-Origin-Embedder-Policy
	ResourcePolicy     ResourcePolicy // Cross-Origin-Resource-Policy
	OriginAgent        OriginAgent    // Origin-Agent-Cluster
	ReportingEndpoints []Endpoint     // Reporting-Endpoints
	CacheControl       string         // Cache-Control (RFC 9111), which a handler may replace for its own response

	// Remove names headers to delete: what outer middleware or, through Apply, an upstream server has set. A header that
	// the handler itself sets later stays, for the ResponseWriter is not wrapped.
	Remove []string
}

// FrameOptions is a value of X-Frame-Options.
type FrameOptions string

// Values of X-Frame-Options.
const (
	FrameDeny       FrameOptions = "DENY"
	FrameSameOrigin FrameOptions = "SAMEORIGIN"
)

// XSSProtection is a value of X-XSS-Protection, which steers a filter that no current browser has. OWASP advises
// XSSOff, since the filter itself could be turned against a page in the browsers that had one; scanners and older
// guides, the one behind Baseline among them, ask for XSSBlock. With a CSP that refuses inline script both are harmless.
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

// HSTS is Strict-Transport-Security. Over plain HTTP the header means nothing and RFC 6797 section 7.2 forbids it, so
// it goes out only where r.TLS is set, or where Always says that a proxy in front ends TLS for every request.
type HSTS struct {
	MaxAge            time.Duration // whole seconds; 0: no header, unless Withdraw
	IncludeSubDomains bool
	Preload           bool // asks for the browsers' built-in list, which is hard to leave: a year and IncludeSubDomains needed
	Withdraw          bool // max-age=0: browsers forget the host; MaxAge must be 0

	// Always takes every request for one that came over TLS, for this header and for upgrade-insecure-requests. Behind a
	// proxy that also serves plain HTTP it would lock users out of a site without a certificate.
	Always bool
}

// value returns the header, or "" if none is sent.
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

// An Endpoint is a name under which report-to, in a CSP, finds the URL for reports.
type Endpoint struct {
	Name string // a lower-case key of RFC 8941, say "csp"
	URL  string // https, or an absolute path on the same origin
}

// Year is the usual max-age of HSTS: 31,536,000 seconds.
const Year = 365 * 24 * time.Hour

// Baseline returns the six headers that every site can send today: nosniff, DENY for frames, the XSS filter on, a
// referrer that leaves the site as an origin only, a CSP that admits the site's own files and no inline script or style,
// and HSTS for a year.
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

// Strict returns Baseline with a CSP that starts from nothing, and with the headers that keep other origins' documents
// out of the page's process. It suits a page whose scripts, styles and images are files of its own origin, with a
// WebSocket to it: in connect-src, 'self' covers wss: of the same host. Such a page cannot embed anything of another
// origin that does not send Cross-Origin-Resource-Policy, and nobody can embed it.
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

// Canonical forms, so that a lookup in http.Header finds them.
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

// lines returns the headers whose value is a fixed text, empty ones included.
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
