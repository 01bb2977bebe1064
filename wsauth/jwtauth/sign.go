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

// Sign is [Verifier.SignAt] at the present time.
func (h *Verifier) Sign(c wsauth.ClaimSet) (string, error) { return h.SignAt(c, time.Now()) }

// SignAt returns a token, signed with the first key of the ring at the time
// now. If [Verifier.Verify] would refuse the token at now, or at NotBefore if
// that is later, SignAt returns the [*wsauth.Error] of Verify instead. If ExpiresAt
// is zero, the error is a [*ConfigError].
func (h *Verifier) SignAt(c wsauth.ClaimSet, now time.Time) (string, error) {
	if c.TokenID == "" {
		c.TokenID = rand.Text()
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = now
	}
	if c.ExpiresAt.IsZero() {
		return "", &ConfigError{"ClaimSet.ExpiresAt", wsauth.ConfigMissing}
	}
	key := &(*h.ring.Load())[0]
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		Type      string `json:"typ"`
		KeyID     string `json:"kid,omitempty"`
	}{"HS256", "JWT", key.id})
	if err != nil {
		return "", err
	}
	claimed := map[string]any{
		h.cfg.SubjectClaim: c.Subject, "exp": c.ExpiresAt.Unix(), "iat": c.IssuedAt.Unix(), "jti": c.TokenID,
	}
	from := now
	if !c.NotBefore.IsZero() {
		claimed["nbf"] = c.NotBefore.Unix()
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
	}
	for name, value := range map[string]string{"iss": h.cfg.Issuer, "aud": h.cfg.Audience, "role": c.Role} {
		if value != "" {
			claimed[name] = value
		}
	}
	if c.Scope != nil {
		claimed["scope"] = strings.Join(c.Scope, " ")
	}
	claims, err := json.Marshal(claimed)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	token := enc.AppendEncode(nil, header)
	token = enc.AppendEncode(append(token, '.'), claims)
	signature, err := signHS256(token, key.secret)
	if err != nil {
		return "", err
	}
	token = enc.AppendEncode(append(token, '.'), signature)
	if _, err := h.verify(token, from); err != nil {
		return "", errors.Join(errors.New("jwtauth: refusing to sign"), err)
	}
	return string(token), nil
}
