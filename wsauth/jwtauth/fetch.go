package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

// Bounds of a fetch. The timeout is for all requests of it.
const (
	fetchTimeout = 10 * time.Second
	maxDocument  = 512 << 10 // bytes of a key set or a discovery document
	maxSet       = 64        // keys of a set
)

// fetch returns the keys that the provider publishes now.
func (p *provider) fetch(ctx context.Context) ([]ringKey, error) {
	address := p.JWKS
	if p.discover != "" {
		text, err := p.get(ctx, p.discover)
		if err == nil {
			address, err = p.readDiscovery(text)
		}
		if err != nil {
			return nil, fmt.Errorf("jwtauth: discovery document of %s: %w", p.Issuer, err)
		}
	}
	text, err := p.get(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("jwtauth: key set of %s: %w", p.Issuer, err)
	}
	keys, err := p.readSet(text)
	if err != nil {
		return nil, fmt.Errorf("jwtauth: key set of %s: %w", p.Issuer, err)
	}
	return keys, nil
}

func (p *provider) get(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d, want 200 without a redirect", resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxDocument:
		return nil, fmt.Errorf("longer than %d bytes", maxDocument)
	}
	return text, nil
}

// newClient returns a client that follows no redirect: a redirect could lead to
// a host that the operator did not name.
func newClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// readDiscovery returns the address of the key set (OpenID Connect Discovery
// 1.0, section 4.3).
func (p *provider) readDiscovery(text []byte) (string, error) {
	var issuer, address string
	err := members(text, 256, func(name string, value []byte) error {
		ok := true
		switch name {
		case "issuer":
			issuer, ok = strictjson.String(value)
		case "jwks_uri":
			address, ok = strictjson.String(value)
		}
		if !ok {
			return errors.New(name + " is not a string")
		}
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case issuer != p.Issuer:
		return "", fmt.Errorf("its issuer is %.200q, and not the configured one", issuer)
	}
	// Only a provider on this machine may point to this machine by http.
	issuerURL, err := checkURL(p.Issuer, p.InsecureHTTP)
	if err != nil {
		return "", err
	}
	u, err := checkURL(address, p.InsecureHTTP)
	if err != nil || u.Scheme != "https" && issuerURL.Scheme == "https" {
		return "", errors.New("its jwks_uri is not an https URL")
	}
	return address, nil
}

// readSet returns the keys of a set that can verify tokens of this provider. It
// skips the others, as RFC 7517, section 5, says, and logs why.
func (p *provider) readSet(text []byte) ([]ringKey, error) {
	var list [][]byte
	found := false
	err := members(text, maxMembers, func(name string, value []byte) error {
		if name == "keys" {
			list, found = strictjson.Elements(value)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, errors.New(`"keys" is missing, or not a list`)
	case len(list) > maxSet:
		return nil, fmt.Errorf("more than %d keys", maxSet)
	}
	var keys []ringKey
	for i, text := range list {
		k, err := p.readKey(text, keys)
		if err != nil {
			p.cfg.Log.Warn("key skipped", "issuer", p.Issuer, "index", i, "kid", k.id, "error", err)
			continue
		}
		k.from = p
		keys = append(keys, k)
	}
	return keys, nil
}

func (p *provider) readKey(text []byte, before []ringKey) (ringKey, error) {
	k, err := parseJWK(text, "", p.algs, p.implied)
	switch {
	case err != nil:
		return k, err
	case k.private != nil:
		return k, errors.New("a private key, which is not private any more")
	case k.id != "" && !validText(k.id, maxKeyID):
		return k, errors.New("kid is too long, or has control characters")
	}
	for _, other := range before {
		switch {
		case other.id == k.id && other.alg == k.alg:
			return k, errors.New("another key has this kid and algorithm")
		case other.fingerprint == k.fingerprint:
			return k, errors.New("the same key occurs before")
		}
	}
	return k, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
