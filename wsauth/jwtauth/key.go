package jwtauth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// Key is one key of the ring. It has exactly one of Secret, PEM and JWK, and
// exactly one algorithm. It prints as its ID only.
type Key struct {
	// ID is compared with "kid" in the header of a token. It has at most 128
	// bytes, without quotes and backslashes. If it is empty, it is the "kid" of
	// the JWK. A key without ID is tried for every token of its algorithm whose
	// "kid" is not the ID of another key.
	ID string
	// Algorithm is the only algorithm of the key, such as [ES256]. If it is
	// empty, it follows from the key: the "alg" of a JWK, [HS256] for a Secret,
	// ES256, ES384 or EdDSA for a key on a curve. An RSA key without "alg"
	// needs it, because RS256 and PS256 are both possible.
	Algorithm string
	// Secret is a key for HMAC, at least as long as the hash: 32 bytes for
	// HS256, 48 for HS384, 64 for HS512 (RFC 7518, section 3.2). A public key,
	// a certificate and the text of a JWK are refused.
	Secret []byte
	// PEM is one public or private key: a block PUBLIC KEY, PRIVATE KEY, EC
	// PRIVATE KEY, RSA PUBLIC KEY or RSA PRIVATE KEY. An RSA key has 2048 to
	// 8192 bits.
	PEM []byte
	// JWK is one key as a JSON Web Key (RFC 7517), public, private or a secret.
	JWK []byte
	// Until is when the key, and every authentication with it, expires. The
	// zero time means never. In the first key of a ring, Until must be zero.
	Until time.Time
}

// Format implements [fmt.Formatter], so that no verb prints the secret.
func (k Key) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "key "+strconv.Quote(k.ID)) }

// material is what verifies signatures. A key that stays in the ring when the
// ring is rotated, or in the set of a provider when the set is fetched again,
// keeps its material, so that an identity can refer to its key by the pointer.
type material struct {
	alg         algorithm
	public      any // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	signature   int // length of a signature in bytes
	fingerprint [sha256.Size]byte

	uses atomic.Uint64
	last atomic.Int64 // Unix nanoseconds, 0 for never
}

func (m *material) countUse(now time.Time) {
	m.uses.Add(1)
	at := now.UnixNano()
	for last := m.last.Load(); at > last && !m.last.CompareAndSwap(last, at); last = m.last.Load() {
	}
}

type ringKey struct {
	id      string
	until   time.Time
	private any       // nil if the key is public; the secret of HMAC
	from    *provider // nil for a key of Config.Keys
	*material
}

func (k *ringKey) inForce(now time.Time) bool { return k.until.IsZero() || now.Before(k.until) }

// ring is the keys of [Config].Keys.
type ring struct {
	keys []ringKey
	algs set
}

// newRing checks keys and returns their ring. Keys that old contains keep their
// material.
func newRing(old []ringKey, keys []Key, mayBeEmpty bool) (*ring, error) {
	var errs []error
	bad := func(field string, r error) { errs = append(errs, &ConfigError{"Config." + field, r}) }
	switch {
	case len(keys) == 0 && !mayBeEmpty:
		bad("Keys", wsauth.ConfigMissing)
	case len(keys) > maxKeys:
		bad("Keys", wsauth.ConfigTooLong)
		keys = keys[:maxKeys]
	}
	r := &ring{keys: make([]ringKey, 0, len(keys))}
	for i, k := range keys {
		field := "Keys[" + strconv.Itoa(i) + "]"
		if i == 0 && !k.Until.IsZero() {
			bad(field+".Until", wsauth.ConfigNotZero)
		}
		parsed, where, err := k.parse()
		if err != nil {
			bad(field+where, err)
		}
		if k.ID != "" {
			parsed.id = k.ID
		}
		if parsed.id != "" && !needsNoEscape(parsed.id, maxKeyID) {
			bad(field+".ID", wsauth.ConfigMalformed)
		}
		for _, other := range r.keys {
			if err == nil && other.material != nil && other.fingerprint == parsed.fingerprint {
				bad(field+where, wsauth.ConfigDuplicate)
			}
			if parsed.id != "" && other.id == parsed.id {
				bad(field+".ID", wsauth.ConfigDuplicate)
			}
		}
		parsed.until = k.Until
		if err == nil {
			parsed.material = share(old, parsed.material)
			r.algs.add(parsed.alg)
		}
		r.keys = append(r.keys, parsed)
	}
	return r, errors.Join(errs...)
}

