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

// Signer signs access tokens. The Verifier of package wsauth/jwtauth is a
// Signer.
type Signer interface {
	// SignAt returns an access token, signed at the time now. If it refuses the
	// claims, its error is a [*wsauth.Error]; any other error means that the
	// Signer failed. SignAt must be safe for concurrent use.
	SignAt(c wsauth.ClaimSet, now time.Time) (string, error)
}

// Config configures an [Issuer]. Only Signer is required.
type Config struct {
	// Signer signs the access tokens.
	Signer Signer
	// AccessLifetime is how long an access token is valid, from 2 seconds to 24
	// hours. 0 means 15 minutes. It should be short, because a stolen access
	// token is valid until it expires or is revoked.
	AccessLifetime time.Duration
	// IdleTimeout ends a family that is not refreshed for this time. It is at
	// least AccessLifetime and at most 100 years. 0 means 7 days.
	IdleTimeout time.Duration
	// Lifetime ends a family, however often it is refreshed. It is at least
	// AccessLifetime and at most 100 years. 0 means 90 days. No access token is
	// valid longer than its family.
	Lifetime time.Duration
	// Grace is how long a used refresh token may be used again, because its
	// answer may have been lost. The second use gets the same answer, unless
	// the successor has been used. Grace is at most AccessLifetime less a
	// second. 0 means 20 seconds, or half of AccessLifetime if that is less. A
	// thief who refreshes within the grace after the device is noticed as soon
	// as one of the two is slower.
	Grace time.Duration
	// Store keeps the families, such as the store of [NewDirStore], or of
	// package wsauth/redisauth for several processes. If nil, they are kept in
	// memory, and all refresh tokens are invalid after a restart.
	Store Store
	// Key lets the Issuer recognize a Store that has lost a rotation, such as
	// after a failover or from a backup: with Key, refresh tokens prove how new
	// they are. If a token is newer than the Store, the Store is behind, and
	// the token counts as the newest one. Without Key, it looks like one of
	// another client, and the family is revoked. Key has at least 32 bytes.
	// Nil means that new tokens prove nothing. Tokens that were issued without
	// Key, or with another one, stay valid.
	Key []byte
	// MaxFamilies is the maximum number of families in memory, of about half a
	// kilobyte each. 0 means 10,000. If Store is set, its own maximum applies
	// instead.
	MaxFamilies int

	// Audit is called with every event, on the goroutine that caused the event.
	// It should not block. If nil, events are discarded.
	Audit func(wsauth.Event)
	// OnRevoked is called once for every family that is revoked, before the
	// call that revoked it returns. It should not block. In it, call
	// [wsauth.Gate.Revoke]. Otherwise the access tokens of the family stay
	// valid, and its sessions stay open, until the tokens expire.
	OnRevoked func(Revocation)
	// OnFailure is called by [Issuer.Handler] for every refused refresh token,
	// before the request is answered, so that you can block addresses that
	// guess. Count only reasons for which [wsauth.Reason.IsGuess] is true: a
	// device whose token has expired may ask again and again. OnFailure is not
	// called if the store or the signer fails.
	OnFailure func(*http.Request, wsauth.Reason)
	// ClientIP returns the address of the client of a request, for the audit.
	// If nil, [wsauth.RemoteAddr] is used.
	ClientIP func(*http.Request) netip.Addr
}

// Issuer issues pairs of an access token and a refresh token. It is safe for
// concurrent use.
type Issuer struct {
	cfg    Config
	store  Store
	prover prover
}

// New returns an Issuer. Its error joins a [*ConfigError] for every problem.
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
	// An access token that is given again must still be valid, and NumericDate
	// has no fractions.
	span("Grace", &cfg.Grace, min(20*time.Second, cfg.AccessLifetime/2), 0, cfg.AccessLifetime-time.Second)
	if cfg.MaxFamilies < 0 {
		bad("MaxFamilies", wsauth.ConfigNegative)
	}
	if cfg.Key != nil && len(cfg.Key) < minKey {
		bad("Key", wsauth.ConfigTooShort)
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
	return &Issuer{cfg: cfg, store: cfg.Store, prover: newProver(cfg.Key)}, nil
}

// minKey is the least length of [Config].Key, in bytes.
const minKey = 32

// ConfigError is one problem of a [Config], or of a parameter of [NewDirStore].
// It never contains a value.
type ConfigError struct {
	// Field is the field with its struct, such as "Config.Signer".
	Field string
	// Reason is a [wsauth.ConfigReason].
	Reason error
}

