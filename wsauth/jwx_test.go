package wsauth_test

//lint:file-ignore SA1019 see jwx.go

import (
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Whatever is accepted here, jwx's own reading of the whole token accepts as well.
func FuzzVerifyAgainstJWX(f *testing.F) {
	f.Add(common, good(""), "", "")
	f.Add(`{"alg":"HS256","kid":"x"}`, good(`,"jti":"1"`), "", "")
	f.Add(`{"alg":"HS256","crit":["exp"]}`, good(""), "", "")
	f.Add(common, good(""), "", "=")
	v := newHS256(f, nil)
	f.Fuzz(func(t *testing.T, header, claims, before, after string) {
		token := []byte(before + forge(header, claims, secret) + after)
		if _, err := v.VerifyAt(token, now); err != nil {
			reasonOf(t, err)
			return
		}
		payload, err := jws.Verify(token, jws.WithKey(jwa.HS256, secret))
		if err != nil || string(payload) != claims {
			t.Fatalf("jwx disagrees about %q: %q %v", token, payload, err)
		}
	})
}
