package refresh

import (
	"context"
	"time"
)

// Prolong lets a family be refreshed until the present time plus
// [Config].Lifetime, as if it began now, and returns it. It returns false if
// there is no such family or it has ended. IdleTimeout still applies. The
// tokens of the family stay valid; the device needs no new pair. The next
// generation of the family begins, so its Generation grows by one. The error is
// a [*wsauth.UnavailableError].
func (i *Issuer) Prolong(ctx context.Context, id string) (Family, bool, error) {
	return i.ProlongAt(ctx, id, time.Now())
}

// ProlongAt is [Issuer.Prolong] at the time now.
func (i *Issuer) ProlongAt(ctx context.Context, id string, now time.Time) (Family, bool, error) {
	for range 2 { // a refresh may come in between
		f, found, err := i.store.Load(ctx, id)
		if err != nil || !found || !now.Before(f.ValidUntil) {
			return Family{}, false, unavailable(err)
		}
		loaded := f.Generation
		f.Generation++
		f.EndsAt = time.Unix(now.Add(i.cfg.Lifetime).Unix(), 0)
		f.ValidUntil = i.validUntil(f.Family)
		rotated, err := i.store.Rotate(ctx, f, loaded)
		if rotated || err != nil {
			return f.Family, rotated, unavailable(err)
		}
	}
	return Family{}, false, unavailable(errLostRace)
}
