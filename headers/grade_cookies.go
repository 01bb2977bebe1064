package headers

import (
	"net/http"
	"slices"
	"strings"
)

const (
	cookiePlainHSTS        = "cookies-without-secure-flag-but-protected-by-hsts"
	cookiePlain            = "cookies-without-secure-flag"
	cookieSessionPlainHSTS = "cookies-session-without-secure-flag-but-protected-by-hsts"
	cookieSameSite         = "cookies-samesite-flag-invalid"
	cookieCSRF             = "cookies-anticsrf-without-samesite-flag"
	cookieSessionScript    = "cookies-session-without-httponly-flag"
	cookieSessionPlain     = "cookies-session-without-secure-flag"
)

// cookieFaults are in the order of severity. The most severe fault is the
// result.
var cookieFaults = []string{
	cookiePlainHSTS, cookiePlain, cookieSessionPlainHSTS, cookieSameSite, cookieCSRF, cookieSessionScript,
	cookieSessionPlain,
}

// cookie holds the attributes of a Set-Cookie line that the grade depends on.
// http.ParseSetCookie is stricter than the Observatory about names and values,
// and does not report whether SameSite was valid.
type cookie struct {
	name, domain, path string
	secure, httpOnly   bool
	sameSite           string // lower case; empty if absent or invalid
}

func gradeCookies(h http.Header, tls bool) string {
	protected := gradeHSTS(h, tls) == hstsLong
	// A later cookie replaces one with the same name, domain and path.
	jar := make(map[[3]string]cookie)
	worst := -1
	fault := func(is bool, what string) {
		if is {
			worst = max(worst, slices.Index(cookieFaults, what))
		}
	}
	for _, raw := range h["Set-Cookie"] {
		fault(hasInvalidSameSite(raw), cookieSameSite)
		if c, ok := parseCookie(raw); ok {
			jar[[3]string{c.name, c.domain, c.path}] = c
		}
	}
	if len(jar) == 0 {
		return "cookies-not-found"
	}
	everySameSite := true
	for _, c := range jar {
		name := strings.ToLower(c.name)
		session := strings.Contains(name, "login") || strings.Contains(name, "sess")
		fault(!c.secure && c.sameSite == "none", cookieSameSite)
		fault(!c.secure && protected, cookiePlainHSTS)
		fault(!c.secure && !protected, cookiePlain)
		fault(strings.Contains(name, "csrf") && c.sameSite == "", cookieCSRF)
		fault(session && !c.secure && protected, cookieSessionPlainHSTS)
		fault(session && !c.secure && !protected, cookieSessionPlain)
		fault(session && !c.httpOnly, cookieSessionScript)
		everySameSite = everySameSite && c.sameSite != ""
	}
	switch {
	case worst >= 0:
		return cookieFaults[worst]
	case everySameSite:
		return "cookies-secure-with-httponly-sessions-and-samesite"
	}
	return "cookies-secure-with-httponly-sessions"
}

// parseCookie reads a Set-Cookie line as a browser does. It returns false if a
// browser would refuse the cookie, and for the cookie of Heroku's load
// balancer, which the Observatory ignores.
func parseCookie(raw string) (c cookie, ok bool) {
	pair, rest, _ := strings.Cut(raw, ";")
	name, _, found := strings.Cut(pair, "=")
	c.name = strings.TrimSpace(name)
	if !found || c.name == "" || c.name == "heroku-session-affinity" {
		return c, false
	}
	for part := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(part, "=")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "secure":
			c.secure = true
		case "httponly":
			c.httpOnly = true
		case "domain":
			c.domain = strings.ToLower(strings.TrimPrefix(value, "."))
		case "path":
			c.path = value
		case "samesite":
			c.sameSite = ""
			if v := strings.ToLower(value); isSameSite(v) {
				c.sameSite = v
			}
		}
	}
	if !strings.HasPrefix(c.path, "/") {
		c.path = "/"
	}
	switch {
	case strings.HasPrefix(c.name, "__Secure-"):
		return c, c.secure
	case strings.HasPrefix(c.name, "__Host-"):
		return c, c.secure && c.domain == "" && c.path == "/"
	}
	return c, true
}

func hasInvalidSameSite(raw string) bool {
	for part := range strings.SplitSeq(raw, ";") {
		key, value, _ := strings.Cut(part, "=")
		value, _, _ = strings.Cut(value, "=")
		if strings.EqualFold(strings.TrimSpace(key), "samesite") && !isSameSite(strings.ToLower(strings.TrimSpace(value))) {
			return true
		}
	}
	return false
}

func isSameSite(v string) bool { return v == "lax" || v == "strict" || v == "none" }
