package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
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
	says := claimed(token, cfg.Claim)
	if refused, ok := errors.AsType[*wsauth.Error](err); ok {
		why := refusals[refused.Reason]
		if why == "" {
			why = string(refused.Reason)
		}
		if refused.Detail != "" {
			why += " (" + refused.Detail + ")"
		}
		if says != "" {
			proven := "but its signature does not prove that"
			if refused.Subject != "" {
				proven = "and its signature is valid"
			}
			fmt.Fprintf(c.stdout, "the token says, %s:\n%s", proven, says)
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
	by := ""
	if id.KeyID != "" {
		by = ", by the key " + id.KeyID
	}
	_, err = fmt.Fprintf(c.stdout, "the server accepts the token\nsignature:   valid%s\ndevice:      %s\nrole:        %s\npermissions: %s\nissued:      %s\nexpires:     %s\n",
		by, id.Subject, id.Role, strings.Join(id.Permissions, ", "), issued, expires)
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
	token = bytes.TrimSpace(token)
	var pair struct{ Token *string } // as -pair writes it
	if json.Unmarshal(token, &pair) == nil && pair.Token != nil {
		token = []byte(*pair.Token)
	}
	return token, err
}

// claimed returns what a token says of itself, one line for each claim that the
// server looks at, whether that is true or not. It is empty if text is no
// token.
func claimed(text []byte, deviceClaim string) string {
	parts := bytes.Split(text, []byte("."))
	if len(parts) != 3 {
		return ""
	}
	var header, claims map[string]any
	for i, into := range []*map[string]any{&header, &claims} {
		part, err := base64.RawURLEncoding.DecodeString(string(parts[i]))
		if err != nil || json.Unmarshal(part, into) != nil {
			return ""
		}
	}
	var lines strings.Builder
	for _, row := range []struct {
		name string
		from map[string]any
	}{{"alg", header}, {"kid", header}, {cmp.Or(deviceClaim, "device"), claims}, {"role", claims}, {"scope", claims}, {"iss", claims}, {"aud", claims}, {"iat", claims}, {"nbf", claims}, {"exp", claims}} {
		value, ok := row.from[row.name]
		if !ok {
			continue
		}
		shown := fmt.Sprintf("%.100q", fmt.Sprint(value)) // a stranger's text, if the signature is not valid
		if seconds, ok := value.(float64); ok {
			shown = time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(&lines, "  %-10s %s\n", row.name, shown)
	}
	return lines.String()
}

// verifyToken verifies a token as the server with this configuration does, with
// the revocations that it keeps.
func verifyToken(ctx context.Context, cfg config.Config, token []byte) (wsauth.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	if len(token) == 0 {
		return wsauth.Identity{}, &wsauth.Error{Reason: wsauth.ReasonNoToken}
	}
	grants, done, err := sharedGrants(ctx, cfg)
	if err != nil {
		return wsauth.Identity{}, err
	}
	defer done()
	grants.Log = slog.New(slog.DiscardHandler)
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
