package headers

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// check returns every mistake in the policy.
func (p *Policy) check() []error {
	var errs []error
	bad := func(field, value string, why Reason) {
		errs = append(errs, &Error{Field: field, Value: value, Reason: why})
	}

	oneOf(bad, frameHeader, p.FrameOptions, FrameDeny, FrameSameOrigin)
	oneOf(bad, xssHeader, p.XSSProtection, XSSBlock, XSSOff)
	oneOf(bad, referrerHeader, p.ReferrerPolicy, NoReferrer, NoReferrerWhenDowngrade, ReferrerOrigin,
		OriginWhenCrossOrigin, ReferrerSameOrigin, StrictOrigin, StrictOriginWhenCrossOrigin, UnsafeURL)
	oneOf(bad, openerHeader, p.OpenerPolicy, OpenerSameOrigin, OpenerSameOriginAllowPopups, OpenerNoopenerAllowPopups,
		OpenerUnsafeNone)
	oneOf(bad, embedderHeader, p.EmbedderPolicy, EmbedderRequireCORP, EmbedderCredentialless, EmbedderUnsafeNone)
	oneOf(bad, resourceHeader, p.ResourcePolicy, ResourceSameOrigin, ResourceSameSite, ResourceCrossOrigin)
	oneOf(bad, agentHeader, p.OriginAgent, OriginKeyed, SiteKeyed)

	errs = append(errs, p.CSP.check(cspHeader)...)
	errs = append(errs, p.CSPReportOnly.check(reportOnlyHeader)...)
	errs = append(errs, p.Permissions.check()...)
	p.checkHSTS(bad)
	p.checkEndpoints(bad)
	p.checkCache(bad)
	p.checkRemove(bad)
	return errs
}

type reportFunc func(field, value string, why Reason)

func oneOf[T ~string](bad reportFunc, field string, got T, want ...T) {
	switch {
	case got == "" || slices.Contains(want, got):
	case !isPrintable(string(got)):
		bad(field, string(got), ReasonCharacter)
	default:
		bad(field, string(got), ReasonValue)
	}
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

func (p *Policy) checkHSTS(bad reportFunc) {
	h := p.HSTS
	switch {
	case h.MaxAge < 0, h.MaxAge%time.Second != 0, h.MaxAge == 0 && h.IncludeSubDomains && !h.Withdraw:
		bad(hstsHeader, h.MaxAge.String(), ReasonAge)
	case h.Preload && (h.MaxAge < Year || !h.IncludeSubDomains):
		bad(hstsHeader, h.String(), ReasonPreload)
	case h.Withdraw && h.MaxAge != 0:
		bad(hstsHeader, h.String(), ReasonConflict)
	}
}

func (p *Policy) checkEndpoints(bad reportFunc) {
	var names []Source
	for _, e := range p.ReportingEndpoints {
		switch {
		case !sfKey.MatchString(e.Name):
			bad(endpointsHeader, e.Name, ReasonName)
		case slices.Contains(names, Source(e.Name)):
			bad(endpointsHeader, e.Name, ReasonDuplicate)
		}
		if !isReportURL(e.URL) {
			bad(endpointsHeader, e.URL, ReasonURL)
		}
		names = append(names, Source(e.Name))
	}
	for _, c := range []struct {
		field string
		csp   CSP
	}{{cspHeader, p.CSP}, {reportOnlyHeader, p.CSPReportOnly}} {
		to, _ := c.csp.Sources("report-to")
		for _, name := range to {
			if !slices.Contains(names, name) {
				bad(c.field, string(name), ReasonNoEndpoint)
			}
		}
	}
}

func (p *Policy) checkCache(bad reportFunc) {
	if p.CacheControl == "" {
		return
	}
	if !isPrintable(p.CacheControl) || strings.Contains(p.CacheControl, ";") {
		bad(cacheHeader, p.CacheControl, ReasonCharacter)
		return
	}
	for item := range strings.SplitSeq(p.CacheControl, ",") {
		if item = strings.Trim(item, " "); !cacheItem.MatchString(item) {
			bad(cacheHeader, item, ReasonValue)
		}
	}
}

func (p *Policy) checkRemove(bad reportFunc) {
	sent := map[string]bool{
		cspHeader: !p.CSP.IsZero(), reportOnlyHeader: !p.CSPReportOnly.IsZero(), hstsHeader: p.HSTS.String() != "",
	}
	for _, l := range p.lines() {
		sent[l.name] = l.value != ""
	}
	for _, name := range p.Remove {
		if !isToken(name) {
			bad("Remove", name, ReasonName)
		} else if sent[http.CanonicalHeaderKey(name)] {
			bad("Remove", name, ReasonConflict)
		}
	}
}
