package jwtauth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// Bounds of a configuration and of a token.
const (
	minSecret = 32   // bytes of a secret (RFC 7518, section 3.2)
	maxKeys   = 8    // keys in a ring: each may cost a signature check per token
	maxToken  = 4096 // bytes of a token
	maxName   = 128  // bytes of a device, role, issuer, audience or ID
)

// Key is one secret of a ring. It prints as its ID only.
type Key struct {
	// ID is compared with "kid" in the header of a token. It is empty, or at
	// most 128 letters, digits, "-" and "_". A key without ID is tried for
	// every token whose "kid" is not the ID of another key.
	ID string
	// Secret is the HMAC key, at least 32 bytes (RFC 7518, section 3.2).
	Secret []byte
	// Until is when the key, and every authentication with it, expires. The
	// zero time means never. In the first key of a ring, Until must be zero.
	Until time.Time
}

// Format implements [fmt.Formatter], so that no verb prints the secret.
func (k Key) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "key "+strconv.Quote(k.ID)) }

// Config configures an [Verifier]. Keys and Subjects are required.
type Config struct {
	// Keys is the ring of 1 to 8 keys. The first key signs. Every key verifies
	// until its Until.
	Keys []Key
	// Subjects are the subjects whose tokens are accepted. Each name has 1 to 128
	// letters, digits, "-" and "_".
	Subjects []string
	// SubjectClaim is the name of the claim that holds the subject, such as
	// "device" or "email". Empty means "sub".
	SubjectClaim string
	// Issuer is the required value of "iss", of at most 128 bytes. If empty,
	// tokens with any "iss", or without "iss", are accepted.
	Issuer string
	// Audience must be one of the values of "aud". It has at most 128 bytes. If
	// empty, only tokens without "aud" are accepted (RFC 7519, section 4.1.3).
	Audience string
	// Leeway is how much the clocks of signer and verifier may differ, at most
	// 5 minutes. 0 means not at all.
	Leeway time.Duration
	// Roles maps each value of the claim "role" to its permissions, which may
	// be any words of your own, such as "metrics", without spaces. Nil means
	// {"publisher": [Publish], "admin": [Publish, wsauth.Admin]}. The names of roles
	// have at most 128 bytes.
	Roles map[string][]string
	// DefaultRole is the role of a token without "role". Empty means
	// "publisher". It must be in Roles.
	DefaultRole string
}

// ConfigError is one problem of a [Config] or of a [wsauth.ClaimSet] to sign. It
// never contains a value.
type ConfigError struct {
	// Field is the field with its struct, such as "Config.Keys[1].Secret".
	Field string
	// Reason is a [wsauth.ConfigReason].
	Reason error
}