func (e *ConfigError) Error() string { return "refresh: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// Grant is the content of the access tokens of a family. Only Subject is
// required.
type Grant struct {
	Subject string
	Role    string   // empty: the default role
	Scope   []string // nil: all permissions of the role
}

// Pair is an access token and the refresh token for the next pair. It prints
// and logs as its TokenID only.
type Pair struct {
	Token string // the access token
	// TokenID is the "jti" of the access token: the ID of the family, a dot and
	// the number of the pair in the family, from 1.
	TokenID      string
	ExpiresAt    time.Time // when the access token expires
	RefreshToken string
	RefreshUntil time.Time // when the refresh token expires if it is not used
	EndsAt       time.Time // when the family ends, even if it is refreshed
}

// Format implements [fmt.Formatter], so that no verb prints a token.
func (p Pair) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "pair "+p.TokenID) }

// LogValue implements [slog.LogValuer], so that no handler writes a token.
func (p Pair) LogValue() slog.Value { return slog.StringValue("pair " + p.TokenID) }

// Revocation describes a family that was revoked. Its Family.Subject and
// IssuedBefore are the arguments for [wsauth.Gate.Revoke].
type Revocation struct {
	Family Family
	Reason wsauth.Reason // wsauth.ReasonReused or wsauth.ReasonRevoked
	// IssuedBefore is later than the issue of every access token of the family.
	IssuedBefore time.Time
}

// Issue starts a family at the present time and returns its first pair. Do not
// let strangers call it, since it checks no token. If the Signer refuses the
// grant, the error is a [*wsauth.Error]. Otherwise it is an
// [*wsauth.UnavailableError], which wraps [ErrTooManyFamilies] if the store is
// full.
func (i *Issuer) Issue(ctx context.Context, g Grant) (Pair, error) {
	return i.IssueAt(ctx, g, time.Now())
}

