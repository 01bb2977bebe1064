package wsauth

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Origins decides which pages may open a connection (RFC 6455, section 10.2;
// RFC 6454). A browser lets any page connect to any server, with the user's
// address and cookies, and sends the origin of the page in the Origin header.
// Only this check keeps foreign pages out: call Check before the upgrade, with
// any WebSocket library. A request without the header does
// not come from a browser and is accepted, unless Sec-Fetch-Site (W3C Fetch
// Metadata) says that it comes from a page of another origin.
//
// The zero value accepts only pages of the same origin: the scheme of the
// request and its Host.
type Origins struct {
	// Allow is the list of accepted origins, as scheme://host or
	// scheme://host:port. If empty, only the same origin is accepted.
	// Otherwise, only the origins in the list are accepted. A list protects
	// against DNS rebinding too, because it does not depend on Host.
	Allow []string
	// Scheme returns the scheme of a request, "https" or "http". If nil, the
	// scheme is "https" for requests over TLS. Behind a proxy that terminates
	// TLS, set Scheme to a function that trusts only that proxy.
	Scheme func(*http.Request) string
	// InsecureSkipOriginCheck accepts every origin. Use it only for
	// development.
	InsecureSkipOriginCheck bool
}

// OriginError means that a request comes from a foreign page.
type OriginError struct {
	// Got is the Origin header, cut to 256 bytes. It is empty if the request
	// has none and Sec-Fetch-Site says that it comes from a foreign page.
	Got  string
	Want []string // the accepted origins; one made of the Host header is cut to 256 bytes
}

func (e *OriginError) Error() string {
	return fmt.Sprintf("wsauth: origin %q is not among %q", e.Got, e.Want)
}

// errItem is the reason of Validate. It does not hold the item.
var errItem = fmt.Errorf("%w: write scheme://host or scheme://host:port, without a path or a pattern", ConfigMalformed)

// Validate returns the join of a [*ConfigError] for each item of Allow that is
// not an origin, such as "*" or a URL with a path. Such an item matches no
// page.
func (o Origins) Validate() error {
	var errs []error
	for i, allowed := range o.Allow {
		if _, err := parseOrigin(allowed); err != nil {
			errs = append(errs, &ConfigError{"Origins.Allow[" + strconv.Itoa(i) + "]", errItem})
		}
	}
	return errors.Join(errs...)
}

// Check returns an [*OriginError] if the request r must not be upgraded. It
// compares scheme, host and port completely, without patterns. A missing port
// is the default port of the scheme. "null" is never accepted.
func (o Origins) Check(r *http.Request) error {
	sent, site := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	if o.InsecureSkipOriginCheck || len(sent) == 0 && ownSite(site) {
		return nil
	}
	want := o.Allow
	if len(want) == 0 {
		want = []string{o.scheme(r) + "://" + r.Host}
	}
	if len(sent) == 1 {
		if got, err := parseOrigin(sent[0]); err == nil {
			for _, w := range want {
				if allowed, err := parseOrigin(w); err == nil && got == allowed {
					return nil
				}
			}
		}
	}
	if len(o.Allow) == 0 {
		want[0] = cut(want[0])
	}
	return &OriginError{Got: cut(strings.Join(sent, ", ")), Want: want}
}

func cut(s string) string { return s[:min(len(s), 256)] }

// ownSite reports whether no value of Sec-Fetch-Site names a foreign page.
// "none" means that the user has asked, for example with a bookmark. A page of
// the same site but another origin is foreign, too.
func ownSite(values []string) bool {
	for _, v := range values {
		if v != "same-origin" && v != "none" {
			return false
		}
	}
	return true
}

func (o Origins) scheme(r *http.Request) string {
	switch {
	case o.Scheme != nil:
		return o.Scheme(r)
	case r.TLS != nil:
		return "https"
	}
	return "http"
}

type origin struct{ scheme, host, port string }

var errOrigin = errors.New("wsauth: not an origin")

// parseOrigin reads scheme://host[:port] and nothing else. net/url would accept
// user names, paths, and hosts that no browser sends.
func parseOrigin(s string) (origin, error) {
	// The Host header may have capitals. ToLower may turn another character
	// into an ASCII one of another length, such as the Kelvin sign into a k.
	scheme, authority, ok := strings.Cut(strings.ToLower(s), "://")
	if !ok || len(s) != len(scheme)+3+len(authority) || !letters(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-.") {
		return origin{}, errOrigin
	}
	o := origin{scheme: scheme, host: authority}
	switch scheme {
	case "http":
		o.port = "80"
	case "https":
		o.port = "443"
	}
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		port, err := strconv.ParseUint(authority[i+1:], 10, 16)
		if err != nil {
			return origin{}, errOrigin
		}
		o.host, o.port = authority[:i], strconv.FormatUint(port, 10)
	}
	if inner, ok := strings.CutPrefix(o.host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok || net.ParseIP(inner) == nil || !strings.Contains(inner, ":") {
			return origin{}, errOrigin
		}
		return o, nil
	}
	if !letters(o.host, "abcdefghijklmnopqrstuvwxyz0123456789-._") {
		return origin{}, errOrigin
	}
	return o, nil
}

func letters(s, set string) bool {
	return s != "" && strings.Trim(s, set) == ""
}
