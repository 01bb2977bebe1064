// Package refresh issues pairs of a short-lived access token, for package wsauth, and a refresh token that is good for one
// next pair. So a device stays for months on tokens that are worth little when stolen.
package refresh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// Signer makes access tokens. [wsauth.HS256] is one. It refuses with a [*wsauth.Error]; any other error is a failure of its
// own. SignAt must be safe for concurrent use.
type Signer interface {
	SignAt(c wsauth.Claims, now time.Time) (string, error)
}

// Config says how an [Issuer] works. Only Signer is required.
type Config struct {
	// Signer makes the access tokens.
	Signer Signer
	// AccessLifetime is how long an access token is good, from 2 seconds to 24 hours; 0 means 15 minutes. A stolen
	// one is good for the rest of it unless it is revoked, so it should be short.
	AccessLifetime time.Duration
	// IdleTimeout ends a family that is not refreshed for so long, at least AccessLifetime; 0 means 7 days.
	IdleTimeout time.Duration
	// Lifetime ends a family, however often it is refreshed, at least AccessLifetime; 0 means 90 days. No access
	// token outlives its family's.
	Lifetime time.Duration
	// Grace is how long a refresh token that was used may be used again, in case the answer was lost, and as long
	// as its successor was not used. The same answer is then given again. It is at most AccessLifetime less a
	// second; 0 means 20 seconds, or half of AccessLifetime if that is less. A thief who is as quick after the
	// owner as this goes unnoticed until one of them is not.
	Grace time.Duration
	// Store keeps the families, for example a [DirStore]; nil keeps them in memory, where they end with the process.
	Store Store
	// MaxFamilies bounds the store in memory, at about half a kilobyte each; 0 means 10,000. A Store has a bound of
	// its own.
	MaxFamilies int

	// Audit receives every event, on the goroutine that caused it; it should not block. Nil is silence.
	Audit func(wsauth.Event)
	// OnRevoked is told of every family that is revoked, once, before the call that revoked it returns. What it is
	// for is to end the sessions that stand on the family's access tokens, which are good for the rest of their time
	// otherwise, with [wsauth.Gate.Revoke]. It should not block.
	OnRevoked func(Revocation)
	// OnFailure is told by [Issuer.Handler] of every request whose refresh token was refused, before it is
	// answered, so that addresses that fail often can be blocked. It is not told of failures of the store.
	OnFailure func(*http.Request, wsauth.Reason)
	// ClientIP says whose request it is, for the audit; nil is [wsauth.RemoteAddr].
	ClientIP func(*http.Request) netip.Addr
}

// Issuer makes pairs of an access token, for [wsauth.Session], and a refresh token that is good for one next pair. It is safe
// for concurrent use.
//
// All pairs that follow one another are a family. A refresh token ends as it is used (RFC 9700, section 4.14.2), and
// using one again after the grace, or after its successor was used, shows that it is in two hands. Whose are the right
// ones cannot be told, so the family is revoked.
//
// A refresh token is random bytes that say nothing. The store has only their SHA-256. A slow hash as for passwords
// would protect nothing: those slow down guessing among the few texts that people choose, and among 2²⁵⁶ there is no
// guessing at any speed; it would only let strangers make the server work.
type Issuer struct {
	cfg   Config
	store Store
}

