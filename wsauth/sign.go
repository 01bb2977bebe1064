package wsauth

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Claims is the content of a token to sign.
type Claims struct {
	Device    string    // required; a device of [HS256Config]
	ExpiresAt time.Time // required
	NotBefore time.Time // zero: absent
	IssuedAt  time.Time // zero: the time of signing
	TokenID   string    // empty: random
	Role      string    // empty: the default role
	Scope     []string  // nil: all permissions of the role
}

// Sign is [HS256.SignAt] at the present time.
func (h *HS256) Sign(c Claims) (string, error) { return h.SignAt(c, time.Now()) }

// SignAt returns a token, signed with the first key of the ring at the time
// now. If [HS256.VerifyAt] would refuse the token at now, or at NotBefore if
// that is later, SignAt returns the [*Error] of VerifyAt instead. If ExpiresAt
// is zero, the error is a [*ConfigError].
func (h *HS256) SignAt(c Claims, now time.Time) (string, error) {
	if c.TokenID == "" {
		c.TokenID = rand.Text()
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = now
	}
	if c.ExpiresAt.IsZero() {
		return "", &ConfigError{"Claims.ExpiresAt", ConfigMissing}
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
	body := struct {
		Device    string  `json:"device"`
		ExpiresAt int64   `json:"exp"`
		NotBefore int64   `json:"nbf,omitempty"`
		IssuedAt  int64   `json:"iat"`
		TokenID   string  `json:"jti"`
		Issuer    string  `json:"iss,omitempty"`
		Audience  string  `json:"aud,omitempty"`
		Role      string  `json:"role,omitempty"`
		Scope     *string `json:"scope,omitempty"`
	}{
		Device: c.Device, ExpiresAt: c.ExpiresAt.Unix(), IssuedAt: c.IssuedAt.Unix(), TokenID: c.TokenID,
		Issuer: h.cfg.Issuer, Audience: h.cfg.Audience, Role: c.Role,
	}
	from := now
	if !c.NotBefore.IsZero() {
		body.NotBefore = c.NotBefore.Unix()
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
	}
	if c.Scope != nil {
		scope := strings.Join(c.Scope, " ")
		body.Scope = &scope
	}
	claims, err := json.Marshal(body)
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
		return "", errors.Join(errors.New("wsauth: refusing to sign"), err)
	}
	return string(token), nil
}
