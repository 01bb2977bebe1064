// Package authority decides which peers may publish: it holds the keys, the
// gate with its sessions, the refresh tokens and the revocations.
package authority

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// RefreshPath is the path at which a device exchanges its refresh token for the
// next pair.
const RefreshPath = "/auth/refresh"

// Config sets which devices may publish, and for how long. Devices is required,
// and at least one of Keys, PublicKeys and Provider. A zero duration or choice
// means the default of package wsauth or refresh.
type Config struct {
	Keys       []jwtauth.Key // secrets, of which the first one signs
	PublicKeys []jwtauth.Key // of machines that sign tokens elsewhere
	Provider   *jwtauth.Provider
	Audience   string // of devices' tokens; may be empty
	Claim      string // that names the device; empty means "device"
	Devices    []string
	Rooms      []string // of the server; may be empty

	OnExpiry    wsauth.OnExpiry
	MaxLifetime time.Duration // of any token
	MaxSessions int           // of one device; 0 is any number
	OverLimit   wsauth.OverLimit

	// Dir keeps refresh tokens and revocations. If empty, and without Families,
	// there are no refresh tokens, and revocations end with the process.
	// Without Keys, there are no refresh tokens either.
	Dir string
	// Shared, Families and FamilyKey, if set, take the place of Dir: several
	// servers share the revocations, the sessions and the refresh tokens.
	Shared    wsauth.Shared
	Families  refresh.Store
	FamilyKey []byte // see [refresh.Config]

	AccessLifetime  time.Duration
	RefreshLifetime time.Duration

	Log       *slog.Logger                   // required by New
	Audit     func(wsauth.Event)             // gets every event
	Barred    func(wsauth.Peer) bool         // may be nil; see [wsauth.Config]
	ClientIP  func(*http.Request) netip.Addr // of requests that show a token; required if there are refresh tokens
	OnFailure func(netip.Addr)               // called with the address of a refresh token that may have been guessed
}

// Authority verifies, issues and revokes the server's tokens. It is safe for
// concurrent use.
type Authority struct {
	cfg         Config
	keys        *jwtauth.Verifier
	secrets     atomic.Pointer[[]jwtauth.Key]
	operators   *jwtauth.Verifier // verifies the operator's own tokens, with Keys; nil without Keys
	gate        *wsauth.Gate
	issuer      *refresh.Issuer // nil without Dir and Families, or without Keys
	revocations *revocations    // nil without Dir
}

// New returns an Authority, with the revocations in cfg.Dir in force.
func New(cfg Config) (*Authority, error) {
	a := &Authority{cfg: cfg}
	a.secrets.Store(&cfg.Keys)
	var err error
	if a.keys, err = cfg.verifier(); err != nil {
		return nil, err
	}
	if len(cfg.Keys) > 0 {
		if a.operators, err = operatorVerifier(cfg.Keys); err != nil {
			return nil, err
		}
	}
	a.gate, err = wsauth.New(wsauth.Config{
		Verifier: a.keys, Audit: cfg.Audit, Barred: cfg.Barred, ClientIP: cfg.ClientIP, OnExpiry: cfg.OnExpiry, MaxLifetime: cfg.MaxLifetime,
		MaxSessions: cfg.MaxSessions, OverLimit: cfg.OverLimit, Shared: cfg.Shared,
	})
	if err != nil || cfg.Dir == "" && cfg.Families == nil {
		return a, err
	}
	issuer, err := cfg.issuer(a.keys) // checks the directory too
	if err != nil {
		return nil, err
	}
	if cfg.Dir != "" {
		if a.revocations, err = loadRevocations(cfg.Dir); err != nil {
			return nil, err
		}
		for device, before := range a.revocations.before {
			a.gate.Revoke(device, before)
		}
	}
	if len(cfg.Keys) == 0 {
		cfg.Log.Warn("there are no refresh tokens, because the server has no secret that signs")
		return a, nil
	}
	issuer.Audit, issuer.ClientIP = cfg.Audit, cfg.ClientIP
	issuer.OnRevoked = func(r refresh.Revocation) {
		if err := a.revokeTokens(context.Background(), r.Family.Subject, r.IssuedBefore); err != nil {
			cfg.Log.Error("a revocation will be forgotten at the next start", "device", r.Family.Subject, "error", err)
		}
	}
	issuer.OnFailure = func(r *http.Request, reason wsauth.Reason) {
		if reason.IsGuess() {
			cfg.OnFailure(cfg.ClientIP(r))
		}
	}
	a.issuer, err = refresh.New(issuer)
	return a, err
}

