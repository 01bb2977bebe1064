package headers

import (
	"net/http"
	"slices"
	"strings"
)

// remarks returns what the Observatory does not look at.
func remarks(h http.Header, tls bool) []Finding {
	var fs []Finding
	remark := func(is bool, header, reason string) {
		if is {
			fs = append(fs, Finding{Test: header, Reason: reason, Remark: true})
		}
	}

	value, _ := observed(h, cspHeader)
	remark(strings.Contains(value, ","), cspHeader, "holds several policies; a browser enforces each, the score reads them as one")
	if o, ok := readPolicy(value); ok {
		for _, r := range o.remarks() {
			remark(true, cspHeader, r)
		}
	}

	hsts := observedWord(h, hstsHeader)
	remark(hsts != "" && !tls, hstsHeader, "browsers ignore it over plain HTTP")
	remark(hsts != "" && !strings.Contains(hsts, "includesubdomains"), hstsHeader, "leaves subdomains out, from where cookies can be planted")
	if _, age, ok := strings.Cut(hsts, "max-age="); ok {
		_, isNumber := leadingInt(age)
		remark(!isNumber && !strings.HasPrefix(age, `"`), hstsHeader, "max-age is not a number, so browsers ignore the header")
	}

	remark(absentOr(h, openerHeader, "unsafe-none"), openerHeader, "pages of other origins that open this one keep a handle on its window")
	remark(absentOr(h, embedderHeader, "unsafe-none"), embedderHeader, "the page is not cross-origin isolated")
	remark(absentOr(h, permissionsHeader, ""), permissionsHeader, "absent: scripts may ask for camera, location and the rest")
	origin := observedWord(h, "Access-Control-Allow-Origin")
	remark(origin != "" && origin != "*" && observedWord(h, "Access-Control-Allow-Credentials") == "true",
		"Access-Control-Allow-Origin", "with credentials; see that it does not echo whatever origin asks")
	xss := strings.ReplaceAll(observedWord(h, xssHeader), " ", "")
	remark(strings.HasPrefix(xss, "1") && !strings.Contains(xss, "mode=block"), xssHeader,
		"without mode=block old browsers rewrite the page, which can be turned against it")
	for _, name := range []string{"Server", "X-Powered-By", "X-Aspnet-Version"} {
		remark(strings.ContainsAny(h.Get(name), "0123456789"), name, "tells the version of the software")
	}
	return fs
}

// absentOr reports whether the header is absent or has the value that does nothing.
func absentOr(h http.Header, name, weak string) bool {
	v := observedWord(h, name)
	return v == "" || v == weak
}

func (o observation) remarks() []string {
	var out []string
	for _, name := range []string{"base-uri", "form-action", "frame-ancestors"} {
		if o.directives[name] == nil {
			out = append(out, name+" is absent, and default-src does not stand in for it")
		}
	}
	connect := o.of("connect-src")
	for _, src := range []string{"ws:", "wss:", "http:", "https:", "*"} {
		if connect[src] {
			out = append(out, "connect-src allows "+src+", so script can send what it reads to any host")
		}
	}
	for _, name := range []string{"script-src-elem", "script-src-attr", "worker-src"} {
		set := o.directives[name]
		if set.any(isUnsafe) && !set.any(isNonceOrHashText) {
			out = append(out, name+" undoes what script-src forbids")
		}
	}
	script := o.of("script-src")
	for _, src := range []string{"blob:", "filesystem:", "'unsafe-hashes'"} {
		if script[src] {
			out = append(out, "script-src allows "+src)
		}
	}
	if script.any(func(src string) bool { return isBareKeyword(Source(src)) }) {
		out = append(out, "script-src has a keyword without its quotes, which is the name of a host")
	}
	slices.Sort(out)
	return out
}
