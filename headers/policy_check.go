package headers

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// check returns every mistake in the policy.
func (p *Policy) check() []error {
	var errs []error
	refuse := func(field string, reason error) { errs = append(errs, &ConfigError{"Policy." + field, reason}) }
	bad := func(field string, reason ConfigReason, format string, args ...any) {
		refuse(field, fmt.Errorf("%w: "+format, slices.Concat([]any{reason}, args)...))
	}

	oneOf(bad, "FrameOptions", p.FrameOptions, FrameDeny, FrameSameOrigin)
	oneOf(bad, "XSSProtection", p.XSSProtection, XSSBlock, XSSOff)
	p.checkReferrer(bad)
	for _, o := range []fieldOf[OpenerPolicy]{
		{"OpenerPolicy", p.OpenerPolicy}, {"OpenerPolicyReportOnly", p.OpenerPolicyReportOnly},
	} {
		value, _ := cutReportTo(o.value)
		oneOf(bad, o.field, value, OpenerSameOrigin, OpenerSameOriginAllowPopups, OpenerNoopenerAllowPopups,
			OpenerUnsafeNone)
	}
	for _, e := range []fieldOf[EmbedderPolicy]{
		{"EmbedderPolicy", p.EmbedderPolicy}, {"EmbedderPolicyReportOnly", p.EmbedderPolicyReportOnly},
	} {
		value, _ := cutReportTo(e.value)
		oneOf(bad, e.field, value, EmbedderRequireCORP, EmbedderCredentialless, EmbedderUnsafeNone)
	}
	oneOf(bad, "ResourcePolicy", p.ResourcePolicy, ResourceSameOrigin, ResourceSameSite, ResourceCrossOrigin)
	oneOf(bad, "OriginAgent", p.OriginAgent, AgentOriginKeyed, AgentSiteKeyed)

	for _, c := range p.csps() {
		for _, f := range c.value.check(strings.Contains(c.field, "ReportOnly")) {
			var reason error = f.reason
			if f.at != whole {
				reason = fmt.Errorf("%w: %q", reason, f.value)
			}
			refuse(c.field+f.field(), reason)
		}
	}
	p.checkFrames(bad)
	p.Permissions.check("Permissions", bad)
	p.PermissionsReportOnly.check("PermissionsReportOnly", bad)
	p.checkHSTS(bad)
	p.Connections.check("Connections", bad)
	p.ConnectionsReportOnly.check("ConnectionsReportOnly", bad)
	p.checkIntegrity(bad)
	p.checkEndpoints(bad)
	p.checkCache(bad)
	p.checkExtra(bad)
	p.checkRemove(bad)
	return errs
}

// reportFunc gets one mistake: the path of the field in the Policy, the reason,
// and its details as for fmt.Sprintf.
type reportFunc func(field string, reason ConfigReason, format string, args ...any)

// fieldOf is the value of a field of a Policy, with the name of the field.
type fieldOf[T any] struct {
	field string
	value T
}

// index returns the path of an element of a list or a map.
func index(field string, key any) string { return fmt.Sprintf("%s[%#v]", field, key) }

func (p *Policy) csps() []fieldOf[CSP] {
	all := []fieldOf[CSP]{{"CSP", p.CSP}, {"CSPReportOnly", p.CSPReportOnly}}
	for i, c := range p.MoreCSP {
		all = append(all, fieldOf[CSP]{index("MoreCSP", i), c})
	}
	for i, c := range p.MoreCSPReportOnly {
		all = append(all, fieldOf[CSP]{index("MoreCSPReportOnly", i), c})
	}
	return all
}

