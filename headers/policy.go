package headers

import (
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Policy is a set of response headers. An empty field omits its header, so the
// zero Policy sends no header; start from [Baseline] or [Strict]. [New] checks
// a Policy and copies it.
//
// A field whose name ends in ReportOnly is a policy to try out: browsers report
// its violations and enforce nothing. A handler may replace Cache-Control in
// its own response.
type Policy struct {
	NoSniff            bool           // X-Content-Type-Options: nosniff
	FrameOptions       FrameOptions   // X-Frame-Options (RFC 7034)
	XSSProtection      XSSProtection  // X-XSS-Protection
	ReferrerPolicy     ReferrerPolicy // Referrer-Policy
	CSP                CSP            // Content-Security-Policy
	HSTS               HSTS           // Strict-Transport-Security (RFC 6797)
	Permissions        Permissions    // Permissions-Policy
	OpenerPolicy       OpenerPolicy   // Cross-Origin-Opener-Policy
	EmbedderPolicy     EmbedderPolicy // Cross-Origin-Embedder-Policy
	ResourcePolicy     ResourcePolicy // Cross-Origin-Resource-Policy
	OriginAgent        OriginAgent    // Origin-Agent-Cluster
	Integrity          Integrity      // Integrity-Policy
	Connections        Connections    // Connection-Allowlist
	ReportingEndpoints []Endpoint     // Reporting-Endpoints
	CacheControl       string         // Cache-Control (RFC 9111)

	CSPReportOnly            CSP            // Content-Security-Policy-Report-Only
	PermissionsReportOnly    Permissions    // Permissions-Policy-Report-Only
	OpenerPolicyReportOnly   OpenerPolicy   // Cross-Origin-Opener-Policy-Report-Only
	EmbedderPolicyReportOnly EmbedderPolicy // Cross-Origin-Embedder-Policy-Report-Only
	IntegrityReportOnly      Integrity      // Integrity-Policy-Report-Only
	ConnectionsReportOnly    Connections    // Connection-Allowlist-Report-Only

	// MoreCSP and MoreCSPReportOnly hold further policies that are sent beside
	// CSP and CSPReportOnly, in the same header. Browsers enforce each policy
	// on its own, so a further one can only forbid more.
	MoreCSP           []CSP
	MoreCSPReportOnly []CSP

	// Extra holds headers that have no field of their own, by name. [New]
	// refuses the name of a header that has a field, that net/http writes, or
	// that is not the same for all responses, such as Set-Cookie. It does not
	// know the syntax of the values, so it checks only their characters.
	Extra map[string]string

	// Remove names headers to delete: those that an outer middleware has set
	// or, with [Middleware.Apply], those of an upstream server. A header that a
	// handler sets later is not deleted, because the ResponseWriter is not
	// wrapped.
	Remove []string
}

// clone returns a copy that shares nothing that can be changed.
func (p Policy) clone() Policy {
	p.MoreCSP = slices.Clone(p.MoreCSP)
	p.MoreCSPReportOnly = slices.Clone(p.MoreCSPReportOnly)
	p.Connections.Allow = slices.Clone(p.Connections.Allow)
	p.ConnectionsReportOnly.Allow = slices.Clone(p.ConnectionsReportOnly.Allow)
	p.ReportingEndpoints = slices.Clone(p.ReportingEndpoints)
	p.Extra = maps.Clone(p.Extra)
	p.Remove = slices.Clone(p.Remove)
	return p
}

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
// connect-src includes wss:. No page can embed this one.
//
// Strict stops features that some pages need. The table shows what to set in
// order to get them back. Give back only what the page uses.
//
//	forms               CSP.Add("form-action", Self)
//	fonts               CSP.Add("font-src", Self)
//	video and sound     CSP.Add("media-src", Self)
//	inline script       CSP.Add("script-src", NonceSource)
//	copy to clipboard   Permissions.With("clipboard-write", Self)
//	full screen         Permissions.With("fullscreen", Self)
//	sign in by passkey  Permissions.With("publickey-credentials-get", Self)
//	register a passkey  Permissions.With("publickey-credentials-create", Self)
//	payment             Permissions.With("payment", Self, provider),
//	                    CSP.Add("script-src", provider),
//	                    CSP.Add("frame-src", provider), EmbedderPolicy = ""
//	sign in by a popup  OpenerPolicy = OpenerSameOriginAllowPopups
//	images of others    CSP.Add("img-src", site),
//	                    EmbedderPolicy = EmbedderCredentialless
//	frames of others    CSP.Add("frame-src", site), EmbedderPolicy = ""
//	images for others   ResourcePolicy = ResourceCrossOrigin
//	embedding pages     CSP.With("frame-ancestors", site), FrameOptions = "",
//	                    ResourcePolicy = ResourceCrossOrigin
//
// A feature in a frame of another origin needs its origin in Permissions, and
// the attribute allow on the frame. If the sign-in returns to a page of this
// site inside the popup, that page needs OpenerUnsafeNone; see
// [Middleware.With]. An embedding page needs the ResourcePolicy only if it has
// an EmbedderPolicy itself. With an EmbedderPolicy of "", the page has neither
// SharedArrayBuffer nor exact clocks.
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
	hstsHeader        = "Strict-Transport-Security"
	permissionsHeader = "Permissions-Policy"
	openerHeader      = "Cross-Origin-Opener-Policy"
	embedderHeader    = "Cross-Origin-Embedder-Policy"
	resourceHeader    = "Cross-Origin-Resource-Policy"
	agentHeader       = "Origin-Agent-Cluster"
	integrityHeader   = "Integrity-Policy"
	connectionsHeader = "Connection-Allowlist"
	endpointsHeader   = "Reporting-Endpoints"
	cacheHeader       = "Cache-Control"

	reportOnly = "-Report-Only"
)