// New makes an Issuer. Its error joins a [*ConfigError] for every problem.
func New(cfg Config) (*Issuer, error) {
	var errs []error
	bad := func(field string, r wsauth.ConfigReason) { errs = append(errs, &ConfigError{"Config." + field, r}) }
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
	if cfg.Signer == nil {
		bad("Signer", wsauth.ConfigMissing)
	}
	const forever = 100 * 365 * 24 * time.Hour
	span("AccessLifetime", &cfg.AccessLifetime, 15*time.Minute, 2*time.Second, 24*time.Hour)
	span("IdleTimeout", &cfg.IdleTimeout, 7*24*time.Hour, cfg.AccessLifetime, forever)
	span("Lifetime", &cfg.Lifetime, 90*24*time.Hour, cfg.AccessLifetime, forever)
	// What is given again must still be good for something, and NumericDate has no fractions.
	span("Grace", &cfg.Grace, min(20*time.Second, cfg.AccessLifetime/2), 0, cfg.AccessLifetime-time.Second)
	if cfg.MaxFamilies < 0 {
		bad("MaxFamilies", wsauth.ConfigNegative)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if cfg.MaxFamilies == 0 {
		cfg.MaxFamilies = 10_000
	}
	if cfg.Store == nil {
		cfg.Store = newMemoryStore(cfg.MaxFamilies)
	}
	if cfg.Audit == nil {
		cfg.Audit = func(wsauth.Event) {}
	}
	if cfg.OnRevoked == nil {
		cfg.OnRevoked = func(Revocation) {}
	}
	if cfg.OnFailure == nil {
		cfg.OnFailure = func(*http.Request, wsauth.Reason) {}
	}
	if cfg.ClientIP == nil {
		cfg.ClientIP = wsauth.RemoteAddr
	}
	return &Issuer{cfg: cfg, store: cfg.Store}, nil
}

// ConfigError is one problem of a [Config], or of a call of [NewDirStore]. It never
// holds a value.
type ConfigError struct {
	Field  string // with its struct, such as "Config.Signer"
	Reason error  // a [wsauth.ConfigReason]: a predicate such as "must not be negative"
}

func (e *ConfigError) Error() string { return "refresh: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// Grant is what the access tokens of a family say. Only Device is required.
type Grant struct {
	Device string
	Role   string   // empty: the default role
	Scope  []string // nil: all that the role grants
}

// Pair is an access token and the refresh token for the next pair. It prints, and logs, as its ID only.
type Pair struct {
	Token        string    // the access token
	TokenID      string    // the access token's "jti": the family's ID, a dot and a running number
	ExpiresAt    time.Time // when the access token expires
	RefreshToken string
	RefreshUntil time.Time // when the refresh token expires if it is not used
}

// Format implements [fmt.Formatter], so that no verb prints a token.
func (p Pair) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "pair "+p.TokenID) }

// LogValue implements [slog.LogValuer], so that no handler writes a token.
func (p Pair) LogValue() slog.Value { return slog.StringValue("pair " + p.TokenID) }

// Revocation is the end of a family before its time, in terms of [wsauth.Gate.Revoke].
type Revocation struct {
	Family       Family
	Reason       wsauth.Reason // wsauth.ReasonReused or wsauth.ReasonRevoked
	IssuedBefore time.Time     // all access tokens of the family were, and no earlier time will do
}

// UnavailableError says that the store or the signer failed, so that nothing was decided. The same token may be used
// again.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string { return "refresh: unavailable: " + e.Err.Error() }

func (e *UnavailableError) Unwrap() error { return e.Err }

// Issue begins a family at the present time and makes its first pair. Whoever may call it decides who gets tokens: it
// is not for the public. Its error is a [*wsauth.Error] where the Signer refuses the grant, else an
// [*UnavailableError], holding [ErrTooManyFamilies] where the store is full.
func (i *Issuer) Issue(ctx context.Context, g Grant) (Pair, error) {
	return i.IssueAt(ctx, g, time.Now())
}

// IssueAt is [Issuer.Issue] at the time now.
func (i *Issuer) IssueAt(ctx context.Context, g Grant, now time.Time) (Pair, error) {
	token := newToken()
	f := StoredFamily{
		Family: Family{
			ID: token.family(), Device: g.Device, Role: g.Role, Scope: g.Scope, Generation: 1, IssuedAt: now, RotatedAt: now,
			// Whole seconds, as those in tokens: no access token can then end after its family.
			EndsAt: time.Unix(now.Add(i.cfg.Lifetime).Unix(), 0),
		},
		Current: token.sum(),
	}
	f.ValidUntil = i.validUntil(f.Family)
	pair, err := i.pair(f.Family, token, now)
	if err == nil {
		err = unavailable(i.store.Create(ctx, f, now))
	}
	if err != nil {
		return Pair{}, i.refuse(err, f.Family, wsauth.Peer{}, now)
	}
	i.audit(wsauth.EventPairIssued, "", f.Family, wsauth.Peer{}, now)
	return pair, nil
}

