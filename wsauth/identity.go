package wsauth

import (
	"errors"
	"slices"
	"time"
)

// Permission names something an identity may do.
type Permission string

// Permissions that the default roles of [HS256Config] grant. Others may be added at will.
const (
	Publish Permission = "publish"
	Admin   Permission = "admin"
)

// Identity is what a verified token says about its bearer. Its slices are shared and must not be modified.
type Identity struct {
	Device      string       // the "device" claim, on the list of devices
	TokenID     string       // the "jti" claim, may be empty
	KeyID       string       // the ID of the key that signed, may be empty
	Issuer      string       // the "iss" claim, may be empty
	Role        string       // the "role" claim, or the default role
	Permissions []Permission // what the role grants, limited by the "scope" claim
	IssuedAt    time.Time    // the "iat" claim, zero if there is none
	ExpiresAt   time.Time    // the "exp" claim plus the leeway, or what [Config].MaxLifetime makes of it; from this instant on the identity is worth nothing

	key *material // the key it stands on, for revocation
}

// Can reports whether the identity holds permission p. It does not look at the time.
func (id Identity) Can(p Permission) bool { return slices.Contains(id.Permissions, p) }

func (id *Identity) refused(r Reason) *RefusedError {
	return &RefusedError{Reason: r, Device: id.Device, TokenID: id.TokenID, KeyID: id.KeyID}
}

// RefusedError says why a token was refused. Device, TokenID and KeyID are set only where the token's signature was
// good; what an unsigned token claims is nobody's word.
type RefusedError struct {
	Reason                 Reason
	Device, TokenID, KeyID string
}

func (e *RefusedError) Error() string { return "wsauth: token refused: " + string(e.Reason) }

// DeniedError says why [Session.Authorize] refused an action.
type DeniedError struct {
	Permission Permission
	Reason     Reason
}

func (e *DeniedError) Error() string {
	return "wsauth: " + string(e.Permission) + " denied: " + string(e.Reason)
}

// Errors with which [Session.Next] ends, beside those of the Conn and of the context.
var (
	ErrAuthenticationFailed = errors.New("wsauth: authentication failed")
	ErrInvalidJSON          = errors.New("wsauth: message is not JSON")
	ErrSessionClosed        = errors.New("wsauth: session is closed")
)

// ErrAborted says that a session could not be closed in an orderly way within its bound.
var ErrAborted = errors.New("wsauth: connection aborted")
