package jwtauth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"github.com/relayguard/relayguard/wsauth/internal/forge"
)

// BenchmarkVerify compares a valid token with the bare check of its MAC, and
// several kinds of invalid tokens.
func BenchmarkVerify(b *testing.B) {
	v := newHS256(b, nil)
	token := []byte(forge.HS256(common, good(`,"iat":1800000000,"jti":"0123456789"`), secret))
	b.Run("valid", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(b.Context(), token, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare HMAC", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mac := hmac.New(sha256.New, secret)
			mac.Write(token)
			mac.Sum(nil)
		}
	})
	for name, token := range garbage {
		b.Run("garbage/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token, now); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
