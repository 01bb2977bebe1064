package jwtauth

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

// maxTime is the last second of the year 9999. RFC 3339 cannot express later
// times.
const maxTime = 253402300799

// claimSet is the claims as they were written. A claim that is absent is nil.
type claimSet struct {
	subject, exp, nbf, iat, iss, aud, jti, role, scope []byte
}

// readClaims collects the claims that Verifier uses. problem says why the text
// is refused: a set in which a name occurs twice is, because decoders disagree
// about which value counts.
func readClaims(text []byte, cfg *Config) (c claimSet, problem string) {
	if len(text) == 0 || text[0] != '{' {
		return c, "the claims are not a JSON object"
	}
	var names [maxClaims][]byte
	n := 0
	m := strictjson.Read(text)
	for m.Next() {
		name, value := m.Name(), m.Value()
		name = name[1 : len(name)-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			var ok bool
			if name, ok = strictjson.AppendString(nil, m.Name()); !ok {
				return c, "the name of a claim is not text"
			}
		}
		if n == maxClaims || contains(names[:n], name) {
			return c, "a claim occurs twice, or there are too many"
		}
		names[n] = name
		n++
		switch string(name) {
		case "exp":
			c.exp = value
		case "nbf":
			c.nbf = value
		case "iat":
			c.iat = value
		case "iss":
			c.iss = value
		case "aud":
			c.aud = value
		case "jti":
			c.jti = value
		}
		if string(name) == cfg.SubjectClaim {
			c.subject = value
		}
		if string(name) == cfg.ScopeClaim {
			c.scope = value
		}
		if string(name) == cfg.RoleClaim && cfg.Roles != nil {
			c.role = value
		}
	}
	if m.Err != nil {
		return c, "the claims are not JSON"
	}
	return c, ""
}

// reader reads claims into values. It remembers the first claim that is wrong.
type reader struct{ problem string }

func (r *reader) wrong(claim, what string) {
	if r.problem == "" {
		r.problem = `claim "` + claim + `" ` + what
	}
}

func (r *reader) text(claim string, value []byte) string {
	if value == nil {
		return ""
	}
	text, ok := name(value)
	if !ok {
		r.wrong(claim, "is not a string of at most 255 bytes without control characters")
	}
	return text
}

func (r *reader) instant(claim string, value []byte) time.Time {
	if value == nil {
		return time.Time{}
	}
	t, ok := seconds(value)
	if !ok {
		r.wrong(claim, "is not a positive integer of seconds")
	}
	return t
}

// list reads a claim that is a string or a list of strings. If split is true,
// the string is a list of words.
func (r *reader) list(claim string, value []byte, split bool) []string {
	if value == nil {
		return nil
	}
	if one, ok := strictjson.String(value); ok && printable(one) {
		if split {
			return words(one)
		}
		if len(one) <= maxName {
			return []string{one}
		}
	}
	elements, ok := strictjson.Elements(value)
	list := make([]string, len(elements))
	for i, e := range elements {
		var isText bool
		list[i], isText = name(e)
		ok = ok && isText
	}
	if !ok {
		r.wrong(claim, "is not a string or a list of strings")
		return nil
	}
	return list
}

// words splits a scope at spaces only (RFC 6749, section 3.3). At other white
// space, such as U+00A0, a word that a user chose could become several.
func words(scope string) (list []string) {
	for word := range strings.SplitSeq(scope, " ") {
		if word != "" {
			list = append(list, word)
		}
	}
	return list
}

