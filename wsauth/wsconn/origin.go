package wsconn

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Origins decides which pages may open a connection (RFC 6455, section 10.2; RFC 6454). Browsers let any page connect
// anywhere and say in the Origin header which it was, so this check is all that stands between a foreign page and
// whatever the user's address or cookies open. Requests without the header come from no browser and are admitted.
//
// The zero value admits the site's own origin only: the scheme that the client used and the Host it named.
type Origins struct {
	// Allow, where it is not empty, lists exactly the origins that are admitted, as scheme://host or
	// scheme://host:port; the site's own is then not admitted unless it is listed. Since the list does not
	// depend on Host, it also ends DNS rebinding.
	Allow []string
	// Scheme says which scheme, "https" or "http", the client used. Nil means "https" where the request came over
	// TLS. Behind a proxy that ends TLS it must be set, to something that believes only that proxy.
	Scheme func(*http.Request) string
	// InsecureSkipOriginCheck admits every origin. For development only.
	InsecureSkipOriginCheck bool
}

// OriginError says that a request comes from a foreign page.
type OriginError struct {
	Got  string   // the header as it was sent, cut to 256 bytes
	Want []string // what would have been admitted
}

func (e *OriginError) Error() string { return "wsconn: " + e.detail() }

func (e *OriginError) detail() string {
	return fmt.Sprintf("origin %q is not among %q", e.Got, e.Want)
}

// Check returns an [*OriginError] if the request must not be upgraded. Scheme, host and port are compared whole, an
// absent port being that of the scheme; there are no patterns. "null" is never admitted.
func (o Origins) Check(r *http.Request) error {
	if err := o.check(r); err != nil {
		return err
	}
	return nil
}

func (o Origins) check(r *http.Request) *OriginError {
	sent := r.Header.Values("Origin")
	if len(sent) == 0 || o.InsecureSkipOriginCheck {
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
	got := strings.Join(sent, ", ")
	return &OriginError{Got: got[:min(len(got), 256)], Want: want}
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

var errOrigin = errors.New("wsconn: not an origin")

// parseOrigin reads scheme://host[:port] and nothing beyond it. net/url would also read user names, paths, and hosts
// that no browser sends.
func parseOrigin(s string) (origin, error) {
	// Upper case comes from the Host header; lowering may turn what is not ASCII into it.
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
