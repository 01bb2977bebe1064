package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// Provider is an issuer whose keys are fetched: an OpenID Connect provider, or
// any service that publishes a JSON Web Key Set (RFC 7517, section 5).
type Provider struct {
	// Issuer is the value of "iss", such as "https://id.example". The keys of a
	// provider verify no token with another "iss", and no other key verifies a
	// token with this one.
	Issuer string
	// JWKS is the URL of the key set. If it is empty, Issuer must be a URL, and
	// the key set is found by OpenID Connect Discovery: in the document
	// /.well-known/openid-configuration below Issuer, whose "issuer" must be
	// equal to Issuer, byte for byte.
	JWKS string
	// Algorithms are the accepted algorithms. A key for another is skipped.
	// Nil means RS256, PS256, ES256, ES384 and EdDSA, and RS256 for an RSA key
	// without "alg" (the default of OpenID Connect). If Algorithms has both
	// RS256 and PS256, an RSA key without "alg" is skipped. HMAC is not possible.
	Algorithms []string
	// InsecureHTTP allows http URLs. Without it, they must be https, unless their
	// host is this machine. Anyone on the way could replace the keys.
	InsecureHTTP bool
}

// keySet is one state of the keys of a provider.
type keySet struct {
	keys    []ringKey
	fetched time.Time
}

type provider struct {
	Provider
	algs     set    // accepted
	implied  set    // of a key without "alg"
	discover string // URL of the discovery document, or empty
	cfg      *Config
	log      *slog.Logger
	client   *http.Client
	changed  func()
	fetched  atomic.Pointer[keySet] // nil before the first success

	mu      sync.Mutex
	call    *call // in flight
	tried   time.Time
	lastErr error
}

// call is one fetch, for which any number of callers wait.
type call struct{ done chan struct{} }

func newProvider(in Provider, field string, cfg *Config) (*provider, []error) {
	var errs []error
	bad := func(name string, r error) { errs = append(errs, &ConfigError{field + "." + name, r}) }
	p := &provider{Provider: in, cfg: cfg, log: cfg.Log}
	switch {
	case in.Issuer == "":
		bad("Issuer", wsauth.ConfigMissing)
	case !validText(in.Issuer, maxName):
		bad("Issuer", wsauth.ConfigMalformed)
	case in.JWKS == "":
		u, err := checkURL(in.Issuer, in.InsecureHTTP)
		if err == nil && u.RawQuery != "" {
			err = problem(wsauth.ConfigMalformed, "an issuer has no query")
		}
		if err != nil {
			bad("Issuer", err)
			break
		}
		p.discover = strings.TrimSuffix(in.Issuer, "/") + "/.well-known/openid-configuration"
	}
	if in.JWKS != "" {
		if _, err := checkURL(in.JWKS, in.InsecureHTTP); err != nil {
			bad("JWKS", err)
		}
	}
	for _, name := range []string{RS256, PS256, ES256, ES384, EdDSA} {
		a := algorithmOf(name)
		if in.Algorithms == nil || slices.Contains(in.Algorithms, name) {
			p.algs.add(a)
			if in.Algorithms != nil || name != PS256 {
				p.implied.add(a)
			}
		}
	}
	for i, name := range in.Algorithms {
		switch {
		case !p.algs.has(algorithmOf(name)):
			bad("Algorithms["+strconv.Itoa(i)+"]", wsauth.ConfigUnknown)
		case slices.Index(in.Algorithms, name) < i:
			bad("Algorithms["+strconv.Itoa(i)+"]", wsauth.ConfigDuplicate)
		}
	}
	if in.Algorithms != nil && len(in.Algorithms) == 0 {
		bad("Algorithms", wsauth.ConfigMissing)
	}
	return p, errs
}

// usable returns the keys of the provider, or nil if they have never been
// fetched or are too old.
func (p *provider) usable() *keySet {
	s := p.fetched.Load()
	if s == nil || time.Since(s.fetched) > p.cfg.MaxStale {
		return nil
	}
	return s
}

// key returns the key that the header of a token names. A token without "kid"
// names the only key of its algorithm (OpenID Connect Core, section 10.1).
func (s *keySet) key(t *parts) *ringKey {
	var found *ringKey
	for i := range s.keys {
		k := &s.keys[i]
		switch {
		case k.alg != t.alg:
		case t.keyID.len > 0:
			if t.keyID.is(k.id) {
				return k
			}
		case found != nil:
			return nil
		default:
			found = k
		}
	}
	return found
}

