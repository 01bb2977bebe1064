package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
)

// refreshPath is where a device exchanges its refresh token for the next pair.
const refreshPath = "/auth/refresh"

// authority decides who may publish: the ring of keys, the sessions that stand on
// it, and, where AUTH_DIR says where to keep them, the refresh tokens.
type authority struct {
	log         *slog.Logger
	keys        *wsauth.HS256
	operators   *wsauth.HS256 // of the operator's own tokens, on the same keys
	gate        *wsauth.Gate
	issuer      *wsauth.Issuer // nil without AUTH_DIR
	revocations *revocations   // nil without AUTH_DIR
	reloading   sync.Mutex
	reloaded    func(config) // if set, called with new secrets before they are in force
}

// newAuthority makes one. Every event goes to audit, and every refused refresh
// token to failed, with the address that it came from.
func newAuthority(cfg config, log *slog.Logger, audit func(wsauth.Event), clientIP func(*http.Request) netip.Addr, failed func(netip.Addr)) (*authority, error) {
	a := &authority{log: log}
	var err error
	if a.keys, err = cfg.verifier(); err != nil {
		return nil, err
	}
	if a.operators, err = cfg.operatorVerifier(); err != nil {
		return nil, err
	}
	a.gate, err = wsauth.New(wsauth.Config{
		Verifier: a.keys, Audit: audit, OnExpiry: cfg.onExpiry, MaxLifetime: cfg.tokenMaxLifetime,
		MaxSessions: cfg.deviceSessions, OverLimit: cfg.overSessions,
	})
	if err != nil || cfg.authDir == "" {
		return a, err
	}
	issuer, err := cfg.issuerConfig(a.keys)
	if err != nil {
		return nil, err
	}
	if a.revocations, err = loadRevocations(cfg.authDir); err != nil {
		return nil, err
	}
	for device, before := range a.revocations.before {
		a.gate.Revoke(device, before)
	}
	issuer.Audit, issuer.ClientIP = audit, clientIP
	issuer.OnRevoked = func(r wsauth.Revocation) {
		if _, err := a.revokeTokens(r.Family.Device, r.IssuedBefore); err != nil {
			log.Error("a revocation will be forgotten at the next start", "device", r.Family.Device, "error", err)
		}
	}
	issuer.OnFailure = func(r *http.Request, _ wsauth.Reason) { failed(clientIP(r)) }
	a.issuer, err = wsauth.NewIssuer(issuer)
	return a, err
}

// issuerConfig is what the server and the command that makes a first pair must
// agree about.
func (c *config) issuerConfig(signer wsauth.Signer) (wsauth.IssuerConfig, error) {
	store, err := wsauth.NewDirStore(c.authDir, 0)
	if err != nil {
		return wsauth.IssuerConfig{}, fmt.Errorf("%w (AUTH_DIR chooses the directory)", err)
	}
	return wsauth.IssuerConfig{Signer: signer, Store: store, AccessLifetime: c.accessLifetime, Lifetime: c.refreshLifetime}, nil
}

// revokeTokens ends what stands on access tokens of a device that were issued
// before a time, and remembers that across restarts where it can.
func (a *authority) revokeTokens(device string, before time.Time) (sessions int, err error) {
	before = before.UTC() // in a file, every offset that can be parsed cannot be written
	sessions = a.gate.Revoke(device, before)
	if a.revocations != nil {
		err = a.revocations.add(device, before)
	}
	return sessions, err
}

