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
	// tokenPrefix lets secret scanners recognize refresh tokens.
	tokenPrefix = "rgrt_"
	handleLen   = 16
	secretLen   = 32
	tokenLen    = (handleLen + secretLen) / 3 * 4 // no bits remain, so each token has one spelling
)

// refreshToken consists of the handle of a family and the secret of one
// generation. All tokens of a family have the same handle, and only they
// contain it. By the handle, the store finds the family of any token, however
// old, without a record of every used token.
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
	// The decoder skips line breaks, so a text that contains one is too short.
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

// family returns the public ID of the family, a hash of the handle. Its lookup
// need not take constant time: the time could only reveal how much of one hash
// agrees with another, and no one can choose a hash.
func (t refreshToken) family() string {
	sum := sha256.Sum256(t.handle[:])
	return hex.EncodeToString(sum[:handleLen])
}

func (t refreshToken) sum() [sha256.Size]byte { return sha256.Sum256(t.secret[:]) }

func (t refreshToken) is(sum [sha256.Size]byte) bool {
	own := t.sum()
	return subtle.ConstantTimeCompare(own[:], sum[:]) == 1
}

// next returns the successor of the token, computed from the token and a random
// salt. The store contains the salt but neither token, so that a lost answer
// can be given again, but only to a client that has the token.
func (t refreshToken) next(salt [sha256.Size]byte) refreshToken {
	mac := hmac.New(sha256.New, salt[:])
	mac.Write(t.secret[:])
	mac.Sum(t.secret[:0])
	return t
}