// line is one header of a policy, with the field that sets it.
type line struct{ name, value, field string }

// lines returns all headers of the policy, including empty ones. The value of a
// CSP has NonceSource for each nonce. Without tls, the headers that need TLS
// are empty.
func (p *Policy) lines(tls bool) []line {
	sniff, hsts := "", ""
	if p.NoSniff {
		sniff = "nosniff"
	}
	if tls {
		hsts = p.HSTS.value()
	}
	all := []line{
		{sniffHeader, sniff, "NoSniff"},
		{frameHeader, string(p.FrameOptions), "FrameOptions"},
		{xssHeader, string(p.XSSProtection), "XSSProtection"},
		{referrerHeader, string(p.ReferrerPolicy), "ReferrerPolicy"},
		{permissionsHeader, p.Permissions.String(), "Permissions"},
		{permissionsHeader + reportOnly, p.PermissionsReportOnly.String(), "PermissionsReportOnly"},
		{openerHeader, string(p.OpenerPolicy), "OpenerPolicy"},
		{openerHeader + reportOnly, string(p.OpenerPolicyReportOnly), "OpenerPolicyReportOnly"},
		{embedderHeader, string(p.EmbedderPolicy), "EmbedderPolicy"},
		{embedderHeader + reportOnly, string(p.EmbedderPolicyReportOnly), "EmbedderPolicyReportOnly"},
		{resourceHeader, string(p.ResourcePolicy), "ResourcePolicy"},
		{agentHeader, string(p.OriginAgent), "OriginAgent"},
		{integrityHeader, p.Integrity.value(), "Integrity"},
		{integrityHeader + reportOnly, p.IntegrityReportOnly.value(), "IntegrityReportOnly"},
		{connectionsHeader, p.Connections.value(), "Connections"},
		{connectionsHeader + reportOnly, p.ConnectionsReportOnly.value(), "ConnectionsReportOnly"},
		{endpointsHeader, endpointsValue(p.ReportingEndpoints), "ReportingEndpoints"},
		{cacheHeader, p.CacheControl, "CacheControl"},
		{hstsHeader, hsts, "HSTS"},
		{cspHeader, cspValue(p.CSP, p.MoreCSP, tls), "CSP"},
		{cspHeader + reportOnly, cspValue(p.CSPReportOnly, p.MoreCSPReportOnly, tls), "CSPReportOnly"},
	}
	for _, name := range slices.Sorted(maps.Keys(p.Extra)) {
		all = append(all, line{http.CanonicalHeaderKey(name), p.Extra[name], index("Extra", name)})
	}
	return all
}

// cspValue joins policies. A comma between them is the same as a header for
// each (RFC 9110, section 5.3), and a second header could be taken for a
// mistake.
func cspValue(first CSP, more []CSP, tls bool) string {
	var values []string
	for _, c := range append([]CSP{first}, more...) {
		if !tls {
			c = c.Without("upgrade-insecure-requests")
		}
		if !c.IsZero() {
			values = append(values, c.String())
		}
	}
	return strings.Join(values, ", ")
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
