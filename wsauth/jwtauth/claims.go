package jwtauth

import (
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

// readClaims collects the claims that Verifier uses. It refuses a set in which a
// name occurs twice, because decoders disagree about which value counts.
func readClaims(text []byte, subject string) (claimSet, bool) {
	var c claimSet
	if len(text) == 0 || text[0] != '{' {
		return c, false
	}
	names := make([]string, 0, maxMembers)
	m := strictjson.Read(text)
	for m.Next() {
		name, ok := strictjson.String(m.Name())
		if !ok || len(names) == maxMembers || slices.Contains(names, name) {
			return c, false
		}
		names = append(names, name)
		value := m.Value()
		switch name {
		case subject:
			c.subject = value
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
		case "role":
			c.role = value
		case "scope":
			c.scope = value
		}
	}
	return c, m.Err == nil
}

// identify returns the identity in the claims of a token that key signed, or an
// [*wsauth.Error].
func (h *Verifier) identify(text []byte, key *ringKey, now time.Time) (wsauth.Identity, error) {
	id := wsauth.Identity{KeyID: key.id, Handle: key.material}
	refuse := func(r wsauth.Reason) (wsauth.Identity, error) {
		return wsauth.Identity{}, &wsauth.Error{Reason: r, Subject: id.Subject, TokenID: id.TokenID, KeyID: id.KeyID}
	}
	c, ok := readClaims(text, h.cfg.SubjectClaim)
	if !ok {
		return refuse(wsauth.ReasonClaims)
	}
	id.Claims = text
	id.Subject, ok = name(c.subject)
	if !ok || id.Subject == "" {
		return refuse(wsauth.ReasonClaims)
	}
	var role, scope string
	var audience []string
	var notBefore time.Time
	okay := true
	take := func(value bool) { okay = okay && value }
	optional := func(dst *string, value []byte) {
		if value != nil {
			text, ok := name(value)
			*dst = text
			take(ok)
		}
	}
	instant := func(dst *time.Time, value []byte) {
		if value != nil {
			t, ok := seconds(value)
			*dst = t
			take(ok)
		}
	}
	optional(&id.TokenID, c.jti)
	optional(&id.Issuer, c.iss)
	optional(&role, c.role)
	optional(&scope, c.scope)
	instant(&id.IssuedAt, c.iat)
	instant(&notBefore, c.nbf)
	id.ExpiresAt, ok = seconds(c.exp)
	id.ExpiresAt = id.ExpiresAt.Add(h.cfg.Leeway)
	take(ok)
	if c.aud != nil {
		audience, ok = audiences(c.aud)
		take(ok)
	}
	if !okay {
		return refuse(wsauth.ReasonClaims)
	}

	if c.role == nil {
		role = h.cfg.DefaultRole
	}
	id.Role = role
	granted, known := h.cfg.Roles[role]
	switch {
	case !now.Before(id.ExpiresAt):
		return refuse(wsauth.ReasonExpired)
	case now.Add(h.cfg.Leeway).Before(notBefore):
		return refuse(wsauth.ReasonNotYetValid)
	case h.cfg.Issuer != "" && id.Issuer != h.cfg.Issuer:
		return refuse(wsauth.ReasonIssuer)
	case c.aud != nil && !slices.Contains(audience, h.cfg.Audience), c.aud == nil && h.cfg.Audience != "":
		return refuse(wsauth.ReasonAudience)
	case !h.subjects[id.Subject]:
		return refuse(wsauth.ReasonSubject)
	case !known:
		return refuse(wsauth.ReasonRole)
	}
	id.Permissions = granted
	if c.scope != nil {
		id.Permissions = limitTo(granted, strings.Fields(scope))
	}
	return id, nil
}

func limitTo(granted []string, scope []string) []string {
	var p []string
	for _, g := range granted {
		if slices.Contains(scope, g) {
			p = append(p, g)
		}
	}
	return p
}

// name reads a claim that is a string of at most maxName bytes without control
// characters.
func name(value []byte) (string, bool) {
	text, ok := strictjson.String(value)
	if !ok || len(text) > maxName {
		return "", false
	}
	for _, r := range text {
		if r < ' ' || 0x7f <= r && r < 0xa0 {
			return "", false
		}
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

// audiences reads "aud", which is a string or a list of strings.
func audiences(value []byte) ([]string, bool) {
	if one, ok := name(value); ok {
		return []string{one}, true
	}
	elements, ok := strictjson.Elements(value)
	list := make([]string, len(elements))
	for i, e := range elements {
		var isText bool
		list[i], isText = name(e)
		ok = ok && isText
	}
	return list, ok
}
