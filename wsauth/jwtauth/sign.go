package jwtauth

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// ErrCannotSign is the error of [Verifier.Sign] if the first key of the ring is
// public, or there is none.
var ErrCannotSign = errors.New("jwtauth: the first key is not a private key or a secret")

// Sign is [Verifier.SignAt] at the present time.
func (v *Verifier) Sign(c wsauth.ClaimSet) (string, error) { return v.SignAt(c, time.Now()) }

// SignAt returns a token, signed with the first key of the ring at the time
// now. If [Verifier.Verify] would refuse the token at now, or at NotBefore if
// that is later, SignAt returns the [*wsauth.Error] of Verify instead. It also
// refuses an element of Scope that is empty or contains a space, because Verify
// would read it as several permissions. If ExpiresAt is zero, the error is a
// [*ConfigError]. If the first key cannot sign, the error is [ErrCannotSign].
func (v *Verifier) SignAt(c wsauth.ClaimSet, now time.Time) (string, error) {
	keys := v.ring.Load().keys
	if len(keys) == 0 || keys[0].private == nil {
		return "", ErrCannotSign
	}
	key := &keys[0]
	if c.TokenID == "" {
		c.TokenID = rand.Text()
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = now
	}
	if c.ExpiresAt.IsZero() {
		return "", &ConfigError{"ClaimSet.ExpiresAt", wsauth.ConfigMissing}
	}
	typ := v.cfg.Type
	if typ == "" {
		typ = "JWT"
	}
	// New has checked that no text in it needs an escape.
	header := `{"alg":` + algorithms[key.alg].quoted + `,"typ":"` + typ + `"`
	if key.id != "" {
		header += `,"kid":"` + key.id + `"`
	}
	claimed := map[string]any{
		v.cfg.SubjectClaim: c.Subject, "exp": c.ExpiresAt.Unix(), "iat": c.IssuedAt.Unix(), "jti": c.TokenID,
	}
	from := now
	if !c.NotBefore.IsZero() {
		claimed["nbf"] = c.NotBefore.Unix()
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
	}
	if len(v.cfg.Issuers) > 0 {
		claimed["iss"] = v.cfg.Issuers[0]
	}
	if v.cfg.Audience != "" {
		claimed["aud"] = v.cfg.Audience
	}
	if c.Role != "" {
		claimed[v.cfg.RoleClaim] = c.Role
	}
	if c.Scope != nil {
		for _, word := range c.Scope {
			if word == "" || strings.Contains(word, " ") {
				return "", &wsauth.Error{Reason: wsauth.ReasonClaims, Detail: "a word of the scope is empty or contains a space"}
			}
		}
		claimed[v.cfg.ScopeClaim] = strings.Join(c.Scope, " ")
	}
	claims, err := json.Marshal(claimed)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	token := enc.AppendEncode(nil, []byte(header+"}"))
	token = enc.AppendEncode(append(token, '.'), claims)
	signature, err := sign(key, token)
	if err != nil {
		return "", err
	}
	token = enc.AppendEncode(append(token, '.'), signature)
	if _, err := v.verifySigned(token, from); err != nil {
		return "", errors.Join(errors.New("jwtauth: refusing to sign"), err)
	}
	return string(token), nil
}
