package jwtauth

import (
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/lestrrat-go/jwx/v2/jws"
)

// Verifications counts the signature checks, so that tests notice tokens that
// are refused without one.
var Verifications atomic.Int64

func init() {
	for a, v := range verifiers {
		if v != nil {
			verifiers[a] = counted{v}
		}
	}
}

type counted struct{ jws.Verifier }

func (c counted) Verify(payload, signature []byte, key any) error {
	Verifications.Add(1)
	return c.Verifier.Verify(payload, signature, key)
}

// ReadSet returns the IDs and algorithms of the usable keys of a set, as
// fetched from a provider with these algorithms.
func ReadSet(text []byte, log io.Writer, algorithms ...string) ([]string, error) {
	cfg := &Config{Log: slog.New(slog.NewTextHandler(log, nil))}
	p, errs := newProvider(Provider{Issuer: "https://id.example", Algorithms: algorithms}, "", cfg, nil)
	if errs != nil {
		panic(errs)
	}
	keys, err := p.readSet(text)
	names := []string{hs256: HS256, rs256: RS256, ps256: PS256, es256: ES256, es384: ES384, edDSA: EdDSA}
	var list []string
	for _, k := range keys {
		list = append(list, k.id+" "+names[k.alg])
	}
	return list, err
}

// ReadDiscovery returns the address of the key set in a discovery document of
// https://id.example.
func ReadDiscovery(text []byte) (string, error) {
	p, _ := newProvider(Provider{Issuer: "https://id.example"}, "", &Config{}, nil)
	return p.readDiscovery(text)
}
