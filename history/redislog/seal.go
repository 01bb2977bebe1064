package redislog

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
)

// ErrSealed is wrapped by the error of [Engine.Open], and by what
// [Config].OnState gets, if none of Config.Keys opens what the engine keeps.
var ErrSealed = errors.New("redislog: an entry does not open with Config.Keys: every process needs the same keys, and no other program may write to the keys of the log")

// sealer encrypts the entries and the notes of one log. A nil *sealer leaves
// them as they are.
type sealer struct {
	wrap []cipher.AEAD // by Config.Keys
	name string        // bound to everything that is sealed

	mu     sync.Mutex
	opened map[string]*dataKey // by id; of this epoch and the one before
}

// dataKey encrypts the entries of an epoch.
type dataKey struct {
	id      string
	wrapped string // as the engine keeps it
	aead    cipher.AEAD
}

func newSealer(keys [][]byte, prefix, name string) *sealer {
	if len(keys) == 0 {
		return nil
	}
	s := &sealer{name: prefix + "\x00" + name, opened: make(map[string]*dataKey)}
	for _, key := range keys {
		derived, err := hkdf.Key(sha256.New, key, nil, "relayguard redislog data key\x00"+s.name, KeySize)
		if err != nil {
			panic(err) // the length is a constant
		}
		s.wrap = append(s.wrap, gcm(derived))
	}
	return s
}

// gcm returns AES-256-GCM, which puts a random nonce before each ciphertext.
func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCMWithRandomNonce(block); err == nil {
			return aead
		}
	}
	panic(err) // the length is a constant
}

// fresh returns a new data key. Without keys it is the key with an empty id,
// which changes nothing.
func (s *sealer) fresh() *dataKey {
	if s == nil {
		return &dataKey{}
	}
	raw, id := make([]byte, KeySize), make([]byte, 8)
	_, _ = rand.Read(raw)
	_, _ = rand.Read(id)
	k := &dataKey{id: hex.EncodeToString(id), aead: gcm(raw)}
	k.wrapped = string(s.wrap[0].Seal(nil, nil, raw, s.bound(k, "key")))
	s.keep(k)
	return k
}

// open returns the data key that the engine keeps as wrapped.
func (s *sealer) open(id, wrapped string) (*dataKey, error) {
	if s == nil {
		if id != "" {
			return nil, ErrSealed
		}
		return &dataKey{}, nil
	}
	s.mu.Lock()
	k := s.opened[id]
	s.mu.Unlock()
	if k != nil {
		return k, nil
	}
	k = &dataKey{id: id, wrapped: wrapped}
	for _, wrap := range s.wrap {
		if raw, err := wrap.Open(nil, nil, []byte(wrapped), s.bound(k, "key")); err == nil && len(raw) == KeySize {
			k.aead = gcm(raw)
			s.keep(k)
			return k, nil
		}
	}
	return nil, ErrSealed
}

func (s *sealer) keep(k *dataKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.opened) >= 4 {
		clear(s.opened) // a key that is needed again is opened again
	}
	s.opened[k.id] = k
}

// bound returns what is authenticated with a text of this kind.
func (s *sealer) bound(k *dataKey, kind string) []byte {
	return []byte(s.name + "\x00" + k.id + "\x00" + kind)
}

// seal returns data as the engine keeps it.
func (s *sealer) seal(k *dataKey, kind string, data []byte) string {
	if k.aead == nil {
		return string(data)
	}
	return string(k.aead.Seal(nil, nil, data, s.bound(k, kind)))
}

// unseal is the reverse of seal.
func (s *sealer) unseal(k *dataKey, kind, sealed string) ([]byte, error) {
	if k.aead == nil {
		return []byte(sealed), nil
	}
	data, err := k.aead.Open([]byte{}, nil, []byte(sealed), s.bound(k, kind)) // an empty note is not nil
	if err != nil {
		return nil, ErrSealed
	}
	return data, nil
}
