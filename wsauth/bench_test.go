package wsauth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
)

// BenchmarkVerify compares a valid token with the bare check of its MAC, and
// several kinds of invalid tokens.
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

// BenchmarkAuthorize measures the cost of one message of a publisher while
// other publishers send too.
func BenchmarkAuthorize(b *testing.B) {
	gate, _, _ := newGate(b, wsauth.Config{})
	s := gate.Attach(newScript(tokenMessage(live("pi-1")), `{}`), wsauth.Peer{})
	defer s.Close(1000, "")
	if _, err := s.Next(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Authorize(wsauth.Publish); err != nil {
				b.Fatal(err)
			}
		}
	})
}
