package jwtauth

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/wsauth"
)

// Bounds of a configuration and of a token.
const (
	maxKeys      = 8       // keys in a ring: each may cost a signature check per token
	maxProviders = 8       // each may cost another
	maxToken     = 8 << 10 // bytes of a token
	maxName      = 255     // bytes of a subject, role, issuer, audience or ID
	maxKeyID     = 128     // bytes of "kid"
)

// Config configures a [Verifier]. It needs Keys or Providers, and exactly one
// of Subjects, SubjectAllowed and AnySubject.
type Config struct {
	// Keys is the ring of at most 8 keys. The first key signs, if it is private
	// or a secret. Every key verifies until its Until.
	Keys []Key
	// Providers are at most 8 issuers whose keys are fetched.
	Providers []Provider

	// Subjects are the subjects whose tokens are accepted, of at most 255 bytes
	// each.
	Subjects []string
	// SubjectAllowed reports whether a subject's tokens are accepted. issuer is
	// the token's "iss", or empty: two issuers may use the same subject for
	// different users. It is called for every token with a valid signature. It
	// must be fast and safe for concurrent use.
	SubjectAllowed func(issuer, subject string) bool
	// AnySubject accepts the tokens of every subject: everyone to whom an
	// accepted issuer gives a token for Audience.
	AnySubject bool
	// SubjectClaim is the name of the claim that holds the subject, such as
	// "device" or "email". Empty means "sub". Use only a claim that a user
	// cannot choose.
	SubjectClaim string

	// Issuers are the accepted values of "iss" in tokens that Keys verify. Sign
	// writes the first one. If empty, such tokens may have any "iss" except
	// those of Providers, or none.
	Issuers []string
	// Audience must be one of the values of "aud", such as the client ID of this
	// service. If empty, only tokens without "aud" are accepted (RFC 7519,
	// section 4.1.3).
	Audience string
	// Type is the required "typ" in the header of a token, such as "at+jwt" for
	// access tokens (RFC 9068). It is compared without regard to case and to a
	// prefix "application/". If empty, tokens with any "typ", or without one, are
	// accepted, and Sign writes "JWT".
	Type string

	// ScopeClaim is the name of the claim that holds the scope, such as "scp" or
	// "permissions": a string of words, or a list of strings. Empty means
	// "scope".
	ScopeClaim string
	// Roles maps each role to its permissions, which may be any words of your
	// own, such as "metrics", without spaces. A token has the permissions of all
	// its roles that are in Roles, or, if it has a scope, those of them that are
	// in the scope. A token whose roles are all unknown is refused. If Roles is
	// nil, the words of the scope are the permissions, and roles are not read.
	Roles map[string][]string
	// RoleClaim is the name of the claim that holds the role or the roles, such
	// as "roles" or "groups": a string, or a list of strings. Empty means
	// "role".
	RoleClaim string
	// DefaultRole is the role of a token without roles. It must be in Roles. If
	// it is empty, such a token is refused, unless Roles is nil.
	DefaultRole string

	// Leeway is how much the clocks of signer and verifier may differ, at most
	// 5 minutes. 0 means not at all.
	Leeway time.Duration

	// RefreshInterval is how old the keys of a provider may be before they are
	// fetched again: at most this late does a withdrawn key become invalid. At
	// least MinRefreshInterval. 0 means 15 minutes.
	RefreshInterval time.Duration
	// MinRefreshInterval is the least time between the end of a fetch, even a
	// failed one, and the next fetch from the same provider, whatever tokens
	// arrive. At least a second. 0 means 10 seconds.
	MinRefreshInterval time.Duration
	// MaxStale is how long the last keys of a provider stay in force while it
	// cannot be reached. After that, its tokens can be neither accepted nor
	// refused ([wsauth.UnavailableError]). Sessions that are open go on until
	// their tokens expire. At least RefreshInterval. 0 means 24 hours.
	MaxStale time.Duration
	// Transport makes the requests to providers. Nil means
	// [http.DefaultTransport].
	Transport http.RoundTripper
	// Log gets a record if keys cannot be fetched, are skipped or are withdrawn.
	// Nil is silence.
	Log *slog.Logger
}

// ConfigError is one problem of a [Config], of a [Key] or of a
// [wsauth.ClaimSet] to sign. It never contains a value.
type ConfigError struct {
	// Field is the field with its struct, such as "Config.Keys[1].Secret".
	Field string
	// Reason is a [wsauth.ConfigReason], or wraps one and says more.
	Reason error
}

