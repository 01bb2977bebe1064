package refresh

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

const (
	// tokenPrefix lets secret scanners recognize refresh tokens.
	tokenPrefix = "rgrt_"
	handleLen   = 16
	secretLen   = 32
	proofLen    = 16
	shortLen    = handleLen + secretLen
	longLen     = shortLen + 8 + proofLen // with the generation and its proof
)

// refreshToken consists of the handle of a family and the secret of one
// generation. All tokens of a family have the same handle, and only they
// contain it. By the handle, the store finds the family of any token, however
// old, without a record of every used token.
//
// A token that was issued with [Config].Key has its generation too, and a proof
// that this generation has this secret. Both lengths are multiples of 3 bytes,
// so each token has one spelling.
type refreshToken struct {
	handle     [handleLen]byte
	secret     [secretLen]byte
	generation uint64 // 0: the token does not have it
	proof      [proofLen]byte
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
	if size := len(encoded) / 4 * 3; !ok || len(encoded)%4 != 0 || size != shortLen && size != longLen {
		return t, false
	}
	// The decoder skips line breaks, so a text that contains one is too short.
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(b) != len(encoded)/4*3 {
		return t, false
	}
	rest := b[copy(t.handle[:], b):]
	rest = rest[copy(t.secret[:], rest):]
	if len(rest) == 0 {
		return t, true
	}
	t.generation = binary.BigEndian.Uint64(rest)
	copy(t.proof[:], rest[8:])
	return t, t.generation > 0
}

func (t refreshToken) String() string {
	b := append(t.handle[:], t.secret[:]...)
	if t.generation > 0 {
		b = append(binary.BigEndian.AppendUint64(b, t.generation), t.proof[:]...)
	}
	return string(base64.RawURLEncoding.AppendEncode([]byte(tokenPrefix), b))
}

// prover proves which generation of its family a token is of. A nil prover
// proves nothing.
type prover []byte

func newProver(key []byte) prover {
	if key == nil {
		return nil
	}
	derived, err := hkdf.Key(sha256.New, key, nil, "relayguard generation of a refresh token", sha256.Size)
	if err != nil {
		panic(err) // the length is a constant
	}
	return derived
}

func (p prover) proof(t refreshToken) (proof [proofLen]byte) {
	mac := hmac.New(sha256.New, p)
	mac.Write(t.handle[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, t.generation))
	mac.Write(t.secret[:])
	copy(proof[:], mac.Sum(nil))
	return proof
}

// prove returns the token with its generation and the proof.
func (p prover) prove(t refreshToken, generation uint64) refreshToken {
	t.generation, t.proof = 0, [proofLen]byte{}
	if p != nil {
		t.generation = generation
		t.proof = p.proof(t)
	}
	return t
}

// proven returns the generation of the token, and 0 if nothing proves it.
func (p prover) proven(t refreshToken) uint64 {
	if p == nil || t.generation == 0 {
		return 0
	}
	if want := p.proof(t); !hmac.Equal(want[:], t.proof[:]) {
		return 0
	}
	return t.generation
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
