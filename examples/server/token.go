package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// defaultTTL is how long a token made by hand is good for. Devices run unattended
// for weeks; whoever wants less says so.
const defaultTTL = 30 * 24 * time.Hour

func (c *config) verifier() (*wsauth.HS256, error) {
	return wsauth.NewHS256(wsauth.HS256Config{Keys: c.keys(), Devices: c.devices})
}

// The operator's commands show tokens of their own, which are good on the operator's
// listener and nowhere else: that name is no device, and devices' tokens have no
// audience. Revoking a device shuts no operator out.
const operatorName = "operator"

func (c *config) operatorVerifier() (*wsauth.HS256, error) {
	return wsauth.NewHS256(wsauth.HS256Config{Keys: c.keys(), Devices: []string{operatorName}, Audience: operatorName})
}

// operatorToken lives for one call.
func (c *config) operatorToken(now time.Time) (string, error) {
	verifier, err := c.operatorVerifier()
	if err != nil {
		return "", err
	}
	return verifier.SignAt(wsauth.Claims{
		Device: operatorName, Role: "admin", Scope: []string{wsauth.Admin}, ExpiresAt: now.Add(time.Minute),
	}, now)
}

// keys is the ring: the secret signs, the previous one is only accepted.
func (c *config) keys() []wsauth.Key {
	keys := []wsauth.Key{{Secret: []byte(c.secret.Reveal())}}
	if old := c.previous.Reveal(); old != "" && old != c.secret.Reveal() {
		keys = append(keys, wsauth.Key{Secret: []byte(old)})
	}
	return keys
}

// newToken makes a token for device that expires ttl after now.
func (c *config) newToken(device string, ttl time.Duration, now time.Time) (string, error) {
	return c.sign(refresh.Grant{Device: device}, ttl, now)
}

func (c *config) sign(g refresh.Grant, ttl time.Duration, now time.Time) (string, error) {
	verifier, err := c.verifier()
	if err != nil {
		return "", err
	}
	return verifier.SignAt(wsauth.Claims{Device: g.Device, Role: g.Role, Scope: g.Scope, ExpiresAt: now.Add(ttl)}, now)
}

// newPair begins a line of refresh tokens. The server need not run, and if it does,
// it knows the pair at once.
func (c *config) newPair(ctx context.Context, g refresh.Grant) (refresh.Pair, error) {
	verifier, err := c.verifier()
	if err != nil {
		return refresh.Pair{}, err
	}
	issuer, err := c.issuerConfig(verifier)
	if err != nil {
		return refresh.Pair{}, err
	}
	i, err := refresh.New(issuer)
	if err != nil {
		return refresh.Pair{}, err
	}
	return i.Issue(ctx, g)
}

// newSecret is 256 random bits in a form that every shell and file leaves alone.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// tokenVerb prints a token for one of the allowed devices, or with -pair the first
// pair of a line, in the form that refreshing answers with.
func tokenVerb(ctx context.Context, args []string, env lookup, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("server token", flag.ContinueOnError)
	flags.SetOutput(stderr)
	device := flags.String("device", "", "the device's `ID`; may be left out where only one is allowed")
	ttl := flags.Duration("ttl", defaultTTL, "how long the token is good for")
	role := flags.String("role", "", "publisher or admin, who may do both (default publisher)")
	scope := flags.String("scope", "", "limit the role to these `permissions`, separated by commas: publish, admin")
	output := flags.String("o", "", "write it to a new `FILE` for its owner alone, instead of standard output")
	pair := flags.Bool("pair", false, "make a short-lived token and a refresh token, for a device that refreshes by itself")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	fail := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "server token: "+format+"\n", args...)
		return exitFailed
	}
	var ttlGiven, scopeGiven bool
	flags.Visit(func(f *flag.Flag) {
		ttlGiven = ttlGiven || f.Name == "ttl"
		scopeGiven = scopeGiven || f.Name == "scope"
	})
	cfg, err := loadConfig(env)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	if *device == "" && len(cfg.devices) == 1 {
		*device = cfg.devices[0]
	}
	grant := refresh.Grant{Device: *device, Role: *role}
	for p := range strings.FieldsFuncSeq(*scope, func(r rune) bool { return r == ',' || r == ' ' }) {
		grant.Scope = append(grant.Scope, p)
	}
	switch {
	case !slices.Contains(cfg.devices, *device):
		return fail("-device is %q, which is not one of ALLOWED_DEVICE_ID: %s", *device, strings.Join(cfg.devices, ", "))
	case *role != "" && *role != "publisher" && *role != "admin":
		return fail("-role is %q, which is neither publisher nor admin", *role)
	case slices.ContainsFunc(grant.Scope, func(p string) bool { return p != wsauth.Publish && p != wsauth.Admin }):
		return fail("-scope is %q, which is not made of publish and admin", *scope)
	case scopeGiven && grant.Scope == nil:
		return fail("-scope names no permission; leave it out for all that the role has")
	case *pair && ttlGiven:
		return fail("-ttl is of tokens without -pair; ACCESS_TOKEN_LIFETIME and REFRESH_TOKEN_LIFETIME are of those with it")
	case *pair && cfg.authDir == "":
		return fail("-pair needs AUTH_DIR, where the server and this command keep what refresh tokens are checked against")
	}
	if *output != "" {
		if _, err := os.Lstat(*output); err == nil {
			return fail("%s exists", *output)
		}
	}
	var text []byte
	if *pair {
		text, err = cfg.newPairJSON(ctx, grant)
	} else {
		var token string
		token, err = cfg.sign(grant, *ttl, time.Now())
		text = []byte(token)
	}
	if err != nil {
		return fail("%v", err)
	}
	text = append(text, '\n')
	if *output != "" {
		err = writeNew(*output, text)
	} else {
		_, err = stdout.Write(text)
	}
	if err != nil {
		return fail("%v", err)
	}
	return exitOK
}

// writeNew makes a file that was not there, for its owner alone.
func writeNew(name string, text []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

// newPairJSON is a new pair in the form that refreshing answers with, so that a device
// reads one form only.
func (c *config) newPairJSON(ctx context.Context, g refresh.Grant) ([]byte, error) {
	if owner, other := ownedByOther(c.authDir); other {
		return nil, fmt.Errorf("AUTH_DIR belongs to user %d, who could not read the pair: run this as that user", owner)
	}
	p, err := c.newPair(ctx, g)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Token        string `json:"token"`
		ExpiresAt    int64  `json:"expires_at"`
		RefreshToken string `json:"refresh_token"`
	}{p.Token, p.ExpiresAt.Unix(), p.RefreshToken})
}
