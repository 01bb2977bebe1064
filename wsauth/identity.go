package wsauth

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Permissions that the default roles of [HS256Config] grant. Any other string may be a permission, too.
const (
	Publish = "publish"
	Admin   = "admin"
)

// Identity is what a verified token says about its bearer. Its slices are shared and must not be modified.
type Identity struct {
	Device      string    // the "device" claim, on the list of devices
	TokenID     string    // the "jti" claim, may be empty
	KeyID       string    // the ID of the key that signed, may be empty
	Issuer      string    // the "iss" claim, may be empty
	Role        string    // the "role" claim, or the default role
	Permissions []string  // what the role grants, limited by the "scope" claim
	IssuedAt    time.Time // the "iat" claim, zero if there is none
	ExpiresAt   time.Time // the "exp" claim plus the leeway, or what [Config].MaxLifetime makes of it; from this instant on the identity is worth nothing

	key *material // the key it stands on, for revocation
}

// Can reports whether the identity holds permission p. It does not look at the time.
func (id Identity) Can(p string) bool { return slices.Contains(id.Permissions, p) }

func (id *Identity) refused(r Reason) *Error {
	return &Error{Reason: r, Device: id.Device, TokenID: id.TokenID, KeyID: id.KeyID}
}

func (id *Identity) forbidden(p string, r Reason) *Error {
	e := id.refused(r)
	e.Permission = p
	return e
}

// Error says why a token was refused, or why [Session.Authorize] refused an action. Device, TokenID and KeyID are set
// only where the token's signature was good; what an unsigned token claims is nobody's word.
type Error struct {
	Reason                 Reason
	Permission             string // that the action needs; empty where a token was refused
	Device, TokenID, KeyID string
}

func (e *Error) Error() string {
	if e.Permission != "" {
		return "wsauth: " + e.Permission + " denied: " + string(e.Reason)
	}
	return "wsauth: token refused: " + string(e.Reason)
}

// Errors with which [Session.Next] ends, beside those of the Conn and of the context.
var (
	ErrAuthenticationFailed = errors.New("wsauth: authentication failed")
	ErrInvalidJSON          = errors.New("wsauth: message is not JSON")
	ErrSessionClosed        = errors.New("wsauth: session is closed")
)

// errAborted says that a session could not be closed in an orderly way within its bound.
var errAborted = fmt.Errorf("wsauth: connection aborted: %w", os.ErrDeadlineExceeded)