func (e *ConfigError) Error() string { return "jwtauth: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// material is the secret of a key. A secret that stays in the ring when it is
// rotated keeps its material, so that an identity can refer to its key by the
// pointer.
type material struct {
	secret []byte
	uses   atomic.Uint64
	last   atomic.Int64 // Unix nanoseconds, 0 for never
}

func (m *material) countUse(now time.Time) {
	m.uses.Add(1)
	at := now.UnixNano()
	for last := m.last.Load(); at > last && !m.last.CompareAndSwap(last, at); last = m.last.Load() {
	}
}

type ringKey struct {
	id    string
	until time.Time
	*material
}

func (k *ringKey) inForce(now time.Time) bool { return k.until.IsZero() || now.Before(k.until) }

// Verifier verifies and signs JSON Web Tokens (RFC 7519) with HMAC-SHA256. A token
// has at most 4096 bytes, and each device, role, issuer, audience and ID in it
// at most 128 bytes. Verifier is safe for concurrent use.
type Verifier struct {
	cfg      Config
	subjects map[string]bool
	ring     atomic.Pointer[[]ringKey]

	mu       sync.Mutex // of rotations
	watchers []func()
}

// New returns an Verifier. Its error joins a [*ConfigError] for every
// problem.
func New(cfg Config) (*Verifier, error) {
	var errs []error
	bad := func(field string, r wsauth.ConfigReason) {
		errs = append(errs, &ConfigError{"Config." + field, r})
	}
	h := &Verifier{subjects: make(map[string]bool)}
	ring, err := newRing(nil, cfg.Keys)
	if err != nil {
		errs = append(errs, err)
	}
	h.ring.Store(&ring)
	if len(cfg.Subjects) == 0 {
		bad("Subjects", wsauth.ConfigMissing)
	}
	for i, d := range cfg.Subjects {
		field := "Subjects[" + strconv.Itoa(i) + "]"
		switch {
		case !validName(d):
			bad(field, wsauth.ConfigMalformed)
		case h.subjects[d]:
			bad(field, wsauth.ConfigDuplicate)
		}
		h.subjects[d] = true
	}
	if cfg.SubjectClaim == "" {
		cfg.SubjectClaim = "sub"
	}
	if len(cfg.Issuer) > maxName {
		bad("Issuer", wsauth.ConfigTooLong)
	}
	if len(cfg.Audience) > maxName {
		bad("Audience", wsauth.ConfigTooLong)
	}
	switch {
	case cfg.Leeway < 0:
		bad("Leeway", wsauth.ConfigNegative)
	case cfg.Leeway > 5*time.Minute:
		bad("Leeway", wsauth.ConfigTooLong)
	}
	if cfg.Roles == nil {
		cfg.Roles = map[string][]string{"publisher": {wsauth.Publish}, "admin": {wsauth.Publish, wsauth.Admin}}
	}
	if cfg.DefaultRole == "" {
		cfg.DefaultRole = "publisher"
	}
	roles := make(map[string][]string, len(cfg.Roles))
	for role, permissions := range cfg.Roles {
		if len(role) > maxName {
			bad("Roles", wsauth.ConfigTooLong)
		}
		for _, p := range permissions {
			// "scope" is a list of words, so it could not name this permission.
			if words := strings.Fields(p); len(words) != 1 || words[0] != p {
				bad("Roles", wsauth.ConfigMalformed)
			}
		}
		roles[role] = slices.Clone(permissions)
	}
	cfg.Roles = roles
	if _, ok := cfg.Roles[cfg.DefaultRole]; !ok {
		bad("DefaultRole", wsauth.ConfigUnknown)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	cfg.Keys, cfg.Subjects = nil, nil
	h.cfg = cfg
	return h, nil
}

// Rotate replaces the ring of keys. Sessions that authenticated with a key that
// is still in the ring and has not expired are not affected. Every other
// authentication ends before Rotate returns. Its client receives a message or a
// close frame, as [Config].OnExpiry says; Rotate does not wait for that.
//
// The error of Rotate joins a [*ConfigError] of Config.Keys for every
// problem. After an error, the ring is as it was.
func (h *Verifier) Rotate(keys ...Key) error {
	h.mu.Lock()
	ring, err := newRing(*h.ring.Load(), keys)
	if err != nil {
		h.mu.Unlock()
		return err
	}
	h.ring.Store(&ring)
	watchers := h.watchers
	h.mu.Unlock()
	for _, changed := range watchers {
		changed()
	}
	return nil
}

// Watch implements [wsauth.Rechecker]. It never releases changed, so a [wsauth.Gate] stays in
// memory as long as its Verifier.
func (h *Verifier) Watch(changed func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers = append(h.watchers[:len(h.watchers):len(h.watchers)], changed)
}

// KeyUsage reports how often a key of the ring was used.
type KeyUsage struct {
	ID    string
	Until time.Time // see [Key]
	Count uint64    // tokens that it verified since it was added to a ring
	Last  time.Time // when it verified the last one; zero: never
}

// KeyUsage returns the use of each key, in the order of the ring. You can
// remove an old key if it has verified no token for as long as a token is
// valid.
func (h *Verifier) KeyUsage() []KeyUsage {
	ring := *h.ring.Load()
	list := make([]KeyUsage, len(ring))
	for i, k := range ring {
		list[i] = KeyUsage{ID: k.id, Until: k.until, Count: k.uses.Load()}
		if last := k.last.Load(); last != 0 {
			list[i].Last = time.Unix(0, last)
		}
	}
	return list
}

// newRing checks keys and returns their ring. Secrets that old contains keep
// their material.
func newRing(old []ringKey, keys []Key) ([]ringKey, error) {
	var errs []error
	bad := func(field string, r wsauth.ConfigReason) {
		errs = append(errs, &ConfigError{"Config." + field, r})
	}
	switch {
	case len(keys) == 0:
		bad("Keys", wsauth.ConfigMissing)
	case len(keys) > maxKeys:
		bad("Keys", wsauth.ConfigTooLong)
		keys = keys[:maxKeys]
	}
	ring := make([]ringKey, 0, len(keys))
	for i, k := range keys {
		field := "Keys[" + strconv.Itoa(i) + "]"
		if len(k.Secret) < minSecret {
			bad(field+".Secret", wsauth.ConfigTooShort)
		}
		if k.ID != "" && !validName(k.ID) {
			bad(field+".ID", wsauth.ConfigMalformed)
		}
		if i == 0 && !k.Until.IsZero() {
			bad(field+".Until", wsauth.ConfigNotZero)
		}
		for _, other := range ring {
			if string(other.secret) == string(k.Secret) {
				bad(field+".Secret", wsauth.ConfigDuplicate)
			}
			if k.ID != "" && other.id == k.ID {
				bad(field+".ID", wsauth.ConfigDuplicate)
			}
		}
		ring = append(ring, ringKey{id: k.ID, until: k.Until, material: share(old, k.Secret)})
	}
	return ring, errors.Join(errs...)
}

func share(old []ringKey, secret []byte) *material {
	for _, k := range old {
		if string(k.secret) == string(secret) {
			return k.material
		}
	}
	return &material{secret: bytes.Clone(secret)}
}

// ValidAt implements [wsauth.Rechecker]. An identity is valid as long as the key that
// signed its token is in the ring and has not expired.
func (h *Verifier) ValidAt(id wsauth.Identity, now time.Time) (wsauth.Reason, bool) {
	for _, k := range *h.ring.Load() {
		if k.material == id.Handle {
			if k.inForce(now) {
				return "", true
			}
			break
		}
	}
	return wsauth.ReasonRevoked, false
}

// EndsAt implements [wsauth.Rechecker]. An identity ends with the key that signed its
// token.
func (h *Verifier) EndsAt(id wsauth.Identity) time.Time {
	for _, k := range *h.ring.Load() {
		if k.material == id.Handle {
			return k.until
		}
	}
	return time.Time{}
}

// validName accepts names of at most maxName bytes that need no escape in any
// notation.
func validName(d string) bool {
	if d == "" || len(d) > maxName {
		return false
	}
	for _, c := range []byte(d) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
