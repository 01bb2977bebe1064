package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/files"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// defaultTTL is how long a token made by hand is valid. Devices run unattended
// for weeks; the operator can choose less.
const defaultTTL = 30 * 24 * time.Hour

// setupToken prints a token for one of the allowed devices. With -pair, it
// prints the first pair of a family, in the form of a refresh's answer.
func setupToken(flags *flag.FlagSet) func(*call) error {
	device := flags.String("device", "", "the device's `ID`; may be left out if only one is allowed")
	ttl := flags.Duration("ttl", defaultTTL, "how long the token is valid")
	role := flags.String("role", "", "publisher; speaker, for publishing in all rooms (ROOMS), or in those of -scope; metrics, for a reader of the metrics; auditor, for reading all that the operator can read; profiler, for profiles of the process; or admin, for everything (default publisher)")
	scope := flags.String("scope", "", "limit the role to these of its `permissions`, separated by commas: publish, publish:ROOM of a speaker, metrics, sessions, audit, blocks, profile, admin")
	output := flags.String("o", "", "write to a new `FILE`, readable by its owner alone, instead of standard output")
	pair := flags.Bool("pair", false, "make a short-lived token and a refresh token, for a device that refreshes by itself")
	newKey := flags.String("new-key", "", "make a pair of keys instead of a token: write the private key to a new `FILE`, readable by its owner alone, and print the public key for JWT_PUBLIC_KEY")
	alg := flags.String("alg", jwtauth.EdDSA, "algorithm of -new-key: EdDSA (Ed25519) or ES256")
	keyFile := flags.String("key", "", "sign with the private key in this `FILE` instead of JWT_SECRET")
	check := flags.String("check", "", "make no token, but say what the server thinks of the one in this `FILE` (- for standard input), without printing it")
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		given := make(map[string]bool)
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if *check != "" {
			if len(given) > 1 {
				return errors.New("-check goes with no other flag")
			}
			return checkToken(c, *check)
		}
		if *newKey != "" {
			if len(given) > 2 || len(given) == 2 && !given["alg"] {
				return errors.New("-new-key goes with -alg only")
			}
			return makeKeys(c, *newKey, *alg)
		}
		cfg, err := c.config()
		if err != nil {
			return err
		}
		if *device == "" && len(cfg.Devices) == 1 {
			*device = cfg.Devices[0]
		}
		grant := refresh.Grant{Subject: *device, Role: *role}
		for p := range strings.FieldsFuncSeq(*scope, func(r rune) bool { return r == ',' || r == ' ' }) {
			grant.Scope = append(grant.Scope, p)
		}
		roles := authority.Roles(cfg.Rooms)
		switch {
		case !slices.Contains(cfg.Devices, *device):
			return fmt.Errorf("-device is %q, which is not one of ALLOWED_DEVICE_ID: %s", *device, strings.Join(cfg.Devices, ", "))
		case *role != "" && roles[*role] == nil:
			return fmt.Errorf("-role is %q, which is none of %s", *role, strings.Join(slices.Sorted(maps.Keys(roles)), ", "))
		case slices.ContainsFunc(grant.Scope, func(p string) bool { return !slices.Contains(roles[cmp.Or(*role, "publisher")], p) }):
			return fmt.Errorf("-scope is %q, and the role has the permissions %s", *scope, strings.Join(roles[cmp.Or(*role, "publisher")], ", "))
		case given["scope"] && grant.Scope == nil:
			return errors.New("-scope names no permission; leave it out for all permissions of the role")
		case given["alg"]:
			return errors.New("-alg goes with -new-key only")
		case *pair && *keyFile != "":
			return errors.New("-key does not go with -pair: only the server signs the tokens of a pair")
		case *keyFile == "" && cfg.Keys() == nil:
			return errors.New("JWT_SECRET is not set, so there is nothing to sign with: name the private key with -key FILE")
		case *pair && given["ttl"]:
			return errors.New("-ttl does not go with -pair; ACCESS_TOKEN_LIFETIME and REFRESH_TOKEN_LIFETIME set the lifetimes of a pair")
		case *pair && cfg.AuthDir == "" && cfg.RedisURL.IsZero():
			return errors.New("-pair needs AUTH_DIR, the directory in which the server and this command keep families of refresh tokens, or REDIS_URL")
		}
		if *output != "" {
			// Create refuses an existing file too, but only after the token is
			// made.
			if _, err := os.Lstat(*output); err == nil {
				return fmt.Errorf("%s exists", *output)
			}
		}
		var text []byte
		if *pair {
			text, err = newPair(c.ctx, cfg, grant)
		} else {
			var token string
			token, err = sign(c.ctx, cfg, *keyFile, grant, *ttl)
			text = []byte(token)
		}
		if err != nil {
			return err
		}
		text = append(text, '\n')
		if *output != "" {
			return files.Create(*output, text)
		}
		_, err = c.stdout.Write(text)
		return err
	}
}

// makeKeys writes a new private key to a file and prints its public key.
func makeKeys(c *call, file, alg string) error {
	private, public, err := jwtauth.NewKeyPair(alg)
	if err != nil {
		return fmt.Errorf("-alg is %q, which is neither EdDSA nor ES256", alg)
	}
	if err := files.Create(file, private); err != nil {
		return err
	}
	_, err = c.stdout.Write(public)
	return err
}

func sign(ctx context.Context, cfg config.Config, keyFile string, g refresh.Grant, ttl time.Duration) (string, error) {
	if keyFile == "" {
		return authority.Sign(site.Grants(cfg), g, ttl, time.Now())
	}
	private, err := os.ReadFile(keyFile)
	if err != nil {
		return "", err
	}
	return authority.SignWith(ctx, jwtauth.Key{PEM: private}, site.Grants(cfg), g, ttl, time.Now())
}

// newPair returns a new pair in the form of a refresh's answer, so that a
// device reads only one form.
func newPair(ctx context.Context, cfg config.Config, g refresh.Grant) ([]byte, error) {
	if owner, other := ownedByOther(cfg.AuthDir); other {
		return nil, fmt.Errorf("AUTH_DIR belongs to user %d, who could not read the pair: run this command as that user", owner)
	}
	grants, done, err := sharedGrants(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer done()
	p, err := authority.NewPair(ctx, grants, g)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Token        string `json:"token"`
		ExpiresAt    int64  `json:"expires_at"`
		RefreshToken string `json:"refresh_token"`
		EndsAt       int64  `json:"ends_at"`
	}{p.Token, p.ExpiresAt.Unix(), p.RefreshToken, p.EndsAt.Unix()})
}

// sharedGrants returns [site.SharedGrants] and a function that closes the
// engine.
func sharedGrants(ctx context.Context, cfg config.Config) (grants authority.Config, done func(), err error) {
	engine, err := cfg.NewEngine(nil)
	if err != nil {
		return grants, nil, err
	}
	done = func() {}
	if engine != nil {
		done = engine.Close
	}
	ctx, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	if grants, err = site.SharedGrants(ctx, cfg, engine); err != nil {
		done()
	}
	return grants, done, err
}

func setupSecret(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.stdout, newSecret())
		return err
	}
}

// newSecret returns 256 random bits as text that needs no quotes in any shell
// or file.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
