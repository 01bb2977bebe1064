package jwtauth_test

//lint:file-ignore SA1019 see jwx.go

import (
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// beforeSignature reports whether r is a reason that is found without a
// signature check.
func beforeSignature(r wsauth.Reason) bool {
	switch r {
	case wsauth.ReasonMalformed, wsauth.ReasonAlgorithm, wsauth.ReasonHeader, wsauth.ReasonKey:
		return true
	}
	return false
}

// jwx accepts every token that HS256 accepts. HS256 calls jwx for every token
// with a valid form and a known key, and for no other.
func FuzzVerifyAgainstJWX(f *testing.F) {
	f.Add(common, good(""), "", "")
	f.Add(`{"alg":"HS256","kid":"x"}`, good(`,"jti":"1"`), "", "")
	f.Add(`{"alg":"HS256","crit":["exp"]}`, good(""), "", "")
	f.Add(common, good(""), "", "=")
	f.Add(common, good(""), "e30.", "")
	f.Add(`{"alg":"none"}`, good(""), "", "")
	v := newHS256(f, nil)
	f.Fuzz(func(t *testing.T, header, claims, before, after string) {
		token := []byte(before + forge.HS256(header, claims, secret) + after)
		reached := jwtauth.Verifications.Load()
		_, err := v.Verify(t.Context(), token, now)
		calls := jwtauth.Verifications.Load() - reached
		if err != nil {
			if reason := reasonOf(t, err); beforeSignature(reason) != (calls == 0) {
				t.Fatalf("%s after %d signature checks: %q", reason, calls, token)
			}
			return
		}
		payload, err := jws.Verify(token, jws.WithKey(jwa.HS256, secret))
		if err != nil || string(payload) != claims {
			t.Fatalf("jwx disagrees about %q: %q %v", token, payload, err)
		}
	})
}
