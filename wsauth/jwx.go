package wsauth

import (
	"crypto/hmac"
	"crypto/sha256"
)

// This file is the only one that makes and checks signatures, so that a library for it is one file's matter.

func signHS256(signingInput, secret []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write(signingInput)
	return mac.Sum(nil)
}

func verifyHS256(signingInput, signature, secret []byte) bool {
	return hmac.Equal(signature, signHS256(signingInput, secret))
}
