package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/files"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// defaultTTL is how long a token made by hand is valid. Devices run unattended
// for weeks; the operator can choose less.
const defaultTTL = 30 * 24 * time.Hour

// setupToken prints a token for one of the allowed devices, or with -pair the
// first pair of a family, in the form that refreshing answers with.
func setupToken(flags *flag.FlagSet) func(*call) error {
	device := flags.String("device", "", "the device's `ID`; may be left out if only one is allowed")
	ttl := flags.Duration("ttl", defaultTTL, "how long the token is valid")
	role := flags.String("role", "", "publisher, or admin with the permissions of both (default publisher)")
	scope := flags.String("scope", "", "limit the role to these `permissions`, separated by commas: publish, admin")
	output := flags.String("o", "", "write it to a new `FILE` for its owner alone, instead of standard output")
	pair := flags.Bool("pair", false, "make a short-lived token and a refresh token, for a device that refreshes by itself")
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		given := make(map[string]bool)
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		cfg, err := c.config()
		if err != nil {
			return err
		}
		if *device == "" && len(cfg.Devices) == 1 {
			*device = cfg.Devices[0]
		}
		grant := refresh.Grant{Device: *device, Role: *role}
		for p := range strings.FieldsFuncSeq(*scope, func(r rune) bool { return r == ',' || r == ' ' }) {
			grant.Scope = append(grant.Scope, p)
		}
		switch {
		case !slices.Contains(cfg.Devices, *device):
			return fmt.Errorf("-device is %q, which is not one of ALLOWED_DEVICE_ID: %s", *device, strings.Join(cfg.Devices, ", "))
		case *role != "" && *role != "publisher" && *role != "admin":
			return fmt.Errorf("-role is %q, which is neither publisher nor admin", *role)
		case slices.ContainsFunc(grant.Scope, func(p string) bool { return p != wsauth.Publish && p != wsauth.Admin }):
			return fmt.Errorf("-scope is %q, which is not made of publish and admin", *scope)
		case given["scope"] && grant.Scope == nil:
			return errors.New("-scope names no permission; leave it out for all that the role has")
		case *pair && given["ttl"]:
			return errors.New("-ttl is of tokens without -pair; ACCESS_TOKEN_LIFETIME and REFRESH_TOKEN_LIFETIME are of those with it")
		case *pair && cfg.AuthDir == "":
			return errors.New("-pair needs AUTH_DIR, where the server and this command keep what refresh tokens are checked against")
		}
		if *output != "" {
			// Create refuses it too, but after the token was made.
			if _, err := os.Lstat(*output); err == nil {
				return fmt.Errorf("%s exists", *output)
			}
		}
		var text []byte
		if *pair {
			text, err = newPair(c.ctx, cfg, grant)
		} else {
			var token string
			token, err = authority.Sign(site.Grants(cfg), grant, *ttl, time.Now())
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

// newPair is a new pair in the form that refreshing answers with, so that a
// device reads one form only.
func newPair(ctx context.Context, cfg config.Config, g refresh.Grant) ([]byte, error) {
	if owner, other := ownedByOther(cfg.AuthDir); other {
		return nil, fmt.Errorf("AUTH_DIR belongs to user %d, who could not read the pair: run this as that user", owner)
	}
	p, err := authority.NewPair(ctx, site.Grants(cfg), g)
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

func setupSecret(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.stdout, newSecret())
		return err
	}
}

// newSecret is 256 random bits in a form that every shell and file leaves
// alone.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
