package engine

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// errSealed is the error for a root key that no key opens.
var errSealed = errors.New("the engine's root key was encrypted with another key")

const keySize = 32

// The labels of the keys that are derived from the root key.
const (
	labelAuth        = "relayguard server authority"
	labelRefresh     = "relayguard server refresh tokens"
	labelConnections = "relayguard server limits of connections"
	labelTokens      = "relayguard server limits of tokens"
)

func derive(secret []byte, label string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, label, keySize)
	if err != nil {
		panic(err) // the length is a constant
	}
	return key
}

// key returns the key with a label.
func (s *shared) key(label string) []byte { return derive(s.root, label) }

// RefreshKey returns the key with which refresh tokens prove how new they are.
// It is nil before the engine has answered.
func (e *Engine) RefreshKey() []byte {
	if s := e.shared.Load(); s != nil {
		return s.key(labelRefresh)
	}
	return nil
}

// rootKey returns the root key. Sessions, revocations and refresh tokens would
// be lost if their keys changed with HISTORY_KEY. So the engine keeps the root
// key that was derived from the first HISTORY_KEY, encrypted with the present
// one.
func (e *Engine) rootKey(ctx context.Context, client rueidis.Client) ([]byte, error) {
	ring := e.ring()
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	name := e.rootName()
	first := derive(ring[0], "relayguard server root key\x00"+e.cfg.Prefix)
	err := client.Do(ctx, client.B().Set().Key(name).Value(e.sealed(ring[0], first)).Nx().Build()).Error()
	if err != nil && !rueidis.IsRedisNil(err) {
		return nil, err
	}
	text, err := client.Do(ctx, client.B().Get().Key(name).Build()).ToString()
	if err != nil {
		return nil, err
	}
	for i, key := range ring {
		root, err := e.seal(key).Open(nil, nil, []byte(text), []byte(name))
		if err != nil || len(root) != keySize {
			continue
		}
		if i > 0 {
			err = client.Do(ctx, client.B().Set().Key(name).Value(e.sealed(ring[0], root)).Build()).Error()
		}
		return root, err
	}
	return nil, errSealed
}

// putBack gives the engine the root key again, after the engine has lost it.
func (e *Engine) putBack() {
	s := e.shared.Load()
	if s == nil {
		return
	}
	ring := e.ring()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = e.client.Do(ctx, e.client.B().Set().Key(e.rootName()).Value(e.sealed(ring[0], s.root)).Nx().Build()).Error()
}

// ring returns the keys that encrypt the root key, the present one first.
func (e *Engine) ring() [][]byte {
	if len(e.cfg.Keys) > 0 {
		return e.cfg.Keys
	}
	return e.cfg.Secrets
}

func (e *Engine) rootName() string { return "{" + e.cfg.Prefix + ":key}" }

func (e *Engine) sealed(key, root []byte) string {
	return string(e.seal(key).Seal(nil, nil, root, []byte(e.rootName())))
}

func (e *Engine) seal(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(derive(key, "relayguard server root key encryption"))
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCMWithRandomNonce(block); err == nil {
			return aead
		}
	}
	panic(err) // the length is a constant
}
