package wsauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Permissions that the examples of this package use. Any other string can be a
// permission too.
const (
	Read    = "read"
	Publish = "publish"
	Admin   = "admin"
)

// Identity is a client that a [Verifier], or the caller of
// [Gate.AttachIdentity], has recognized. Its slices are shared; do not modify
// them.
type Identity struct {
	Subject     string    // the user or device; for a JWT, usually the "sub" claim
	TokenID     string    // the "jti" claim, may be empty
	KeyID       string    // the ID of the key that signed the token, may be empty
	Issuer      string    // the "iss" claim, may be empty
	Role        string    // the "role" claim, or the default role; may be empty
	Permissions []string  // see [Identity.Can]
	IssuedAt    time.Time // the "iat" claim, or zero
	// ExpiresAt is the time from which the identity is invalid: for a JWT, the
	// "exp" claim plus the leeway. [Config].MaxLifetime limits it. Zero means
	// never.
	ExpiresAt time.Time

	// Claims is the whole set of claims as the token has it, a JSON object in
	// which no name occurs twice. It is nil if there was no token. Decode it
	// once, when the session begins.
	Claims json.RawMessage
	// Handle belongs to the Verifier. A [Rechecker] recognizes its identities
	// by it.
	Handle any

	gate *Gate // whose Verifier returned it; nil if the caller made it
}

// ClaimSet is the content of a token to sign.
type ClaimSet struct {
	Subject   string    // required
	ExpiresAt time.Time // required
	NotBefore time.Time // zero: absent
	IssuedAt  time.Time // zero: the time of signing
	TokenID   string    // empty: random
	Role      string    // empty: the default role of the signer
	Scope     []string  // nil: all permissions of the role, none without roles
}

// Can reports whether the identity has a permission on each of the resources. A
// permission such as "read" is one on every resource; "read:room-1" is one on
// the resource "room-1" only. Without resources, Can asks for the permission on
// every resource. It does not check the time.
func (id Identity) Can(permission string, resources ...string) bool {
	if slices.Contains(id.Permissions, permission) {
		return true
	}
	for _, r := range resources {
		if !slices.ContainsFunc(id.Permissions, func(p string) bool {
			on, ok := strings.CutPrefix(p, permission)
			return ok && len(on) > 0 && on[0] == ':' && on[1:] == r
		}) {
			return false
		}
	}
	return len(resources) > 0
}

func (id *Identity) refused(r Reason) *Error {
	return &Error{Reason: r, Subject: id.Subject, TokenID: id.TokenID, KeyID: id.KeyID}
}

func (id *Identity) forbidden(p string, r Reason) *Error {
	e := id.refused(r)
	e.Permission = p
	return e
}

// Error says why a token was refused, or why [Session.Authorize] refused an
// action.
type Error struct {
	Reason     Reason
	Permission string // that the action needs; empty if a token was refused

	// Subject, TokenID and KeyID are set only if the signature of the token is
	// valid: anyone can write anything into an unsigned token.
	Subject, TokenID, KeyID string
	// Detail says more for a log, such as the name of the wrong claim. It never
	// contains a value of the token, and is never sent to the client.
	Detail string
}

func (e *Error) Error() string {
	if e.Permission != "" {
		return "wsauth: " + e.Permission + " denied: " + string(e.Reason)
	}
	text := "wsauth: token refused: " + string(e.Reason)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// Errors of [Session.Next], besides those of the Conn and of the context.
var (
	ErrAuthenticationFailed = errors.New("wsauth: authentication failed")
	ErrInvalidJSON          = errors.New("wsauth: message is not JSON")
	ErrSessionClosed        = errors.New("wsauth: session is closed")
)

// errAborted is the result of a Close that took longer than CloseTimeout.
var errAborted = fmt.Errorf("wsauth: connection aborted: %w", os.ErrDeadlineExceeded)

// UnavailableError means that a token could be neither accepted nor refused,
// for example because a service that decides does not answer. The client may
// try again later.
type UnavailableError struct {
	// Err is the cause, or nil. It is for logs and never sent to the client.
	Err error
}

func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return "wsauth: cannot decide"
	}
	return "wsauth: cannot decide: " + e.Err.Error()
}

// Unwrap returns Err.
func (e *UnavailableError) Unwrap() error { return e.Err }
