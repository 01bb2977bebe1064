package redisauth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
)

var errSealed = errors.New("redisauth: what the engine keeps does not open with Config.Key: every node needs the same Key, and no other program may write to the keys")

// sealer encrypts values, and makes names of devices unreadable.
type sealer struct {
	prefix string
	aead   cipher.AEAD
	names  []byte
}

func newSealer(key []byte, prefix string) *sealer {
	derive := func(purpose string) []byte {
		derived, err := hkdf.Key(sha256.New, key, nil, "relayguard redisauth "+purpose+"\x00"+prefix, KeySize)
		if err != nil {
			panic(err) // the length is a constant
		}
		return derived
	}
	block, err := aes.NewCipher(derive("values"))
	if err != nil {
		panic(err) // the length is a constant
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // the block size is AES's
	}
	return &sealer{prefix: prefix, aead: aead, names: derive("names")}
}

// The kinds of value. A value of one kind or place does not open as another.
const (
	kindRevoked = "revoked"
	kindSession = "session"
	kindFamily  = "family"
)

func (s *sealer) bound(kind, place string) []byte {
	return []byte(s.prefix + "\x00" + kind + "\x00" + place)
}

// close returns text, encrypted for a place in the engine.
func (s *sealer) close(kind, place string, text []byte) string {
	return string(s.aead.Seal(nil, nil, text, s.bound(kind, place)))
}

// encode returns v as JSON. It is for types that have only texts and numbers.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// open is the reverse of close.
func (s *sealer) open(kind, place, sealed string, v any) error {
	text, err := s.aead.Open(nil, nil, []byte(sealed), s.bound(kind, place))
	if err != nil || json.Unmarshal(text, v) != nil {
		return errSealed
	}
	return nil
}

// name returns a name that the engine may see in place of parts.
func (s *sealer) name(parts ...string) string {
	mac := hmac.New(sha256.New, s.names)
	for _, part := range parts {
		mac.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
