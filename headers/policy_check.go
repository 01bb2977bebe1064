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
	oneOf(bad, "ReferrerPolicy", p.ReferrerPolicy, ReferrerNone, ReferrerNoneWhenDowngrade, ReferrerOrigin,
		ReferrerOriginWhenCrossOrigin, ReferrerSameOrigin, ReferrerStrictOrigin, ReferrerStrictOriginWhenCrossOrigin,
		ReferrerUnsafeURL)
	oneOf(bad, "OpenerPolicy", p.OpenerPolicy, OpenerSameOrigin, OpenerSameOriginAllowPopups, OpenerNoopenerAllowPopups,
		OpenerUnsafeNone)
	oneOf(bad, "EmbedderPolicy", p.EmbedderPolicy, EmbedderRequireCORP, EmbedderCredentialless, EmbedderUnsafeNone)
	oneOf(bad, "ResourcePolicy", p.ResourcePolicy, ResourceSameOrigin, ResourceSameSite, ResourceCrossOrigin)
	oneOf(bad, "OriginAgent", p.OriginAgent, AgentOriginKeyed, AgentSiteKeyed)

	for _, c := range p.csps() {
		for _, f := range c.csp.check(c.field == "CSPReportOnly") {
			var reason error = f.reason
			if f.at != whole {
				reason = fmt.Errorf("%w: %q", reason, f.value)
			}
			refuse(c.field+f.field(), reason)
		}
	}
	p.checkFrames(bad)
	p.checkPermissions(bad)
	p.checkHSTS(bad)
	p.checkEndpoints(bad)
	p.checkCache(bad)
	p.checkRemove(bad)
	return errs
}

// reportFunc gets one mistake: the path of the field in the Policy, the reason,
// and its details as for fmt.Sprintf.
type reportFunc func(field string, reason ConfigReason, format string, args ...any)

// fieldCSP is a CSP with the name of the field of a Policy that holds it.
type fieldCSP struct {
	field string
	csp   CSP
}

func (p *Policy) csps() []fieldCSP {
	return []fieldCSP{{"CSP", p.CSP}, {"CSPReportOnly", p.CSPReportOnly}}
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

// checkFrames refuses a FrameOptions that is stricter than frame-ancestors.
// Browsers that know frame-ancestors ignore X-Frame-Options next to it (CSP
// Level 3, section 6.4.2.2), so the page could be framed in spite of DENY.
func (p *Policy) checkFrames(bad reportFunc) {
	ancestors, _ := p.CSP.Sources("frame-ancestors")
	for _, s := range ancestors {
		if p.FrameOptions != "" && s != None && (s != Self || p.FrameOptions == FrameDeny) {
			bad("FrameOptions", ConfigConflict, "frame-ancestors allows %q, so browsers ignore %q; omit FrameOptions",
				s, string(p.FrameOptions))
			return
		}
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
}

func (p *Policy) checkEndpoints(bad reportFunc) {
	var names []Source
	for i, e := range p.ReportingEndpoints {
		field := fmt.Sprintf("ReportingEndpoints[%d]", i)
		switch {
		case !sfKey.MatchString(e.Name):
			bad(field+".Name", ConfigMalformed, "%q is not a key of RFC 8941, which is lower-case", e.Name)
		case slices.Contains(names, Source(e.Name)):
			bad(field+".Name", ConfigDuplicate, "%q", e.Name)
		}
		if !isReportURL(e.URL) {
			bad(field+".URL", ConfigMalformed, "%q is neither an https URL nor an absolute path", e.URL)
		}
		names = append(names, Source(e.Name))
	}
	for _, c := range p.csps() {
		to, _ := c.csp.Sources("report-to")
		for i, name := range to {
			if !slices.Contains(names, name) {
				bad(fmt.Sprintf(`%s["report-to"][%d]`, c.field, i), ConfigUnknown, "ReportingEndpoints does not define %q", name)
			}
		}
	}
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

func (p *Policy) checkRemove(bad reportFunc) {
	sent := map[string]bool{
		cspHeader: !p.CSP.IsZero(), reportOnlyHeader: !p.CSPReportOnly.IsZero(), hstsHeader: p.HSTS.value() != "",
	}
	for _, l := range p.lines() {
		sent[l.name] = l.value != ""
	}
	for i, name := range p.Remove {
		field := fmt.Sprintf("Remove[%d]", i)
		if !isToken(name) {
			bad(field, ConfigMalformed, "%q is not the name of a header", name)
		} else if sent[http.CanonicalHeaderKey(name)] {
			bad(field, ConfigConflict, "the policy sends %q", name)
		}
	}
}
