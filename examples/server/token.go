package main

import (
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// defaultTTL is how long a token made by hand is good for. Devices run unattended
// for weeks; whoever wants less says so.
const defaultTTL = 30 * 24 * time.Hour

func (c *config) verifier() (*wsauth.HS256, error) {
	return wsauth.NewHS256(wsauth.HS256Config{Keys: c.keys(), Devices: c.devices})
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
	verifier, err := c.verifier()
	if err != nil {
		return "", err
	}
	return verifier.SignAt(wsauth.Claims{Device: device, ExpiresAt: now.Add(ttl)}, now)
}

// newSecret is 256 random bits in a form that every shell and file leaves alone.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// tokenVerb prints a token for one of the allowed devices.
func tokenVerb(args []string, env lookup, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("server token", flag.ContinueOnError)
	flags.SetOutput(stderr)
	device := flags.String("device", "", "the device's `ID`; may be left out where only one is allowed")
	ttl := flags.Duration("ttl", defaultTTL, "how long the token is good for")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	cfg, err := loadConfig(env)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	if *device == "" && len(cfg.devices) == 1 {
		*device = cfg.devices[0]
	}
	if !slices.Contains(cfg.devices, *device) {
		fmt.Fprintf(stderr, "server token: -device is %q, which is not one of ALLOWED_DEVICE_ID: %s\n", *device, strings.Join(cfg.devices, ", "))
		return exitFailed
	}
	token, err := cfg.newToken(*device, *ttl, time.Now())
	if err != nil {
		fmt.Fprintln(stderr, "server token:", err)
		return exitFailed
	}
	fmt.Fprintln(stdout, token)
	return exitOK
}
