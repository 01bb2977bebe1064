// Package forge makes tokens that no signer of the library would make, for its
// tests.
package forge

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
)

// Header is the header of most tokens.
const Header = `{"alg":"HS256","typ":"JWT"}`

// HS256 returns a token of any header and any claims, even invalid ones, with a
// valid signature by key.
func HS256(header, claims string, key []byte) string {
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(signed))
	return signed + "." + enc.EncodeToString(mac.Sum(nil))
}

// PSS returns a token with a PS256 signature by key whose salt has a length of
// salt bytes.
func PSS(header, claims string, key *rsa.PrivateKey, salt int) string {
	return By(header, claims, func(signed []byte) ([]byte, error) {
		sum := sha256.Sum256(signed)
		return rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt})
	})
}

// By returns a token of any header and any claims with the signature that sign
// makes.
func By(header, claims string, sign func(signed []byte) ([]byte, error)) string {
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(claims))
	signature, err := sign([]byte(signed))
	if err != nil {
		panic(err)
	}
	return signed + "." + enc.EncodeToString(signature)
}
