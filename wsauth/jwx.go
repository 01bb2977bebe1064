package wsauth

//lint:file-ignore SA1019 jwx/v2 is the last of its line, and the library that the project chose.

import (
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// This file is the only one that knows jwx, so that another library is one file's matter. Of jwx only the primitive is
// used: its parser accepts serializations, headers and claims that this package refuses, and costs three times as much
// as all of the checks here. The two objects are made once, so that nothing that is registered in jwx later, for
// another algorithm or in place of this one, has any effect here.
var (
	hs256Signer   = primitive(jws.NewSigner(jwa.HS256))
	hs256Verifier = primitive(jws.NewVerifier(jwa.HS256))
)

func primitive[T any](p T, err error) T {
	if err != nil {
		panic(err) // HS256 is built into jwx
	}
	return p
}

func signHS256(signingInput, secret []byte) ([]byte, error) {
	return hs256Signer.Sign(signingInput, secret)
}

// verifyHS256 compares in constant time.
func verifyHS256(signingInput, signature, secret []byte) bool {
	return hs256Verifier.Verify(signingInput, signature, secret) == nil
}
