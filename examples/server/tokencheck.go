package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/wsauth"
)

// refusals explain to an operator why the server refuses a token.
var refusals = map[wsauth.Reason]string{
	wsauth.ReasonNoToken:     "the file is empty",
	wsauth.ReasonMalformed:   "it is no JSON Web Token, or it is cut off",
	wsauth.ReasonAlgorithm:   "no key of this server has its algorithm",
	wsauth.ReasonKey:         "it names a key that this server does not have",
	wsauth.ReasonSignature:   "it was signed with a key that this server does not have: compare JWT_SECRET, JWT_SECRET_PREVIOUS and JWT_PUBLIC_KEY",
	wsauth.ReasonClaims:      "a claim is missing, or of the wrong type",
	wsauth.ReasonExpired:     "it has expired: make a new one, or look at the clock of this machine",
	wsauth.ReasonNotYetValid: "it is not valid yet: look at the clock of the machine that made it",
	wsauth.ReasonIssuer:      "it has another issuer than this server expects (JWT_ISSUER)",
	wsauth.ReasonAudience:    "it is for another service (JWT_AUDIENCE)",
	wsauth.ReasonSubject:     "ALLOWED_DEVICE_ID does not name its device",
	wsauth.ReasonRole:        "the server does not know its role",
	wsauth.ReasonRevoked:     "it is revoked, or its key was withdrawn (`server revoke -undo DEVICE` takes a revocation back)",
}

// checkToken prints what the server thinks of the token in a file, or on
// standard input if the file is "-". It does not print the token.
func checkToken(c *call, file string) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	token, err := readToken(file)
	if err != nil {
		return err
	}
	id, err := verifyToken(c.ctx, cfg, token)
	if refused, ok := errors.AsType[*wsauth.Error](err); ok {
		why := refusals[refused.Reason]
		if why == "" {
			why = string(refused.Reason)
		}
		if refused.Detail != "" {
			why += " (" + refused.Detail + ")"
		}
		return fmt.Errorf("the server refuses the token: %s", why)
	}
	if err != nil {
		return fmt.Errorf("the server cannot decide about the token: %w", err)
	}
	now := time.Now()
	expires := "never"
	if !id.ExpiresAt.IsZero() {
		expires = fmt.Sprintf("%s, in %s", id.ExpiresAt.UTC().Format(time.RFC3339), id.ExpiresAt.Sub(now).Round(time.Second))
	}
	issued := "at an unknown time"
	if !id.IssuedAt.IsZero() {
		issued = id.IssuedAt.UTC().Format(time.RFC3339)
	}
	_, err = fmt.Fprintf(c.stdout, "the server accepts the token\ndevice:      %s\nrole:        %s\npermissions: %s\nissued:      %s\nexpires:     %s\n",
		id.Subject, id.Role, strings.Join(id.Permissions, ", "), issued, expires)
	return err
}

func readToken(file string) ([]byte, error) {
	in := io.ReadCloser(os.Stdin)
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return nil, err
		}
	}
	defer in.Close()
	const most = 64 << 10
	token, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && len(token) > most {
		err = fmt.Errorf("%s is too large for a token", file)
	}
	return bytes.TrimSpace(token), err
}

// verifyToken verifies a token as the server with this configuration does, with
// the revocations that it keeps.
func verifyToken(ctx context.Context, cfg config.Config, token []byte) (wsauth.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	if len(token) == 0 {
		return wsauth.Identity{}, &wsauth.Error{Reason: wsauth.ReasonNoToken}
	}
	grants := site.Grants(cfg)
	grants.Log = slog.New(slog.DiscardHandler)
	grants.Keys, grants.Dir = cfg.Keys(), cfg.AuthDir
	engine, err := cfg.NewEngine(nil)
	if err != nil {
		return wsauth.Identity{}, err
	}
	if engine != nil {
		defer engine.Close()
		auth, err := engine.Authority(ctx)
		if err != nil {
			return wsauth.Identity{}, err
		}
		grants.Shared, grants.Families, grants.FamilyKey = auth, auth.Families(), engine.RefreshKey()
	}
	a, err := authority.New(grants)
	if err != nil {
		return wsauth.Identity{}, err
	}
	running := make(chan struct{})
	go func() {
		defer close(running)
		a.Run(ctx)
	}()
	defer func() { cancel(); <-running }()
	for {
		id, err := a.Verify(ctx, token, time.Now())
		if _, later := errors.AsType[*wsauth.UnavailableError](err); !later || ctx.Err() != nil {
			return id, err
		}
		select { // the revocations in the engine are being loaded
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
