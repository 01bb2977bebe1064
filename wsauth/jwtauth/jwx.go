package jwtauth

//lint:file-ignore SA1019 jwx/v2 is the last of its line, and the library that the project chose.

import (
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Only this file uses jwx, so that another library can replace it here. It uses
// only the primitive: the parser of jwx accepts serializations, headers and
// claims that this package refuses, and takes three times as long as all checks
// of this package. The two objects are created once, so that an algorithm that
// is registered in jwx later, even in place of Verifier, has no effect here.
var (
	hs256Signer   = primitive(jws.NewSigner(jwa.HS256))
	hs256Verifier = primitive(jws.NewVerifier(jwa.HS256))
)

func primitive[T any](p T, err error) T {
	if err != nil {
		panic(err) // Verifier is built into jwx
	}
	return p
}

func signHS256(signingInput, secret []byte) ([]byte, error) {
	return hs256Signer.Sign(signingInput, secret)
}

// verifyHS256 compares the signatures in constant time.
func verifyHS256(signingInput, signature, secret []byte) bool {
	return hs256Verifier.Verify(signingInput, signature, secret) == nil
}
