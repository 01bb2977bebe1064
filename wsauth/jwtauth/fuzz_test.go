package jwtauth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/wsauth/internal/forge"
)

// A plain implementation of RFC 7515 and RFC 7519 accepts every token that
// HS256 accepts.
func FuzzVerify(f *testing.F) {
	f.Add(forge.HS256(common, good(""), secret))
	f.Add(forge.HS256(`{"alg":"HS256","kid":"x"}`, good(`,"aud":["a"],"scope":"publish"`), secret))
	f.Add(forge.HS256(`{"alg":"none"}`, good(""), nil))
	f.Add("..")
	v := newHS256(f, nil)
	f.Fuzz(func(t *testing.T, token string) {
		id, err := v.Verify(t.Context(), []byte(token), now)
		if err != nil {
			reasonOf(t, err)
			return
		}
		parts := strings.Split(token, ".")
		enc := base64.RawURLEncoding.Strict()
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(parts[0] + "." + parts[1]))
		if signature, err := enc.DecodeString(parts[2]); err != nil || !hmac.Equal(signature, mac.Sum(nil)) {
			t.Fatalf("accepted a signature that is none: %q", token)
		}
		_ = id
	})
}

// The claims are signed, since no fuzzer finds a valid signature. encoding/json
// reads the same values from accepted claims.
func FuzzClaims(f *testing.F) {
	f.Add(good(""))
	f.Add(good(`,"aud":[],"jti":"\ud83d\ude00","nbf":1,"iat":2,"role":"admin","scope":"publish admin"`))
	f.Add(`{"device":"pi-1","exp":0}`)
	v := newHS256(f, nil)
	f.Fuzz(func(t *testing.T, claims string) {
		id, err := v.Verify(t.Context(), []byte(forge.HS256(common, claims, secret)), now)
		if err != nil {
			reasonOf(t, err)
			return
		}
		var plain map[string]any
		dec := json.NewDecoder(strings.NewReader(claims))
		dec.UseNumber()
		if err := dec.Decode(&plain); err != nil || dec.More() {
			t.Fatalf("accepted what is no JSON object: %q %v", claims, err)
		}
		if plain["device"] != id.Subject || id.Subject != "pi-1" && id.Subject != "pi-2" {
			t.Fatalf("device %q of %q", id.Subject, claims)
		}
		if exp, err := plain["exp"].(json.Number).Int64(); err != nil || exp != id.ExpiresAt.Unix() || exp <= now.Unix() {
			t.Fatalf("exp %v of %q", id.ExpiresAt, claims)
		}
		if jti, ok := plain["jti"]; ok && jti != id.TokenID {
			t.Fatalf("jti %q of %q", id.TokenID, claims)
		}
	})
}
