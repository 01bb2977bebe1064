package wsauth

import (
	"net/http"
	"strings"
)

// Source returns the token that a request contains, and false if it contains
// none.
type Source func(*http.Request) (token string, ok bool)

// TokenFrom returns the token of the first of the sources that has one.
//
//	token, ok := wsauth.TokenFrom(r, wsauth.FromBearer, wsauth.FromCookie("session", origins))
func TokenFrom(r *http.Request, sources ...Source) (token string, ok bool) {
	for _, source := range sources {
		if token, ok := source(r); ok {
			return token, true
		}
	}
	return "", false
}

// FromBearer is a [Source] of the token in the header "Authorization: Bearer"
// (RFC 6750, section 2.1). Programs can send it. A page in a browser cannot
// send it with a WebSocket handshake.
func FromBearer(r *http.Request) (token string, ok bool) {
	sent := r.Header["Authorization"]
	if len(sent) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(sent[0], " ")
	token = strings.Trim(token, " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != "" // RFC 9110, section 11.1
}

// FromCookie returns a [Source] of the token in the cookie of that name. A
// browser sends the cookie with requests of any page, so the source has a token
// only if origins accepts the request. Behind a proxy that terminates TLS, set
// [Origins].Allow or [Origins].Scheme. If the request has several cookies of
// the name, the source has no token.
func FromCookie(name string, origins Origins) Source {
	return func(r *http.Request) (token string, ok bool) {
		sent := r.CookiesNamed(name)
		if len(sent) != 1 || sent[0].Value == "" || origins.Check(r) != nil {
			return "", false
		}
		return sent[0].Value, true
	}
}

// FromSubprotocol returns a [Source] of the token that follows prefix, such as
// "bearer.", in an offered subprotocol (RFC 6455, section 1.9). This header
// field and cookies are the only ones in which a page can send a token with the
// handshake:
//
//	new WebSocket(url, ["chat", "bearer." + token])
//
// Let the server accept another subprotocol that the page offers, here "chat":
// a browser closes the connection if the server accepts none, and a server that
// accepts the one with the token sends the token back. A token may contain only
// letters, digits and !#$%&'*+-.^_`|~, as a JSON Web Token does. If several
// subprotocols have the prefix, the source has no token.
func FromSubprotocol(prefix string) Source {
	return func(r *http.Request) (token string, ok bool) {
		for _, line := range r.Header["Sec-Websocket-Protocol"] {
			for offered := range strings.SplitSeq(line, ",") {
				rest, has := strings.CutPrefix(strings.Trim(offered, " \t"), prefix)
				switch {
				case !has || rest == "":
				case ok:
					return "", false
				default:
					token, ok = rest, true
				}
			}
		}
		return token, ok
	}
}

// InsecureFromQuery returns a [Source] of the token in a parameter of the URL.
// URLs are written to the logs of servers and proxies, to histories and into
// Referer headers, so a stranger may find the token there (RFC 9700, section
// 4.3.2). Use it only for tokens that are valid once or for some seconds.
func InsecureFromQuery(name string) Source {
	return func(r *http.Request) (token string, ok bool) {
		values := r.URL.Query()[name]
		if len(values) != 1 || values[0] == "" {
			return "", false
		}
		return values[0], true
	}
}