// parse returns the key, and the field of it that err is about, or that holds
// the key.
func (k *Key) parse() (key ringKey, field string, err error) {
	switch {
	case k.Secret != nil && (k.PEM != nil || k.JWK != nil), k.PEM != nil && k.JWK != nil:
		return key, "", problem(wsauth.ConfigMalformed, "it has more than one of Secret, PEM and JWK")
	case k.Algorithm != "" && algorithmOf(k.Algorithm) == none:
		return key, ".Algorithm", wsauth.ConfigUnknown
	case k.JWK != nil:
		key, err = parseJWK(k.JWK, k.Algorithm, all, all)
		return key, ".JWK", err
	case k.PEM != nil:
		key, err = parsePEM(k.PEM, k.Algorithm)
		return key, ".PEM", err
	}
	name := k.Algorithm
	if name == "" {
		name = HS256
	}
	alg, ok := forKey("oct", "", name, all)
	if !ok {
		return key, ".Algorithm", wsauth.ConfigMalformed
	}
	key, err = newSecret(k.Secret, alg)
	return key, ".Secret", err
}

func share(old []ringKey, m *material) *material {
	for _, k := range old {
		if k.fingerprint == m.fingerprint && k.alg == m.alg {
			return k.material
		}
	}
	return m
}

// Rotate replaces the ring of keys. Sessions that authenticated with a key that
// is still in the ring and has not expired are not affected. Every other
// authentication with a key of the ring ends before Rotate returns. Its client
// receives a message or a close frame, as [wsauth.Config].OnExpiry says; Rotate
// does not wait for that. The keys of providers are not affected.
//
// The error of Rotate joins a [*ConfigError] of Config.Keys for every problem.
// After an error, the ring is as it was.
func (v *Verifier) Rotate(keys ...Key) error {
	v.mu.Lock()
	next, err := newRing(v.ring.Load().keys, keys, len(v.providers) > 0)
	if err != nil {
		v.mu.Unlock()
		return err
	}
	v.ring.Store(next)
	v.mu.Unlock()
	v.changed()
	return nil
}

// KeyUsage reports how often a key of the ring was used.
type KeyUsage struct {
	ID    string
	Until time.Time // see [Key]
	Count uint64    // tokens that it verified since it was added to a ring
	Last  time.Time // when it verified the last one; zero: never
}

// KeyUsage returns the use of each key of [Config].Keys, in the order of the
// ring. You can remove an old key if it has verified no token for as long as a
// token is valid.
func (v *Verifier) KeyUsage() []KeyUsage {
	keys := v.ring.Load().keys
	list := make([]KeyUsage, len(keys))
	for i, k := range keys {
		list[i] = KeyUsage{ID: k.id, Until: k.until, Count: k.uses.Load()}
		if last := k.last.Load(); last != 0 {
			list[i].Last = time.Unix(0, last)
		}
	}
	return list
}

// Watch implements [wsauth.Rechecker]. It never releases changed, so a
// [wsauth.Gate] stays in memory as long as its Verifier.
func (v *Verifier) Watch(changed func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers = append(v.watchers[:len(v.watchers):len(v.watchers)], changed)
}

func (v *Verifier) changed() {
	v.mu.Lock()
	watchers := v.watchers
	v.mu.Unlock()
	for _, changed := range watchers {
		changed()
	}
}

// ValidAt implements [wsauth.Rechecker]. An identity is valid as long as the
// key that signed its token is in the ring and has not expired, or is in the
// last set of its provider.
func (v *Verifier) ValidAt(id wsauth.Identity, now time.Time) (wsauth.Reason, bool) {
	if k := v.keyOf(id); k != nil && k.inForce(now) {
		return "", true
	}
	return wsauth.ReasonRevoked, false
}

// EndsAt implements [wsauth.Rechecker]. An identity ends with the key that
// signed its token.
func (v *Verifier) EndsAt(id wsauth.Identity) time.Time {
	if k := v.keyOf(id); k != nil {
		return k.until
	}
	return time.Time{}
}

// keyOf returns the key that signed the token of id, or nil if it was
// withdrawn.
func (v *Verifier) keyOf(id wsauth.Identity) *ringKey {
	keys := v.ring.Load().keys
	for i := range keys {
		if keys[i].material == id.Handle {
			return &keys[i]
		}
	}
	for _, p := range v.providers {
		if fetched := p.fetched.Load(); fetched != nil {
			for i := range fetched.keys {
				if fetched.keys[i].material == id.Handle {
					return &fetched.keys[i]
				}
			}
		}
	}
	return nil
}