// revoke is the operator's: all that a device has, or had before a time. A line of
// refresh tokens that began before it ends, and what it has got since is worth no
// more than its beginning; which of the device's tokens came of it cannot be told, so
// then all end that were issued until now.
func (a *authority) revoke(ctx context.Context, device string, before time.Time) (done operate.Revoked, err error) {
	done.Device, done.Before, done.Lasting = device, before, a.revocations != nil
	open := a.sessionsOf(device)
	var errs []error
	if a.issuer != nil {
		families, err := a.issuer.Families(ctx)
		errs = append(errs, err)
		for _, f := range families {
			if f.Device != device || !f.IssuedAt.Before(before) {
				continue
			}
			found, err := a.issuer.RevokeFamily(ctx, f.ID)
			errs = append(errs, err)
			if found {
				done.Families++
				done.Before = time.Now()
			}
		}
	}
	_, err = a.revokeTokens(device, before)
	errs = append(errs, err)
	done.Sessions = max(open-a.sessionsOf(device), 0)
	a.log.Warn("device revoked", "device", device, "before", done.Before, "sessions", done.Sessions, "families", done.Families)
	return done, errors.Join(errs...)
}

func (a *authority) sessionsOf(device string) (n int) {
	for _, s := range a.gate.Sessions() {
		if s.Identity.Device == device {
			n++
		}
	}
	return n
}

// VerifyAt decides about a token on the operator's listener: one of the operator's
// own, or a device's with the permission that the caller asks for.
func (a *authority) VerifyAt(token []byte, now time.Time) (wsauth.Identity, error) {
	if id, err := a.operators.VerifyAt(token, now); err == nil {
		return id, nil
	}
	return a.gate.VerifyAt(token, now)
}

// reload reads the secrets again and puts them in force. Whoever stands on one that
// is gone loses his right at once; a bad environment changes nothing.
func (a *authority) reload(env lookup) error {
	// One after the other: of two, the one that has read the older files must not be the
	// last to put them in force.
	a.reloading.Lock()
	defer a.reloading.Unlock()
	cfg, err := loadConfig(env)
	if err == nil && a.reloaded != nil {
		a.reloaded(cfg)
	}
	if err == nil {
		err = errors.Join(a.keys.Rotate(cfg.keys()...), a.operators.Rotate(cfg.keys()...))
	}
	if err != nil {
		a.log.Error("secrets not reloaded", "error", err)
		return err
	}
	a.log.Info("secrets reloaded", "keys", len(cfg.keys()))
	return nil
}

// refresh serves refreshPath to whoever is not blocked: failures there count like
// those on the WebSocket.
func (a *authority) refresh(limiter *ratelimit.Limiter, clientIP func(*http.Request) netip.Addr) http.Handler {
	next := a.issuer.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := clientIP(r)
		if until, blocked := limiter.Blocked(client); blocked {
			limiter.Refuse(w, ratelimit.Decision{Client: ratelimit.Fold(client), Reason: ratelimit.ReasonBlocked, RetryAfter: time.Until(until)})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// revocations are those of whole devices, in a file, so that a token which was
// revoked is not good again after a restart. Only the server writes it.
type revocations struct {
	path string

	mu     sync.Mutex
	before map[string]time.Time // by device
	behind bool                 // the file is
}

func loadRevocations(dir string) (*revocations, error) {
	r := &revocations{path: filepath.Join(dir, "revocations.json"), before: make(map[string]time.Time)}
	text, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r.before)
	}
	if err != nil {
		// Going on without them would make revoked tokens good again.
		return nil, fmt.Errorf("the revocations cannot be read: %w (mend %s, or remove it and change JWT_SECRET)", err, r.path)
	}
	if r.before == nil { // the file says null
		r.before = make(map[string]time.Time)
	}
	return r, nil
}

func (r *revocations) add(device string, before time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before.After(r.before[device]) {
		r.before[device], r.behind = before, true
	}
	if !r.behind {
		return nil
	}
	text, err := json.MarshalIndent(r.before, "", "  ")
	if err == nil {
		err = replaceFile(r.path, text)
	}
	r.behind = err != nil
	return err
}

// replaceFile puts text in the place of a file, whole or not at all, for its owner
// alone.
func replaceFile(path string, text []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if runtime.GOOS == "windows" {
		return nil // it has no such call for directories
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
