package refresh

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

const (
	// tokenPrefix makes refresh tokens recognizable to secret scanners.
	tokenPrefix = "rgrt_"
	handleLen   = 16
	secretLen   = 32
	tokenLen    = (handleLen + secretLen) / 3 * 4 // no bits are left over, so each token has one spelling
)

// refreshToken is a handle, which all tokens of a family share and nothing but them reveals, and the secret of one
// generation. The handle finds the family of any token, however old, without a record of every one that was used.
type refreshToken struct {
	handle [handleLen]byte
	secret [secretLen]byte
}

func newToken() (t refreshToken) {
	_, _ = rand.Read(t.handle[:]) // never fails
	_, _ = rand.Read(t.secret[:])
	return t
}

func newSalt() (salt [sha256.Size]byte) {
	_, _ = rand.Read(salt[:])
	return salt
}

func readToken(text string) (t refreshToken, ok bool) {
	encoded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(encoded) != tokenLen {
		return t, false
	}
	// The decoder skips line breaks; a text with any comes out too short.
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(b) != handleLen+secretLen {
		return t, false
	}
	copy(t.secret[:], b[copy(t.handle[:], b):])
	return t, true
}

func (t refreshToken) String() string {
	b := append(t.handle[:], t.secret[:]...)
	return string(base64.RawURLEncoding.AppendEncode([]byte(tokenPrefix), b))
}

// family is the public ID of the token's family. It is looked up in no constant time: what the time could tell is how
// far a hash agrees with another, and nobody can aim a hash.
func (t refreshToken) family() string {
	sum := sha256.Sum256(t.handle[:])
	return hex.EncodeToString(sum[:handleLen])
}

func (t refreshToken) sum() [sha256.Size]byte { return sha256.Sum256(t.secret[:]) }

func (t refreshToken) is(sum [sha256.Size]byte) bool {
	own := t.sum()
	return subtle.ConstantTimeCompare(own[:], sum[:]) == 1
}

// next is the token's successor. It is made of the token and a random salt, which is stored, so that a lost answer can
// be given again although the store knows neither token: only both together make the successor.
func (t refreshToken) next(salt [sha256.Size]byte) refreshToken {
	mac := hmac.New(sha256.New, salt[:])
	mac.Write(t.secret[:])
	mac.Sum(t.secret[:0])
	return t
}