func (e *ConfigError) Error() string { return "jwtauth: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// Verifier verifies and signs JSON Web Tokens (RFC 7519). A token has at most 8
// KiB, and each subject, role, issuer, audience and ID in it at most 255 bytes.
// Verifier is safe for concurrent use. It implements [wsauth.Verifier] and
// [wsauth.Rechecker].
type Verifier struct {
	cfg       Config
	subjects  map[string]bool
	ring      atomic.Pointer[ring]
	providers []*provider
	published set // algorithms of the providers

	mu       sync.Mutex // of rotations
	watchers []func()
}

// New returns a Verifier. It fetches nothing: the first token of a provider
// waits for the keys, unless [Verifier.Refresh] or [Verifier.Run] has fetched
// them. Its error joins a [*ConfigError] for every problem.
func New(cfg Config) (*Verifier, error) {
	var errs []error
	bad := func(field string, r error) { errs = append(errs, &ConfigError{"Config." + field, r}) }
	v := &Verifier{subjects: make(map[string]bool)}
	keys, err := newRing(nil, cfg.Keys, len(cfg.Providers) > 0)
	if err != nil {
		errs = append(errs, err)
	}
	v.ring.Store(keys)

	names := func(field string, list []string) {
		for i, name := range list {
			switch {
			case !validText(name, maxName):
				bad(field+"["+strconv.Itoa(i)+"]", wsauth.ConfigMalformed)
			case slices.Index(list, name) < i:
				bad(field+"["+strconv.Itoa(i)+"]", wsauth.ConfigDuplicate)
			}
		}
	}
	names("Subjects", cfg.Subjects)
	names("Issuers", cfg.Issuers)
	for _, s := range cfg.Subjects {
		v.subjects[s] = true
	}
	switch {
	case len(cfg.Subjects) == 0 && cfg.SubjectAllowed == nil && !cfg.AnySubject:
		bad("Subjects", problem(wsauth.ConfigMissing, "or SubjectAllowed, or AnySubject"))
	case cfg.AnySubject && (len(cfg.Subjects) > 0 || cfg.SubjectAllowed != nil):
		bad("AnySubject", problem(wsauth.ConfigNotZero, "there is another rule for subjects"))
	case len(cfg.Subjects) > 0 && cfg.SubjectAllowed != nil:
		bad("SubjectAllowed", problem(wsauth.ConfigNotZero, "there is another rule for subjects"))
	}
	text := func(field string, value *string, unset string) {
		if *value == "" {
			*value = unset
		} else if !validText(*value, maxName) {
			bad(field, wsauth.ConfigMalformed)
		}
	}
	text("SubjectClaim", &cfg.SubjectClaim, "sub")
	text("ScopeClaim", &cfg.ScopeClaim, "scope")
	text("RoleClaim", &cfg.RoleClaim, "role")
	text("Audience", &cfg.Audience, "")
	if cfg.Type != "" && !needsNoEscape(cfg.Type, maxName) {
		bad("Type", wsauth.ConfigMalformed)
	}
	cfg.Roles, err = copyRoles(cfg.Roles, cfg.DefaultRole)
	if err != nil {
		errs = append(errs, err)
	}

	span := func(field string, d *time.Duration, unset, least, most time.Duration) {
		switch {
		case *d < 0:
			bad(field, wsauth.ConfigNegative)
		case *d == 0:
			*d = unset
		case *d < least:
			bad(field, wsauth.ConfigTooShort)
		case *d > most:
			bad(field, wsauth.ConfigTooLong)
		}
	}
	const year = 365 * 24 * time.Hour
	span("Leeway", &cfg.Leeway, 0, 0, 5*time.Minute)
	span("MinRefreshInterval", &cfg.MinRefreshInterval, 10*time.Second, time.Second, year)
	span("RefreshInterval", &cfg.RefreshInterval, max(15*time.Minute, cfg.MinRefreshInterval), cfg.MinRefreshInterval, year)
	span("MaxStale", &cfg.MaxStale, max(24*time.Hour, cfg.RefreshInterval), cfg.RefreshInterval, year)

	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	if len(cfg.Providers) > maxProviders {
		bad("Providers", wsauth.ConfigTooLong)
		cfg.Providers = cfg.Providers[:maxProviders]
	}
	client := newClient(cfg.Transport)
	for i, in := range cfg.Providers {
		field := "Config.Providers[" + strconv.Itoa(i) + "]"
		p, problems := newProvider(in, field, &v.cfg)
		errs = append(errs, problems...)
		if in.Issuer != "" && v.providerOf(in.Issuer) != nil || slices.Contains(cfg.Issuers, in.Issuer) {
			errs = append(errs, &ConfigError{field + ".Issuer", wsauth.ConfigDuplicate})
		}
		p.client, p.changed, p.log = client, v.changed, cfg.Log
		v.providers = append(v.providers, p)
		v.published |= p.algs
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	cfg.Keys, cfg.Providers, cfg.Subjects = nil, nil, nil
	cfg.Issuers = slices.Clone(cfg.Issuers)
	v.cfg = cfg
	return v, nil
}

// copyRoles checks the roles and returns a copy of them.
func copyRoles(roles map[string][]string, unset string) (map[string][]string, error) {
	var errs []error
	bad := func(field string, r error) { errs = append(errs, &ConfigError{"Config." + field, r}) }
	if roles == nil {
		if unset != "" {
			bad("DefaultRole", wsauth.ConfigUnknown)
		}
		return nil, errors.Join(errs...)
	}
	own := make(map[string][]string, len(roles))
	for role, permissions := range roles {
		if !validText(role, maxName) {
			bad("Roles", wsauth.ConfigMalformed)
		}
		for _, p := range permissions {
			// A scope is a list of words, so it could not name this permission.
			if words := strings.Fields(p); len(words) != 1 || words[0] != p {
				bad("Roles", wsauth.ConfigMalformed)
			}
		}
		own[role] = slices.Clone(permissions)
	}
	if _, ok := own[unset]; unset != "" && !ok {
		bad("DefaultRole", wsauth.ConfigUnknown)
	}
	return own, errors.Join(errs...)
}

// providerOf returns the provider whose tokens have issuer as "iss", or nil.
func (v *Verifier) providerOf(issuer string) *provider {
	for _, p := range v.providers {
		if p.Issuer == issuer {
			return p
		}
	}
	return nil
}

// validText accepts a text of 1 to most bytes without control characters.
func validText(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) && printable(s)
}

// needsNoEscape accepts a valid text that JSON can quote as it is.
func needsNoEscape(s string, most int) bool {
	return validText(s, most) && !strings.ContainsAny(s, `"\`)
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || 0x7f <= r && r < 0xa0 {
			return false
		}
	}
	return true
}