// IssueAt is [Issuer.Issue] at the time now.
func (i *Issuer) IssueAt(ctx context.Context, g Grant, now time.Time) (Pair, error) {
	token := newToken()
	f := StoredFamily{
		Family: Family{
			ID: token.family(), Subject: g.Subject, Role: g.Role, Scope: g.Scope, Generation: 1, IssuedAt: now, RotatedAt: now,
			// EndsAt has whole seconds, as tokens do. Otherwise an access token
			// could end after its family.
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

// Refresh uses a refresh token at the present time and returns the next pair.
// If the token is refused, the error is a [*wsauth.Error]. If the store or the
// signer failed, it is a [*wsauth.UnavailableError], and the client may use the
// same token again. If the store failed late, as the text of that error says,
// the family has already moved on, and the client must do so within
// [Config].Grace. Of several parallel calls with the same token, one rotates
// it, and the others return the same pair.
func (i *Issuer) Refresh(ctx context.Context, refreshToken string, peer wsauth.Peer) (Pair, error) {
	return i.RefreshAt(ctx, refreshToken, peer, time.Now())
}

// RefreshAt is [Issuer.Refresh] at the time now.
func (i *Issuer) RefreshAt(ctx context.Context, refreshToken string, peer wsauth.Peer, now time.Time) (Pair, error) {
	token, ok := readToken(refreshToken)
	if !ok {
		return Pair{}, i.refuse(&wsauth.Error{Reason: wsauth.ReasonMalformed}, Family{}, peer, now)
	}
	// If another call rotates the token between Load and Rotate, the second try
	// finds the result of that call.
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
			pair, done, err = i.rotate(ctx, &f, token, f.Generation, now)
		case i.prover.proven(token) > f.Generation:
			// The token was issued after all that the store knows, so the store
			// has lost the rotation that issued it.
			kind = wsauth.EventPairRotated
			pair, done, err = i.rotate(ctx, &f, token, token.generation, now)
		case isPrevious && now.Before(f.RotatedAt.Add(i.cfg.Grace)):
			pair, err = i.pair(f.Family, token.next(f.Salt), now)
		default:
			// The handle of a family is known only from its tokens, so this was
			// one of them and not a guess.
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

// errLostRace occurs only if a store refuses a rotation but then does not
// return the family that another call has rotated.
var errLostRace = errors.New("store is inconsistent")

// rotate moves f to the generation after that of token. It returns false if
// another call has changed the family since f was loaded.
func (i *Issuer) rotate(ctx context.Context, f *StoredFamily, token refreshToken, generation uint64, now time.Time) (Pair, bool, error) {
	next := *f
	next.Salt = newSalt()
	successor := token.next(next.Salt)
	next.Previous, next.Current = token.sum(), successor.sum()
	next.Generation = generation + 1
	next.RotatedAt = now
	next.ValidUntil = i.validUntil(next.Family)
	// Sign first: if the signer refuses, the refresh token must stay valid.
	pair, err := i.pair(next.Family, successor, now)
	if err != nil {
		return Pair{}, false, err
	}
	rotated, err := i.store.Rotate(ctx, next, f.Generation)
	if rotated {
		*f = next
	}
	if err != nil {
		// If the family is replaced, the client gets the pair when it repeats
		// its request, as after a lost answer.
		return Pair{}, false, unavailable(err)
	}
	return pair, rotated, nil
}

// pair returns the pair of f's generation. Its result depends only on f and
// token, so that the same pair can be given again.
func (i *Issuer) pair(f Family, token refreshToken, now time.Time) (Pair, error) {
	p := Pair{TokenID: f.tokenID(), RefreshToken: i.prover.prove(token, f.Generation).String(), RefreshUntil: f.ValidUntil, EndsAt: f.EndsAt}
	p.ExpiresAt = time.Unix(f.RotatedAt.Add(i.cfg.AccessLifetime).Unix(), 0)
	if f.EndsAt.Before(p.ExpiresAt) {
		p.ExpiresAt = f.EndsAt
	}
	var err error
	p.Token, err = i.cfg.Signer.SignAt(wsauth.ClaimSet{
		Subject: f.Subject, Role: f.Role, Scope: f.Scope,
		TokenID: p.TokenID, IssuedAt: f.RotatedAt, ExpiresAt: p.ExpiresAt,
	}, now)
	if err == nil {
		return p, nil
	}
	if refused, ok := refusalIn(err); ok {
		return Pair{}, &wsauth.Error{Reason: refused.Reason}
	}
	return Pair{}, unavailable(err)
}

// refusalIn returns the *wsauth.Error in err, unless err also says that nothing
// could be decided: the cause of that may be a refusal of another service, such
// as one that the store must log in to.
func refusalIn(err error) (*wsauth.Error, bool) {
	if _, undecided := errors.AsType[*wsauth.UnavailableError](err); undecided {
		return nil, false
	}
	return errors.AsType[*wsauth.Error](err)
}

func (i *Issuer) validUntil(f Family) time.Time {
	if idle := f.RotatedAt.Add(i.cfg.IdleTimeout); idle.Before(f.EndsAt) {
		return idle
	}
	return f.EndsAt
}

// RevokeSubject revokes all families of a subject at the present time and
// returns how many there were. Its error joins a [*wsauth.UnavailableError] for
// every failure; families may then remain.
func (i *Issuer) RevokeSubject(ctx context.Context, subject string) (int, error) {
	return i.RevokeSubjectAt(ctx, subject, time.Now())
}

// RevokeSubjectAt is [Issuer.RevokeSubject] at the time now.
func (i *Issuer) RevokeSubjectAt(ctx context.Context, subject string, now time.Time) (int, error) {
	all, err := i.store.List(ctx)
	errs := []error{unavailable(err)}
	n := 0
	for _, f := range all {
		if f.Subject != subject {
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

// RevokeFamily revokes one family at the present time. It returns false if
// there is no family of this ID. Its error is a [*wsauth.UnavailableError].
func (i *Issuer) RevokeFamily(ctx context.Context, id string) (bool, error) {
	return i.RevokeFamilyAt(ctx, id, time.Now())
}

// RevokeFamilyAt is [Issuer.RevokeFamily] at the time now.
func (i *Issuer) RevokeFamilyAt(ctx context.Context, id string, now time.Time) (bool, error) {
	return i.revoke(ctx, id, wsauth.ReasonRevoked, wsauth.Peer{}, now)
}

// Families returns the families that can still be refreshed, in no particular
// order. If its error, a [*wsauth.UnavailableError], is not nil, there may be
// more.
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

// revoke ends a family. Of several calls for one family, only the call that
// removes it calls Audit and OnRevoked.
func (i *Issuer) revoke(ctx context.Context, id string, reason wsauth.Reason, peer wsauth.Peer, now time.Time) (bool, error) {
	f, found, err := i.store.Remove(ctx, id)
	if found {
		i.audit(wsauth.EventFamilyRevoked, reason, f.Family, peer, now)
		last := now
		if f.RotatedAt.After(last) { // a refresh came first
			last = f.RotatedAt
		}
		i.cfg.OnRevoked(Revocation{Family: f.Family, Reason: reason, IssuedBefore: last.Add(time.Nanosecond)})
	}
	return found, unavailable(err)
}

// refuse audits err, a *wsauth.Error or a *wsauth.UnavailableError, and returns
// it with the subject and token ID of the family.
func (i *Issuer) refuse(err error, f Family, peer wsauth.Peer, now time.Time) error {
	reason := wsauth.ReasonUnavailable
	if refused, ok := refusalIn(err); ok {
		reason = refused.Reason
		err = &wsauth.Error{Reason: reason, Subject: f.Subject, TokenID: f.tokenID()}
	}
	i.audit(wsauth.EventPairRefused, reason, f, peer, now)
	return err
}

func (i *Issuer) audit(kind wsauth.EventKind, reason wsauth.Reason, f Family, peer wsauth.Peer, now time.Time) {
	e := wsauth.Event{Time: now, Kind: kind, Reason: reason, Peer: peer, Subject: f.Subject, TokenID: f.tokenID()}
	if reason == "" {
		e.ExpiresAt = f.ValidUntil
	}
	i.cfg.Audit(e)
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return &wsauth.UnavailableError{Err: err}
}