// Gate returns the gate.
func (a *Authority) Gate() *wsauth.Gate { return a.gate }

// Issuer returns the issuer of refresh tokens, which is nil if there is no
// directory or no secret that signs.
func (a *Authority) Issuer() *refresh.Issuer { return a.issuer }

// KeyUsage returns how many tokens each key has verified, the signing key
// first.
func (a *Authority) KeyUsage() []jwtauth.KeyUsage { return a.keys.KeyUsage() }

// ErrNoSecret means that there is no secret where the server must have one from
// its start.
var ErrNoSecret = errors.New("the server was started with a secret, or without one, and must be started anew to change that")

// Rotate puts other secrets and public keys in force. A session ends at once if
// they do not hold the key that signed its token.
func (a *Authority) Rotate(secrets, public []jwtauth.Key) error {
	if (a.operators == nil) != (len(secrets) == 0) {
		return ErrNoSecret
	}
	if a.operators != nil {
		if err := a.operators.Rotate(secrets...); err != nil {
			return err
		}
	}
	err := a.keys.Rotate(slices.Concat(secrets, public)...)
	if err == nil {
		a.secrets.Store(&secrets)
	}
	return err
}

// Run keeps the keys of the Provider fresh, and the gate in touch with other
// servers, until ctx ends. Without a Provider and Shared, it returns at once.
func (a *Authority) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { a.gate.Run(ctx) })
	if a.cfg.Provider != nil {
		a.keys.Run(ctx)
	}
	running.Wait()
}

// Verify verifies a token on the operator's listener at the time now. It
// accepts the operator's own tokens and devices' tokens. The caller checks the
// permissions.
func (a *Authority) Verify(ctx context.Context, token []byte, now time.Time) (wsauth.Identity, error) {
	if a.operators != nil {
		if id, err := a.operators.Verify(ctx, token, now); err == nil {
			return id, nil
		}
	}
	return a.gate.Verify(ctx, token, now)
}

// maxAhead is how far in the future a revocation may lie, for clocks that
// differ.
const maxAhead = time.Minute

// Revoked is the result of [Authority.Revoke].
type Revoked struct {
	Device   string    `json:"device"`
	Before   time.Time `json:"before"`   // later than the caller's if a family of refresh tokens ended
	Sessions int       `json:"sessions"` // that lost their permissions
	Families int       `json:"families"` // of refresh tokens
	Lasting  bool      `json:"lasting"`  // whether it outlasts a restart of the server
}

// Revoke revokes all tokens of a device that were issued before a time, and
// ends each family of refresh tokens that began before then. If a family ends,
// Revoke revokes all of the device's access tokens that were issued until now,
// since an access token does not name its family. A time more than a minute in
// the future counts as in a minute. by names the operator in the log. If Revoke
// returns an error, the sessions have ended, but the revocation may not outlast
// a restart.
func (a *Authority) Revoke(ctx context.Context, by, device string, before time.Time) (done Revoked, err error) {
	if latest := time.Now().Add(maxAhead); before.After(latest) {
		before = latest
	}
	before = before.UTC() // JSON cannot hold every offset that can be parsed
	done.Device, done.Before, done.Lasting = device, before, a.revocations != nil || a.cfg.Shared != nil
	open := a.sessionsOf(device)
	others := a.sessionsElsewhere(ctx, device, before)
	var errs []error
	if a.issuer != nil {
		families, err := a.issuer.Families(ctx)
		errs = append(errs, err)
		for _, f := range families {
			if f.Subject != device || !f.IssuedAt.Before(before) {
				continue
			}
			found, err := a.issuer.RevokeFamily(ctx, f.ID)
			errs = append(errs, err)
			if found {
				done.Families++
				done.Before = time.Now().UTC()
			}
		}
	}
	errs = append(errs, a.revokeTokens(ctx, device, before))
	done.Sessions = max(open-a.sessionsOf(device), 0) + others
	a.cfg.Log.Warn("device revoked", "device", device, "by", by, "before", done.Before, "sessions", done.Sessions, "families", done.Families)
	return done, errors.Join(errs...)
}

