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

// ReadSet returns the IDs and algorithms of the usable keys of a set, as fetched
// from a provider with these algorithms.
func ReadSet(text []byte, log io.Writer, algorithms ...string) ([]string, error) {
	p, errs := newProvider(Provider{Issuer: "https://id.example", Algorithms: algorithms}, "", &Config{})
	if errs != nil {
		panic(errs)
	}
	p.log = slog.New(slog.NewTextHandler(log, nil))
	keys, err := p.readSet(text)
	var list []string
	for _, k := range keys {
		list = append(list, k.id+" "+k.name())
	}
	return list, err
}

func (m *material) name() string { return algorithms[m.alg].name }

// ReadDiscovery returns the address of the key set in a discovery document of
// https://id.example.
func ReadDiscovery(text []byte) (string, error) {
	p, _ := newProvider(Provider{Issuer: "https://id.example"}, "", &Config{})
	return p.readDiscovery(text)
}
