package wsauth

import (
	"context"
	"log/slog"
	"time"
)

// EventKind is what happened to the authentication of a session, or of a request for one. The set is closed.
type EventKind string

// Kinds of event.
const (
	EventAuthenticated EventKind = "authenticated" // a token was accepted, and the connection had no right before
	EventRefreshed     EventKind = "refreshed"     // another token was accepted while the right still stood
	EventRefused       EventKind = "refused"       // a token was refused, or none was sent; Reason says why
	EventDenied        EventKind = "denied"        // a permission was missing; once for each token
	EventExpired       EventKind = "expired"       // the right ended with its token
	EventRevoked       EventKind = "revoked"       // the right was taken away: a key withdrawn, or [Gate.Revoke]
	EventReplaced      EventKind = "replaced"      // a newer session of the device took the place of this one
	EventEnded         EventKind = "ended"         // a connection that had authenticated ended; Reason says why if this package ended it

	// EventOriginRefused is an upgrade that was refused because of the page that asked for it. It comes from the
	// transport, for example wsauth/wsconn, and has no session; Detail says what was compared.
	EventOriginRefused EventKind = "origin_refused"
)

// Kinds of event of an issuer of refresh tokens, package wsauth/refresh. TokenID is the access token's, or the newest
// one's of the family where none was made.
const (
	EventPairIssued    EventKind = "pair_issued"    // a family began
	EventPairRotated   EventKind = "pair_rotated"   // a refresh token was used and replaced
	EventPairRepeated  EventKind = "pair_repeated"  // the last answer was given again, within the grace
	EventPairRefused   EventKind = "pair_refused"   // a refresh token was refused; Reason says why
	EventFamilyRevoked EventKind = "family_revoked" // a family was ended; Reason is [ReasonReused] or [ReasonRevoked]
)

// kinds is the closed set, with the level at which each is logged.
var kinds = [...]struct {
	kind  EventKind
	level slog.Level
}{
	{EventAuthenticated, slog.LevelInfo},
	{EventRefreshed, slog.LevelInfo},
	{EventRefused, slog.LevelWarn},
	{EventDenied, slog.LevelWarn},
	{EventExpired, slog.LevelWarn},
	{EventRevoked, slog.LevelWarn},
	{EventReplaced, slog.LevelWarn},
	{EventEnded, slog.LevelInfo},
	{EventOriginRefused, slog.LevelWarn},
	{EventPairIssued, slog.LevelInfo},
	{EventPairRotated, slog.LevelInfo},
	{EventPairRepeated, slog.LevelInfo},
	{EventPairRefused, slog.LevelWarn},
	{EventFamilyRevoked, slog.LevelWarn},
}

// EventKinds returns all kinds of event, for example to prepare a counter for
// each. The slice is the caller's.
func EventKinds() []EventKind {
	all := make([]EventKind, len(kinds))
	for i, k := range kinds {
		all[i] = k.kind
	}
	return all
}

// Level returns the level at which [AuditLog] writes events of this kind: Info
// for authenticated, refreshed, ended, pair_issued, pair_rotated and
// pair_repeated, and Warn for all others.
func (k EventKind) Level() slog.Level {
	for _, known := range kinds {
		if known.kind == k {
			return known.level
		}
	}
	return slog.LevelWarn
}

// Reason says why a token or an action was refused. The set is closed; a Reason is safe to log and to count, and is
// never sent to the peer.
type Reason string