// identify returns the identity in the claims of a token that key signed, or an
// [*wsauth.Error].
func (v *Verifier) identify(text []byte, key *ringKey, rightType bool, now time.Time) (wsauth.Identity, error) {
	id := wsauth.Identity{KeyID: key.id, Handle: key.material, Claims: text}
	refuse := func(r wsauth.Reason, detail string) (wsauth.Identity, error) {
		return wsauth.Identity{}, &wsauth.Error{Reason: r, Subject: id.Subject, TokenID: id.TokenID, KeyID: id.KeyID, Detail: detail}
	}
	cfg := &v.cfg
	c, problem := readClaims(text, cfg)
	if problem != "" {
		return refuse(wsauth.ReasonClaims, problem)
	}
	var r reader
	id.Subject = r.text(cfg.SubjectClaim, c.subject)
	id.TokenID = r.text("jti", c.jti)
	id.Issuer = r.text("iss", c.iss)
	id.IssuedAt = r.instant("iat", c.iat)
	notBefore := r.instant("nbf", c.nbf)
	id.ExpiresAt = r.instant("exp", c.exp).Add(cfg.Leeway)
	audience := r.list("aud", c.aud, false)
	scope := r.list(cfg.ScopeClaim, c.scope, true)
	roles := r.list(cfg.RoleClaim, c.role, false)
	if id.Subject == "" {
		r.wrong(cfg.SubjectClaim, "is missing or empty")
	}
	if c.exp == nil {
		r.wrong("exp", "is missing")
	}
	if r.problem != "" {
		return refuse(wsauth.ReasonClaims, r.problem)
	}
	switch {
	case !rightType:
		return refuse(wsauth.ReasonClaims, `"typ" of the header is missing or another`)
	case !now.Before(id.ExpiresAt):
		return refuse(wsauth.ReasonExpired, "")
	case now.Add(cfg.Leeway).Before(notBefore):
		return refuse(wsauth.ReasonNotYetValid, "")
	case !v.mayIssue(key, id.Issuer):
		return refuse(wsauth.ReasonIssuer, missing("iss", c.iss))
	case (c.aud != nil) != (cfg.Audience != ""), c.aud != nil && !slices.Contains(audience, cfg.Audience):
		return refuse(wsauth.ReasonAudience, missing("aud", c.aud))
	case !v.mayBe(id.Issuer, id.Subject):
		return refuse(wsauth.ReasonSubject, "")
	}
	if cfg.Roles == nil {
		id.Permissions = scope
		return id, nil
	}
	var ok bool
	if id.Role, id.Permissions, ok = v.permissions(roles); !ok {
		return refuse(wsauth.ReasonRole, missing(cfg.RoleClaim, c.role))
	}
	if c.scope != nil {
		id.Permissions = limitTo(id.Permissions, scope)
	}
	return id, nil
}

// missing says more about a claim whose value is not accepted.
func missing(claim string, value []byte) string {
	if value == nil {
		return `claim "` + claim + `" is missing`
	}
	return ""
}

// mayIssue reports whether key may sign tokens of issuer.
func (v *Verifier) mayIssue(key *ringKey, issuer string) bool {
	switch {
	case key.from != nil:
		return key.from.Issuer == issuer
	case len(v.cfg.Issuers) > 0:
		return slices.Contains(v.cfg.Issuers, issuer)
	}
	return v.providerOf(issuer) == nil
}

func (v *Verifier) mayBe(issuer, subject string) bool {
	if v.cfg.SubjectAllowed != nil {
		return v.cfg.SubjectAllowed(issuer, subject)
	}
	return v.cfg.AnySubject || v.subjects[subject]
}

// permissions returns the permissions of all roles that are known, and the
// names of these roles. ok is false if there are none.
func (v *Verifier) permissions(roles []string) (role string, granted []string, ok bool) {
	if len(roles) == 0 {
		granted, ok = v.cfg.Roles[v.cfg.DefaultRole]
		return v.cfg.DefaultRole, granted, ok
	}
	for _, r := range roles {
		p, known := v.cfg.Roles[r]
		switch {
		case !known:
		case !ok:
			role, granted, ok = r, p, true
		default:
			role += " " + r
			granted = slices.Clip(granted) // which belongs to the configuration
			for _, permission := range p {
				if !slices.Contains(granted, permission) {
					granted = append(granted, permission)
				}
			}
		}
	}
	return role, granted, ok
}

func limitTo(granted, scope []string) []string {
	var p []string
	for _, g := range granted {
		if slices.Contains(scope, g) {
			p = append(p, g)
		}
	}
	return p
}

// name reads a string of at most maxName bytes without control characters.
func name(value []byte) (string, bool) {
	text, ok := strictjson.String(value)
	if !ok || len(text) > maxName || !printable(text) {
		return "", false
	}
	return text, true
}

// seconds reads a NumericDate (RFC 7519, section 2) that is a positive integer.
func seconds(value []byte) (time.Time, bool) {
	n, ok := strictjson.Int(value)
	if !ok || n <= 0 || n > maxTime {
		return time.Time{}, false
	}
	return time.Unix(n, 0), true
}