// Unrevoke takes back the revocations of a device, and reports whether there
// were any. Families of refresh tokens that a revocation has ended stay ended.
func (a *Authority) Unrevoke(ctx context.Context, device string) (bool, error) {
	found, err := a.gate.UnrevokeContext(ctx, device)
	if a.revocations != nil {
		err = errors.Join(err, a.revocations.remove(device))
	}
	if found {
		a.cfg.Log.Warn("revocation taken back", "device", device)
	}
	return found, err
}

// Knows reports whether a device may publish, or has a session or a family of
// refresh tokens.
func (a *Authority) Knows(ctx context.Context, device string) bool {
	if slices.Contains(a.cfg.Devices, device) || a.sessionsOf(device)+a.sessionsElsewhere(ctx, device, time.Now()) > 0 {
		return true
	}
	if a.issuer == nil {
		return false
	}
	families, err := a.issuer.Families(ctx)
	return err != nil || slices.ContainsFunc(families, func(f refresh.Family) bool { return f.Subject == device })
}

// revokeTokens revokes access tokens of a device that were issued before a
// time, on all servers. If there is a directory, it writes the revocation there
// for the next start.
func (a *Authority) revokeTokens(ctx context.Context, device string, before time.Time) error {
	_, err := a.gate.RevokeContext(ctx, device, before)
	if a.revocations != nil {
		err = errors.Join(err, a.revocations.add(device, before))
	}
	return err
}

// sessionsElsewhere counts the sessions of a device on other servers whose
// tokens were issued before a time.
func (a *Authority) sessionsElsewhere(ctx context.Context, device string, before time.Time) (n int) {
	if a.cfg.Shared == nil {
		return 0
	}
	all, _ := a.gate.AllSessions(ctx) // a count is no matter of an engine that is away
	for _, s := range all {
		own := slices.ContainsFunc(a.gate.Sessions(), func(o wsauth.SessionInfo) bool { return o.ID == s.ID })
		if !own && s.Identity.Subject == device && s.Identity.IssuedAt.Before(before) {
			n++
		}
	}
	return n
}

func (a *Authority) sessionsOf(device string) (n int) {
	for _, s := range a.gate.Sessions() {
		if s.Identity.Subject == device {
			n++
		}
	}
	return n
}

// RefreshHandler serves [RefreshPath] to clients that refuse does not answer
// itself.
func (a *Authority) RefreshHandler(refuse func(http.ResponseWriter, *http.Request, netip.Addr) bool) http.Handler {
	next := a.issuer.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !refuse(w, r, a.cfg.ClientIP(r)) {
			next.ServeHTTP(w, r)
		}
	})
}

func (c *Config) verifier() (*jwtauth.Verifier, error) {
	cfg := jwtauth.Config{
		Keys: slices.Concat(c.Keys, c.PublicKeys), Subjects: c.Devices, SubjectClaim: cmp.Or(c.Claim, "device"),
		Audience: c.Audience, Roles: Roles(c.Rooms), DefaultRole: "publisher", Log: c.Log,
	}
	if c.Provider != nil {
		cfg.Providers = []jwtauth.Provider{*c.Provider}
	}
	return jwtauth.New(cfg)
}

// issuer returns the configuration of refresh tokens that the server and
// [NewPair] must share.
func (c *Config) issuer(signer refresh.Signer) (refresh.Config, error) {
	store := c.Families
	if store == nil {
		var err error
		if store, err = refresh.NewDirStore(c.Dir, 0); err != nil {
			return refresh.Config{}, fmt.Errorf("%w (AUTH_DIR sets the directory)", err)
		}
	}
	return refresh.Config{Signer: signer, Store: store, Key: c.FamilyKey, AccessLifetime: c.AccessLifetime, Lifetime: c.RefreshLifetime}, nil
}
