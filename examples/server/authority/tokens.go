package authority

import (
	"context"
	"fmt"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// SignWith is [Sign] with a private key whose public key is in cfg. It refuses
// a token that the server would not accept.
func SignWith(ctx context.Context, key jwtauth.Key, cfg Config, g refresh.Grant, ttl time.Duration, now time.Time) (string, error) {
	accepts, err := cfg.verifier()
	if err != nil {
		return "", err
	}
	cfg.Keys, cfg.PublicKeys, cfg.Provider = []jwtauth.Key{key}, nil, nil
	token, err := Sign(cfg, g, ttl, now)
	if err != nil {
		return "", err
	}
	if _, err := accepts.Verify(ctx, []byte(token), now); err != nil {
		return "", fmt.Errorf("the server does not accept this key (add its public key to JWT_PUBLIC_KEY): %w", err)
	}
	return token, nil
}

// Sign returns an access token that is valid for ttl from now. The server need
// not run.
func Sign(cfg Config, g refresh.Grant, ttl time.Duration, now time.Time) (string, error) {
	verifier, err := cfg.verifier()
	if err != nil {
		return "", err
	}
	return verifier.SignAt(wsauth.ClaimSet{Subject: g.Subject, Role: g.Role, Scope: g.Scope, ExpiresAt: now.Add(ttl)}, now)
}

// NewPair begins a family of refresh tokens in cfg's directory or engine. The
// server need not run; if it runs, it accepts the pair at once.
func NewPair(ctx context.Context, cfg Config, g refresh.Grant) (refresh.Pair, error) {
	verifier, err := cfg.verifier()
	if err != nil {
		return refresh.Pair{}, err
	}
	issuer, err := cfg.issuer(verifier)
	if err != nil {
		return refresh.Pair{}, err
	}
	i, err := refresh.New(issuer)
	if err != nil {
		return refresh.Pair{}, err
	}
	return i.Issue(ctx, g)
}

// Permissions on the operator's listener, beside [wsauth.Admin].
const (
	Metrics  = "metrics"  // the metrics
	Sessions = "sessions" // sessions, families of refresh tokens, keys
	Audit    = "audit"    // the newest security events, and browsers' reports
	Blocks   = "blocks"   // the blocked networks
	Profile  = "profile"  // profiles of the process
)

// Roles returns the permissions of each role that a token may have on a server
// with these rooms. A publisher may publish in the room of its device, and a
// speaker in all rooms, or in those that the scope of its token names.
func Roles(rooms []string) map[string][]string {
	roles := map[string][]string{
		"publisher": {wsauth.Publish},
		"metrics":   {Metrics},
		"auditor":   {Metrics, Sessions, Audit, Blocks},
		"profiler":  {Profile},
		"admin":     {wsauth.Publish, wsauth.Admin, Metrics, Sessions, Audit, Blocks, Profile},
	}
	for _, room := range rooms {
		roles["speaker"] = append(roles["speaker"], wsauth.Publish+":"+room)
	}
	return roles
}

// operator is the device name and the audience in the tokens of the operator's
// commands. Such a token is valid only on the operator's listener, since no
// device has that name and no device's token has an audience. Revoking a device
// never locks the operator out.
const operator = "operator"

func operatorVerifier(keys []jwtauth.Key) (*jwtauth.Verifier, error) {
	return jwtauth.New(jwtauth.Config{Keys: keys, Subjects: []string{operator}, SubjectClaim: "device", Audience: operator})
}

// OperatorToken returns a token for one call on the operator's listener, valid
// for a minute from now.
func OperatorToken(keys []jwtauth.Key, now time.Time) (string, error) {
	verifier, err := operatorVerifier(keys)
	if err != nil {
		return "", err
	}
	return verifier.SignAt(wsauth.ClaimSet{
		Subject: operator, Scope: []string{wsauth.Admin}, ExpiresAt: now.Add(time.Minute),
	}, now)
}