// start starts to fetch the keys, or returns the fetch that is in flight. It
// returns nil if the last fetch ended less than MinRefreshInterval ago.
func (p *provider) start() *call {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.call != nil {
		return p.call
	}
	if !p.tried.IsZero() && time.Since(p.tried) < p.cfg.MinRefreshInterval {
		return nil
	}
	p.call = &call{make(chan struct{})}
	// A caller that stops waiting must not end a fetch for which others wait,
	// so the fetch has a goroutine of its own, which ends within fetchTimeout.
	go p.run(p.call)
	return p.call
}

func (p *provider) run(c *call) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	keys, err := p.fetch(ctx)
	withdrawn := 0
	p.mu.Lock()
	if err == nil {
		next := &keySet{keys, time.Now()}
		if old := p.fetched.Load(); old != nil {
			withdrawn = next.replace(old)
		}
		p.fetched.Store(next)
	}
	p.mu.Unlock()
	if err != nil {
		p.log.Warn("keys not fetched", "issuer", p.Issuer, "error", err)
	}
	if withdrawn > 0 {
		p.log.Info("keys withdrawn", "issuer", p.Issuer, "count", withdrawn)
		p.changed()
	}
	p.mu.Lock()
	p.tried, p.lastErr, p.call = time.Now(), err, nil
	p.mu.Unlock()
	close(c.done)
}

// replace lets the keys of s keep the material that they have in old. It
// returns how many keys of old s does not contain.
func (s *keySet) replace(old *keySet) (withdrawn int) {
	for i := range s.keys {
		s.keys[i].material = share(old.keys, s.keys[i].material)
	}
	for _, k := range old.keys {
		if !slices.ContainsFunc(s.keys, func(n ringKey) bool { return n.material == k.material }) {
			withdrawn++
		}
	}
	return withdrawn
}

// refresh fetches the keys, unless the last fetch was too recent, and returns
// how that fetch ended.
func (p *provider) refresh(ctx context.Context) error {
	if c := p.start(); c != nil {
		select {
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("jwtauth: waiting for the keys of %s: %w", p.Issuer, ctx.Err())
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastErr
}

// Refresh fetches the keys of every provider now, and returns when all have
// answered, failed, or taken 10 seconds, or when ctx ends. Its error joins one
// for every provider that failed. Call it at the start of a program that should
// not run without keys. A provider that was asked less than
// [Config].MinRefreshInterval ago is not asked again; its last result counts.
//
// If a key has vanished, the sessions that authenticated with it have ended
// before Refresh returns.
func (v *Verifier) Refresh(ctx context.Context) error {
	errs := make([]error, len(v.providers))
	var all sync.WaitGroup
	for i, p := range v.providers {
		all.Go(func() { errs[i] = p.refresh(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Run fetches the keys of every provider each [Config].RefreshInterval until
// ctx ends, and sooner again after a failure. Without Run, keys are fetched when
// a token needs it, so a withdrawn key ends no session until the next token
// arrives. Call it on a goroutine of its own.
func (v *Verifier) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, p := range v.providers {
		all.Go(func() { p.keepFresh(ctx) })
	}
	all.Wait()
}

func (p *provider) keepFresh(ctx context.Context) {
	retry := p.cfg.MinRefreshInterval
	for {
		wait := p.cfg.RefreshInterval
		if p.refresh(ctx) != nil {
			wait = min(retry, wait)
			retry *= 2
		} else {
			retry = p.cfg.MinRefreshInterval
		}
		// Up to a tenth less or more, so that the nodes of a service do not
		// ask at the same moment. Never less than the floor.
		wait = max(wait-wait/10+rand.N(wait/5+1), p.cfg.MinRefreshInterval)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// checkURL accepts an https URL, and an http URL if insecure or if its host is
// this machine.
func checkURL(text string, insecure bool) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Host == "", u.User != nil, u.Fragment != "", u.Opaque != "":
		return nil, problem(wsauth.ConfigMalformed, "not an absolute URL without user and fragment")
	case u.Scheme == "https", u.Scheme == "http" && (insecure || isLoopback(u.Hostname())):
		return u, nil
	}
	return nil, problem(wsauth.ConfigMalformed, "the scheme is not https")
}
