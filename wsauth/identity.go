package wsauth

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Permissions of the default roles of [HS256Config]. Any other string can be a
// permission too.
const (
	Publish = "publish"
	Admin   = "admin"
)

// Identity is the content of a verified token. Its slices are shared; do not
// modify them.
type Identity struct {
	Device      string    // the "device" claim
	TokenID     string    // the "jti" claim, may be empty
	KeyID       string    // the ID of the key that signed the token, may be empty
	Issuer      string    // the "iss" claim, may be empty
	Role        string    // the "role" claim, or the default role
	Permissions []string  // those of the role, limited by the "scope" claim
	IssuedAt    time.Time // the "iat" claim, or zero
	// ExpiresAt is the "exp" claim plus the leeway, limited by
	// [Config].MaxLifetime. From ExpiresAt on, the identity is invalid.
	ExpiresAt time.Time

	key *material // that signed the token
}

// Can reports whether the identity has permission p. It does not check the
// time.
func (id Identity) Can(p string) bool { return slices.Contains(id.Permissions, p) }

func (id *Identity) refused(r Reason) *Error {
	return &Error{Reason: r, Device: id.Device, TokenID: id.TokenID, KeyID: id.KeyID}
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

	// Device, TokenID and KeyID are set only if the signature of the token is
	// valid: anyone can write anything into an unsigned token.
	Device, TokenID, KeyID string
}

func (e *Error) Error() string {
	if e.Permission != "" {
		return "wsauth: " + e.Permission + " denied: " + string(e.Reason)
	}
	return "wsauth: token refused: " + string(e.Reason)
}

// Errors of [Session.Next], besides those of the Conn and of the context.
var (
	ErrAuthenticationFailed = errors.New("wsauth: authentication failed")
	ErrInvalidJSON          = errors.New("wsauth: message is not JSON")
	ErrSessionClosed        = errors.New("wsauth: session is closed")
)

// errAborted is the result of a Close that took longer than CloseTimeout.
var errAborted = fmt.Errorf("wsauth: connection aborted: %w", os.ErrDeadlineExceeded)
