package headers

import (
	"net/http"
	"slices"
	"strings"
)

// remarks returns the problems that the Observatory does not test.
func remarks(h http.Header, tls bool) []Finding {
	var fs []Finding
	remark := func(is bool, header, reason string) {
		if is {
			fs = append(fs, Finding{Test: header, Reason: reason, Remark: true})
		}
	}

	value, _ := observed(h, cspHeader)
	remark(strings.Contains(value, ","), cspHeader, "holds several policies; browsers enforce each of them, but the score mixes their sources")
	if o, ok := readPolicies(value); ok {
		for _, r := range o.remarks() {
			remark(true, cspHeader, r)
		}
		frames := FrameOptions(strings.ToUpper(observedWord(h, frameHeader)))
		remark(o.directives["frame-ancestors"].any(func(src string) bool {
			return frames == FrameDeny && src != None || frames == FrameSameOrigin && src != None && src != Self
		}), frameHeader, "frame-ancestors allows more, so browsers ignore this header")
	}

	hsts := observedWord(h, hstsHeader)
	remark(hsts != "" && !tls, hstsHeader, "browsers ignore it over plain HTTP")
	remark(hsts != "" && !strings.Contains(hsts, "includesubdomains"), hstsHeader, "does not include subdomains, from which an attacker can set cookies")
	if _, age, ok := strings.Cut(hsts, "max-age="); ok {
		_, isNumber := leadingInt(age)
		remark(!isNumber && !strings.HasPrefix(age, `"`), hstsHeader, "max-age is not a number, so browsers ignore the header")
	}

	remark(absentOr(h, openerHeader, "unsafe-none"), openerHeader, "a page of another origin that opens this one keeps a reference to its window")
	remark(absentOr(h, embedderHeader, "unsafe-none"), embedderHeader, "the page is not cross-origin isolated")
	remark(absentOr(h, permissionsHeader, ""), permissionsHeader, "absent: scripts may ask for camera, location and the rest")
	origin := observedWord(h, "Access-Control-Allow-Origin")
	remark(origin != "" && origin != "*" && observedWord(h, "Access-Control-Allow-Credentials") == "true",
		"Access-Control-Allow-Origin", "allows credentials; make sure that it does not repeat every Origin")
	xss := strings.ReplaceAll(observedWord(h, xssHeader), " ", "")
	remark(strings.HasPrefix(xss, "1") && !strings.Contains(xss, "mode=block"), xssHeader,
		"without mode=block, old browsers rewrite the page, which attackers can use")
	for _, name := range []string{"Server", "X-Powered-By", "X-Aspnet-Version"} {
		remark(strings.ContainsAny(h.Get(name), "0123456789"), name, "shows the version of the software")
	}
	return fs
}

// absentOr reports whether the header is absent or has the value without
// effect.
func absentOr(h http.Header, name, weak string) bool {
	v, _, _ := strings.Cut(observedWord(h, name), ";")
	return v == "" || v == weak
}

func (o observation) remarks() []string {
	var out []string
	for _, name := range []string{"base-uri", "form-action", "frame-ancestors"} {
		if o.directives[name] == nil {
			out = append(out, name+" is absent, and default-src is no fallback for it")
		}
	}
	connect := o.of("connect-src")
	for _, src := range []string{"ws:", "wss:", "http:", "https:", "*"} {
		if connect[src] {
			out = append(out, "connect-src allows "+src+", so scripts can send data to any host")
		}
	}
	for _, name := range []string{"script-src-elem", "script-src-attr", "worker-src"} {
		set := o.directives[name]
		if set.any(isUnsafe) && !set.any(isNonceOrHashText) {
			out = append(out, name+" allows script that script-src forbids")
		}
	}
	script := o.of("script-src")
	for _, src := range []string{"blob:", "filesystem:", "'unsafe-hashes'"} {
		if script[src] {
			out = append(out, "script-src allows "+src)
		}
	}
	if script.any(func(src string) bool { return isBareKeyword(Source(src)) }) {
		out = append(out, "script-src has a keyword without quotes, which browsers take for the name of a host")
	}
	slices.Sort(out)
	return out
}
