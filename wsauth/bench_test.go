package wsauth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"testing"
)

// A valid token beside the bare check of its MAC, and garbage of several kinds.
func BenchmarkVerify(b *testing.B) {
	v := newHS256(b, nil)
	token := []byte(forge(common, good(`,"iat":1800000000,"jti":"0123456789"`), secret))
	b.Run("valid", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.VerifyAt(token, now); err != nil {
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
				if _, err := v.VerifyAt(token, now); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