// Reasons for refusing a token.
const (
	ReasonNoToken     Reason = "no_token"      // the first message carried none
	ReasonMalformed   Reason = "malformed"     // not a compact JWS in canonical base64url, or not a string
	ReasonAlgorithm   Reason = "algorithm"     // "alg" is not HS256
	ReasonHeader      Reason = "header"        // "crit", "b64", duplicate members, or no JSON object
	ReasonKey         Reason = "key"           // no key of that ID is in force
	ReasonSignature   Reason = "signature"     // no key made this signature
	ReasonClaims      Reason = "claims"        // missing, duplicate or ill-typed claims
	ReasonExpired     Reason = "expired"       // "exp" has passed
	ReasonNotYetValid Reason = "not_yet_valid" // "nbf" has not come
	ReasonIssuer      Reason = "issuer"        // "iss" is not the configured one
	ReasonAudience    Reason = "audience"      // "aud" does not name this service
	ReasonDevice      Reason = "device"        // "device" is not on the list
	ReasonRole        Reason = "role"          // "role" is unknown
	ReasonOtherDevice Reason = "other_device"  // a refresh with another device's token
	ReasonOlder       Reason = "older"         // a refresh with a token that expires earlier
	ReasonSessions    Reason = "sessions"      // the device has as many sessions as it may
	ReasonRevoked     Reason = "revoked"       // the key was withdrawn, or the device's tokens up to a time were
	ReasonVerifier    Reason = "verifier"      // a Verifier failed without giving a reason
)

// Reasons for refusing an action, beside [ReasonExpired] and [ReasonRevoked].
const (
	ReasonNotAuthenticated Reason = "not_authenticated" // no token was accepted on this connection
	ReasonPermission       Reason = "permission"        // the identity does not hold the permission
	ReasonReplaced         Reason = "replaced"          // a newer session of the device took the place of this one
	ReasonOperator         Reason = "operator"          // [Gate.End] was called
	ReasonOrigin           Reason = "origin"            // the page that asked for the connection is a foreign one
)

// Reasons for refusing a refresh token, beside [ReasonMalformed], [ReasonExpired] and those of [HS256.SignAt].
const (
	ReasonUnknown     Reason = "unknown"     // of no family: never issued, revoked, or ended long ago
	ReasonReused      Reason = "reused"      // used before: it, or its successor, is in two hands
	ReasonUnavailable Reason = "unavailable" // the store or the signer failed; the token may be good
)

// Event is one line of the audit. It never holds a token. Device, TokenID and KeyID come from a token whose signature
// was good and are empty otherwise. Events of one session may come from several goroutines; Time says in which order
// they happened.
type Event struct {
	Time                   time.Time
	Kind                   EventKind
	Reason                 Reason // empty for EventAuthenticated and EventRefreshed
	Peer                   Peer
	SessionID              string // see [Session.ID]
	Device, TokenID, KeyID string
	ExpiresAt              time.Time // for EventAuthenticated and EventRefreshed: when the right ends
	Detail                 string    // for EventOriginRefused. It quotes a stranger: to be logged quoted, and never shown as markup
}

// AuditLog returns a [Config].Audit that writes each event as one record of l; nil is silence. The record's format is
// stable, so that other programs can read it. Its message is "auth" and its attributes are, in this order:
//
//	outcome     the Kind
//	addr        Peer.Addr
//	reason      the Reason
//	device      Device
//	token_id    TokenID
//	key_id      KeyID
//	expires_at  ExpiresAt, a time
//	session_id  SessionID
//	detail      Detail
//
// outcome and addr are always there, the others where they are not empty. Later versions may only append. The level
// is that of the Kind, [EventKind.Level].
func AuditLog(l *slog.Logger) func(Event) {
	if l == nil {
		return func(Event) {}
	}
	return func(e Event) {
		attrs := make([]slog.Attr, 0, 9)
		attrs = append(attrs, slog.String("outcome", string(e.Kind)), slog.Any("addr", e.Peer.Addr))
		text := func(key, value string) {
			if value != "" {
				attrs = append(attrs, slog.String(key, value))
			}
		}
		text("reason", string(e.Reason))
		text("device", e.Device)
		text("token_id", e.TokenID)
		text("key_id", e.KeyID)
		if !e.ExpiresAt.IsZero() {
			attrs = append(attrs, slog.Time("expires_at", e.ExpiresAt))
		}
		text("session_id", e.SessionID)
		text("detail", e.Detail)
		l.LogAttrs(context.Background(), e.Kind.Level(), "auth", attrs...)
	}
}
