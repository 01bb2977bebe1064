// Package forge makes tokens that no signer of the library would make, for its
// tests.
package forge

import (
	"crypto/hmac"
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
