package jwtauth

import (
	"sync/atomic"

	"github.com/lestrrat-go/jwx/v2/jws"
)

// Verifications counts the signature checks of jwx, so that tests notice tokens
// that are refused without one.
var Verifications atomic.Int64

func init() { hs256Verifier = counted{hs256Verifier} }

type counted struct{ jws.Verifier }

func (c counted) Verify(payload, signature []byte, key any) error {
	Verifications.Add(1)
	return c.Verifier.Verify(payload, signature, key)
}
