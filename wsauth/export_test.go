package wsauth

import (
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v2/jws"
)

// Verifications counts the signature checks of jwx, so that tests notice tokens
// that are refused without one.
var Verifications atomic.Int64

// SetClock makes now the clock of g. Timers do not follow it. Call SetClock
// before Attach.
func (g *Gate) SetClock(now func() time.Time) { g.now = now }

func init() { hs256Verifier = counted{hs256Verifier} }

type counted struct{ jws.Verifier }

func (c counted) Verify(payload, signature []byte, key any) error {
	Verifications.Add(1)
	return c.Verifier.Verify(payload, signature, key)
}