// Refresh uses a refresh token at the present time. Its error is a [*wsauth.Error], or an [*UnavailableError] if
// nothing was decided. Of several calls with one token, however parallel, one rotates and the others get the same pair.
func (i *Issuer) Refresh(ctx context.Context, refreshToken string, peer wsauth.Peer) (Pair, error) {
	return i.RefreshAt(ctx, refreshToken, peer, time.Now())
}

// RefreshAt is [Issuer.Refresh] at the time now.
func (i *Issuer) RefreshAt(ctx context.Context, refreshToken string, peer wsauth.Peer, now time.Time) (Pair, error) {
	token, ok := readToken(refreshToken)
	if !ok {
		return Pair{}, i.refuse(&wsauth.Error{Reason: wsauth.ReasonMalformed}, Family{}, peer, now)
	}
	// Whoever loses the race for a rotation finds the winner's the second time.
	for range 2 {
		f, found, err := i.store.Load(ctx, token.family())
		switch {
		case err != nil:
			return Pair{}, i.refuse(unavailable(err), Family{}, peer, now)
		case !found:
			return Pair{}, i.refuse(&wsauth.Error{Reason: wsauth.ReasonUnknown}, Family{}, peer, now)
		case !now.Before(f.ValidUntil):
			return Pair{}, i.refuse(&wsauth.Error{Reason: wsauth.ReasonExpired}, f.Family, peer, now)
		}
		var pair Pair
		done, kind := true, wsauth.EventPairRepeated
		switch isCurrent, isPrevious := token.is(f.Current), token.is(f.Previous); {
		case isCurrent:
			kind = wsauth.EventPairRotated
			pair, done, err = i.rotate(ctx, &f, token, now)
		case isPrevious && now.Before(f.RotatedAt.Add(i.cfg.Grace)):
			pair, err = i.pair(f.Family, token.next(f.Salt), now)
		default:
			// Nobody knows a family's handle but from one of its tokens, so this was one, not a guess.
			if _, err = i.revoke(ctx, f.ID, wsauth.ReasonReused, peer, now); err == nil {
				err = &wsauth.Error{Reason: wsauth.ReasonReused}
			}
		}
		switch {
		case err != nil:
			return Pair{}, i.refuse(err, f.Family, peer, now)
		case done:
			i.audit(kind, "", f.Family, peer, now)
			return pair, nil
		}
	}
	return Pair{}, i.refuse(unavailable(errLostRace), Family{}, peer, now)
}

// errLostRace can only come of a store that refuses a rotation and then does not show the other one.
var errLostRace = errors.New("store is inconsistent")

// rotate moves f on to its next generation, and is false if another call has just done so.
func (i *Issuer) rotate(ctx context.Context, f *StoredFamily, token refreshToken, now time.Time) (Pair, bool, error) {
	next := *f
	next.Salt = newSalt()
	successor := token.next(next.Salt)
	next.Previous, next.Current = f.Current, successor.sum()
	next.Generation++
	next.RotatedAt = now
	next.ValidUntil = i.validUntil(next.Family)
	// A token that the signer would refuse must not be used up.
	pair, err := i.pair(next.Family, successor, now)
	if err != nil {
		return Pair{}, false, err
	}
	rotated, err := i.store.Rotate(ctx, next)
	if err != nil {
		return Pair{}, false, unavailable(err)
	}
	*f = next
	return pair, rotated, nil
}

// pair makes the pair of f's generation. It depends on f and the token alone, so that it can be made again.
func (i *Issuer) pair(f Family, token refreshToken, now time.Time) (Pair, error) {
	p := Pair{TokenID: f.tokenID(), RefreshToken: token.String(), RefreshUntil: f.ValidUntil}
	p.ExpiresAt = time.Unix(f.RotatedAt.Add(i.cfg.AccessLifetime).Unix(), 0)
	if f.EndsAt.Before(p.ExpiresAt) {
		p.ExpiresAt = f.EndsAt
	}
	var err error
	p.Token, err = i.cfg.Signer.SignAt(wsauth.Claims{
		Device: f.Device, Role: f.Role, Scope: f.Scope,
		TokenID: p.TokenID, IssuedAt: f.RotatedAt, ExpiresAt: p.ExpiresAt,
	}, now)
	if err == nil {
		return p, nil
	}
	if refused, ok := errors.AsType[*wsauth.Error](err); ok {
		return Pair{}, &wsauth.Error{Reason: refused.Reason}
	}
	return Pair{}, unavailable(err)
}