func oneOf[T ~string](bad reportFunc, field string, got T, want ...T) {
	switch {
	case got == "" || slices.Contains(want, got):
	case !isPrintable(string(got)):
		bad(field, ConfigMalformed, "%q contains a character that is not allowed there", got)
	default:
		bad(field, ConfigUnknown, "%q", got)
	}
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

func (p *Policy) checkReferrer(bad reportFunc) {
	if p.ReferrerPolicy == "" {
		return
	}
	var seen []string
	for item := range strings.SplitSeq(string(p.ReferrerPolicy), ",") {
		item = strings.Trim(item, " ")
		switch {
		case item == "":
			bad("ReferrerPolicy", ConfigMalformed, "%q has an empty item", p.ReferrerPolicy)
		case slices.Contains(seen, item):
			bad("ReferrerPolicy", ConfigDuplicate, "%q", item)
		}
		oneOf(bad, "ReferrerPolicy", ReferrerPolicy(item), ReferrerNone, ReferrerNoneWhenDowngrade, ReferrerOrigin,
			ReferrerOriginWhenCrossOrigin, ReferrerSameOrigin, ReferrerStrictOrigin, ReferrerStrictOriginWhenCrossOrigin,
			ReferrerUnsafeURL)
		seen = append(seen, item)
	}
}

// checkFrames refuses a FrameOptions that is stricter than frame-ancestors.
// Browsers that know frame-ancestors ignore X-Frame-Options next to it (CSP
// Level 3, section 6.4.2.2), so the page could be framed in spite of DENY. Of
// several policies with frame-ancestors, all must allow the frame.
func (p *Policy) checkFrames(bad reportFunc) {
	var allowed []Source
	for _, c := range append([]CSP{p.CSP}, p.MoreCSP...) {
		ancestors, ok := c.Sources("frame-ancestors")
		if !ok || p.FrameOptions == "" {
			continue
		}
		i := slices.IndexFunc(ancestors, func(s Source) bool {
			return s != None && (s != Self || p.FrameOptions == FrameDeny)
		})
		if i < 0 {
			return
		}
		allowed = append(allowed, ancestors[i])
	}
	if len(allowed) > 0 {
		bad("FrameOptions", ConfigConflict, "frame-ancestors allows %q, so browsers ignore %q; omit FrameOptions",
			allowed[0], string(p.FrameOptions))
	}
}

func (p *Policy) checkHSTS(bad reportFunc) {
	h := p.HSTS
	switch {
	case h.MaxAge < 0:
		bad("HSTS.MaxAge", ConfigNegative, "%v", h.MaxAge)
	case h.MaxAge%time.Second != 0:
		bad("HSTS.MaxAge", ConfigMalformed, "%v is not a whole number of seconds", h.MaxAge)
	case h.MaxAge == 0 && h.IncludeSubDomains && !h.Withdraw:
		bad("HSTS.MaxAge", ConfigMissing, "IncludeSubDomains has no effect without it")
	case h.Preload && (h.MaxAge < Year || !h.IncludeSubDomains):
		bad("HSTS.Preload", ConfigConflict, "Preload needs a MaxAge of a year and IncludeSubDomains, not %q", h.value())
	case h.Withdraw && h.MaxAge != 0:
		bad("HSTS.Withdraw", ConfigConflict, "Withdraw needs a MaxAge of 0, not %v", h.MaxAge)
	}
	if h.Always && h.Secure != nil {
		bad("HSTS.Secure", ConfigConflict, "Always treats every request as one over TLS")
	}
}

func (p *Policy) checkIntegrity(bad reportFunc) {
	for _, i := range []fieldOf[Integrity]{{"Integrity", p.Integrity}, {"IntegrityReportOnly", p.IntegrityReportOnly}} {
		if i.value.ReportTo != "" && i.value.value() == "" {
			bad(i.field+".Scripts", ConfigMissing, "ReportTo has no effect without Scripts or Styles")
		}
	}
}

func (p *Policy) checkEndpoints(bad reportFunc) {
	var names []string
	for i, e := range p.ReportingEndpoints {
		field := index("ReportingEndpoints", i)
		switch {
		case !sfKey.MatchString(e.Name):
			bad(field+".Name", ConfigMalformed, "%q is not a key of RFC 9651, which is lower-case", e.Name)
		case slices.Contains(names, e.Name):
			bad(field+".Name", ConfigDuplicate, "%q", e.Name)
		}
		if !isReportURL(e.URL) {
			bad(field+".URL", ConfigMalformed, "%q is neither an https URL nor an absolute path", e.URL)
		}
		names = append(names, e.Name)
	}
	for _, name := range p.reportTos() {
		if !slices.Contains(names, name.value) {
			bad(name.field, ConfigUnknown, "ReportingEndpoints does not define %q", name.value)
		}
	}
}

// reportTos returns every name of an endpoint that the policy refers to.
func (p *Policy) reportTos() []fieldOf[string] {
	var all []fieldOf[string]
	for _, c := range p.csps() {
		to, _ := c.value.Sources("report-to")
		for i, name := range to {
			all = append(all, fieldOf[string]{index(c.field+`["report-to"]`, i), string(name)})
		}
	}
	_, opener := cutReportTo(p.OpenerPolicy)
	_, openerReportOnly := cutReportTo(p.OpenerPolicyReportOnly)
	_, embedder := cutReportTo(p.EmbedderPolicy)
	_, embedderReportOnly := cutReportTo(p.EmbedderPolicyReportOnly)
	for _, name := range []fieldOf[string]{
		{"Permissions", p.Permissions.reportTo},
		{"PermissionsReportOnly", p.PermissionsReportOnly.reportTo},
		{"OpenerPolicy", opener},
		{"OpenerPolicyReportOnly", openerReportOnly},
		{"EmbedderPolicy", embedder},
		{"EmbedderPolicyReportOnly", embedderReportOnly},
		{"Integrity.ReportTo", p.Integrity.ReportTo},
		{"IntegrityReportOnly.ReportTo", p.IntegrityReportOnly.ReportTo},
		{"Connections.ReportTo", p.Connections.ReportTo},
		{"ConnectionsReportOnly.ReportTo", p.ConnectionsReportOnly.ReportTo},
	} {
		if name.value != "" {
			all = append(all, name)
		}
	}
	return all
}

func (p *Policy) checkCache(bad reportFunc) {
	if p.CacheControl == "" {
		return
	}
	if !isPrintable(p.CacheControl) || strings.Contains(p.CacheControl, ";") {
		bad("CacheControl", ConfigMalformed, "%q contains a character that is not allowed there", p.CacheControl)
		return
	}
	for item := range strings.SplitSeq(p.CacheControl, ",") {
		if item = strings.Trim(item, " "); !cacheItem.MatchString(item) {
			bad("CacheControl", ConfigMalformed, "%q is not a directive", item)
		}
	}
}

// ofOneResponse are the headers that net/http writes, or that a single handler
// must choose. The same value on every response would break the connection or
// the pages, or send the cookie of one client to all.
var ofOneResponse = []string{
	"Connection", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type", "Date", "Etag", "Keep-Alive",
	"Last-Modified", "Location", "Proxy-Connection", "Sec-Websocket-Accept", "Set-Cookie", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

func (p *Policy) checkExtra(bad reportFunc) {
	fields := map[string]string{}
	for _, l := range p.lines(true) {
		name, isExtra := strings.CutPrefix(l.field, "Extra[")
		if !isExtra {
			fields[l.name] = l.field
			continue
		}
		name = strings.TrimSuffix(name, "]")
		before := fields[l.name]
		switch {
		case !isToken(l.name):
			bad(l.field, ConfigMalformed, "%s is not the name of a header", name)
		case strings.HasPrefix(before, "Extra["):
			bad(l.field, ConfigDuplicate, "it is the same header as %s", before)
		case before != "":
			bad(l.field, ConfigConflict, "the header has the field %s", before)
		case slices.Contains(ofOneResponse, l.name):
			bad(l.field, ConfigConflict, "the header differs between responses")
		case l.value == "":
			bad(l.field, ConfigMissing, "the value is empty; use Remove to delete a header")
		case strings.Trim(l.value, " \t") != l.value || !isPrintable(strings.ReplaceAll(l.value, "\t", " ")):
			bad(l.field, ConfigMalformed, "%q contains a character that is not allowed there", l.value)
		}
		if before == "" {
			fields[l.name] = l.field
		}
	}
}

func (p *Policy) checkRemove(bad reportFunc) {
	sent := map[string]bool{}
	for _, l := range p.lines(true) {
		sent[l.name] = l.value != ""
	}
	for i, name := range p.Remove {
		field := index("Remove", i)
		if !isToken(name) {
			bad(field, ConfigMalformed, "%q is not the name of a header", name)
		} else if sent[http.CanonicalHeaderKey(name)] {
			bad(field, ConfigConflict, "the policy sends %q", name)
		}
	}
}
