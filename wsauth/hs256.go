package wsauth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a configuration and of a token.
const (
	minSecret = 32   // bytes of a key's secret at least (RFC 7518, section 3.2)
	maxKeys   = 8    // keys in a ring at most: each may cost a signature check per token
	maxToken  = 4096 // bytes of a token at most
	maxName   = 128  // bytes of a device, token ID, key ID, issuer, audience or role at most
)

// Key is one secret of a ring. It prints as its ID only.
type Key struct {
	// ID, of letters, digits, "-" and "_", is matched with the "kid" of a token's header. A key without ID is tried for every token whose "kid" is
	// no other key's.
	ID string
	// Secret is the HMAC key, at least 32 bytes (RFC 7518, section 3.2).
	Secret []byte
	// Until is when the key, and all that stands on it, ends; the zero time is never. The first key of a ring has
	// no end.
	Until time.Time
}

// Format implements [fmt.Formatter], so that no verb prints the secret.
func (k Key) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "key "+strconv.Quote(k.ID)) }

// HS256Config says which tokens are good. Keys and Devices are required.
type HS256Config struct {
	// Keys is the ring, of at most 8: the first signs, all verify until their time.
	Keys []Key
	// Devices lists the devices whose tokens are accepted: letters, digits, "-" and "_".
	Devices []string
	// Issuer is what "iss" must be; empty accepts any and none.
	Issuer string
	// Audience must be among "aud"; empty accepts only tokens without "aud" (RFC 7519, section 4.1.3).
	Audience string
	// Leeway is granted to clocks that differ, at most 5 minutes; 0 means none.
	Leeway time.Duration
	// Roles says what each value of the claim "role" permits. Nil means {"publisher": [Publish], "admin":
	// [Publish, Admin]}.
	Roles map[string][]string
	// DefaultRole is that of a token without "role"; empty means "publisher".
	DefaultRole string
}

// material is a secret as identities refer to it: two are the same key if they are the same pointer.
type material struct {
	secret []byte
	uses   atomic.Uint64
	last   atomic.Int64 // Unix nanoseconds, 0 for never
}

func (m *material) vouched(now time.Time) {
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

// HS256 verifies and signs JSON Web Tokens (RFC 7519) with HMAC-SHA256. It is safe for concurrent use.
type HS256 struct {
	cfg     HS256Config
	devices map[string]bool
	ring    atomic.Pointer[[]ringKey]

	mu       sync.Mutex // of rotations
	watchers []func()
}

// NewHS256 makes a verifier. Its error joins a [*ConfigError] for every problem.
func NewHS256(cfg HS256Config) (*HS256, error) {
	var errs []error
	bad := func(field string, r ConfigReason) { errs = append(errs, &ConfigError{"HS256Config." + field, r}) }
	h := &HS256{devices: make(map[string]bool)}
	ring, err := newRing(nil, cfg.Keys)
	if err != nil {
		errs = append(errs, err)
	}
	h.ring.Store(&ring)
	if len(cfg.Devices) == 0 {
		bad("Devices", ConfigMissing)
	}
	for i, d := range cfg.Devices {
		field := "Devices[" + strconv.Itoa(i) + "]"
		switch {
		case !validName(d):
			bad(field, ConfigMalformed)
		case h.devices[d]:
			bad(field, ConfigDuplicate)
		}
		h.devices[d] = true
	}
	if len(cfg.Issuer) > maxName {
		bad("Issuer", ConfigTooLong)
	}
	if len(cfg.Audience) > maxName {
		bad("Audience", ConfigTooLong)
	}
	switch {
	case cfg.Leeway < 0:
		bad("Leeway", ConfigNegative)
	case cfg.Leeway > 5*time.Minute:
		bad("Leeway", ConfigTooLong)
	}
	if cfg.Roles == nil {
		cfg.Roles = map[string][]string{"publisher": {Publish}, "admin": {Publish, Admin}}
	}
	if cfg.DefaultRole == "" {
		cfg.DefaultRole = "publisher"
	}
	if _, ok := cfg.Roles[cfg.DefaultRole]; !ok {
		bad("DefaultRole", ConfigUnknown)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	cfg.Keys, cfg.Devices = nil, nil
	h.cfg = cfg
	return h, nil
}

// Rotate replaces the ring. Whoever authenticated with a key that is still in it, and whose time has not come, keeps
// his right; the rights that stand on any other key end at once, and the sessions that held them are told or closed, see
// [Config].OnExpiry, without waiting for any of them. Its error joins a [*ConfigError] for every problem, as of
// HS256Config.Keys; the ring then stays as it was.
func (h *HS256) Rotate(keys ...Key) error {
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

// Watch implements [Rechecker]. Every [Gate] on this verifier is registered for good, and lives as long.
func (h *HS256) Watch(changed func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers = append(h.watchers[:len(h.watchers):len(h.watchers)], changed)
}

// KeyUsage says how much a key of the ring is needed.
type KeyUsage struct {
	ID    string
	Until time.Time // see [Key]
	Count uint64    // how many tokens it has vouched for that were accepted, since it came into a ring
	Last  time.Time // when the last one was; zero: never
}

// KeyUsage tells in the order of the ring how often and when last each key has vouched. An old key that nobody has
// needed for the lifetime of a token can go.
func (h *HS256) KeyUsage() []KeyUsage {
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

// newRing checks keys and builds a ring that shares the material of secrets that old already had.
func newRing(old []ringKey, keys []Key) ([]ringKey, error) {
	var errs []error
	bad := func(field string, r ConfigReason) { errs = append(errs, &ConfigError{"HS256Config." + field, r}) }
	switch {
	case len(keys) == 0:
		bad("Keys", ConfigMissing)
	case len(keys) > maxKeys:
		bad("Keys", ConfigTooLong)
		keys = keys[:maxKeys]
	}
	ring := make([]ringKey, 0, len(keys))
	for i, k := range keys {
		field := "Keys[" + strconv.Itoa(i) + "]"
		if len(k.Secret) < minSecret {
			bad(field+".Secret", ConfigTooShort)
		}
		if k.ID != "" && !validName(k.ID) {
			bad(field+".ID", ConfigMalformed)
		}
		if i == 0 && !k.Until.IsZero() {
			bad(field+".Until", ConfigNotZero)
		}
		for _, other := range ring {
			if string(other.secret) == string(k.Secret) {
				bad(field+".Secret", ConfigDuplicate)
			}
			if k.ID != "" && other.id == k.ID {
				bad(field+".ID", ConfigDuplicate)
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

// StandsAt implements [Rechecker]: an identity stands as long as the key that signed its token is in the ring and in
// force.
func (h *HS256) StandsAt(id Identity, now time.Time) (Reason, bool) {
	for _, k := range *h.ring.Load() {
		if k.material == id.key {
			if k.inForce(now) {
				return "", true
			}
			break
		}
	}
	return ReasonRevoked, false
}

// EndsAt implements [Rechecker]: an identity ends with the key that signed its token.
func (h *HS256) EndsAt(id Identity) time.Time {
	for _, k := range *h.ring.Load() {
		if k.material == id.key {
			return k.until
		}
	}
	return time.Time{}
}

// validName admits what needs no escape in any notation, and no more than maxName of it.
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