func (i *Issuer) validUntil(f Family) time.Time {
	if idle := f.RotatedAt.Add(i.cfg.IdleTimeout); idle.Before(f.EndsAt) {
		return idle
	}
	return f.EndsAt
}

// RevokeDevice ends all families of a device at the present time and says how many there were. Its error is an
// [*UnavailableError]; families may remain then.
func (i *Issuer) RevokeDevice(ctx context.Context, device string) (int, error) {
	return i.RevokeDeviceAt(ctx, device, time.Now())
}

// RevokeDeviceAt is [Issuer.RevokeDevice] at the time now.
func (i *Issuer) RevokeDeviceAt(ctx context.Context, device string, now time.Time) (int, error) {
	all, err := i.store.List(ctx)
	errs := []error{unavailable(err)}
	n := 0
	for _, f := range all {
		if f.Device != device {
			continue
		}
		revoked, err := i.revoke(ctx, f.ID, wsauth.ReasonRevoked, wsauth.Peer{}, now)
		if revoked {
			n++
		}
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

// RevokeFamily ends one family at the present time and says whether there was one of that ID. Its error is an
// [*UnavailableError].
func (i *Issuer) RevokeFamily(ctx context.Context, id string) (bool, error) {
	return i.RevokeFamilyAt(ctx, id, time.Now())
}

// RevokeFamilyAt is [Issuer.RevokeFamily] at the time now.
func (i *Issuer) RevokeFamilyAt(ctx context.Context, id string, now time.Time) (bool, error) {
	return i.revoke(ctx, id, wsauth.ReasonRevoked, wsauth.Peer{}, now)
}

// Families lists the families that can still be refreshed, in no order. Its error is an [*UnavailableError]; there may
// be more families then.
func (i *Issuer) Families(ctx context.Context) ([]Family, error) {
	return i.FamiliesAt(ctx, time.Now())
}

// FamiliesAt is [Issuer.Families] at the time now.
func (i *Issuer) FamiliesAt(ctx context.Context, now time.Time) ([]Family, error) {
	all, err := i.store.List(ctx)
	live := all[:0]
	for _, f := range all {
		if now.Before(f.ValidUntil) {
			live = append(live, f)
		}
	}
	return live, unavailable(err)
}

// revoke ends a family. Only the call that found it tells of it.
func (i *Issuer) revoke(ctx context.Context, id string, reason wsauth.Reason, peer wsauth.Peer, now time.Time) (bool, error) {
	f, found, err := i.store.Remove(ctx, id)
	if found {
		i.audit(wsauth.EventFamilyRevoked, reason, f.Family, peer, now)
		last := now
		if f.RotatedAt.After(last) { // a refresh that was quicker than this call
			last = f.RotatedAt
		}
		i.cfg.OnRevoked(Revocation{Family: f.Family, Reason: reason, IssuedBefore: last.Add(time.Nanosecond)})
	}
	return found, unavailable(err)
}

// refuse reports err, a *wsauth.Error or an *UnavailableError, and completes it by what is known of the family.
func (i *Issuer) refuse(err error, f Family, peer wsauth.Peer, now time.Time) error {
	reason := wsauth.ReasonUnavailable
	if refused, ok := errors.AsType[*wsauth.Error](err); ok {
		reason = refused.Reason
		err = &wsauth.Error{Reason: reason, Device: f.Device, TokenID: f.tokenID()}
	}
	i.audit(wsauth.EventPairRefused, reason, f, peer, now)
	return err
}

func (i *Issuer) audit(kind wsauth.EventKind, reason wsauth.Reason, f Family, peer wsauth.Peer, now time.Time) {
	e := wsauth.Event{Time: now, Kind: kind, Reason: reason, Peer: peer, Device: f.Device, TokenID: f.tokenID()}
	if reason == "" {
		e.ExpiresAt = f.ValidUntil
	}
	i.cfg.Audit(e)
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return &UnavailableError{err}
}
