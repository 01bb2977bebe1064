package wsauth

import (
	"context"
	"log/slog"
	"time"
)

// EventKind is the kind of an [Event]. The set is closed; [EventKinds] returns
// all kinds.
type EventKind string

// Kinds of event of a connection.
const (
	// EventAuthenticated: a token was accepted, and the session was not
	// authenticated before.
	EventAuthenticated EventKind = "authenticated"
	// EventRefreshed: another token was accepted while the session was
	// authenticated.
	EventRefreshed EventKind = "refreshed"
	// EventRefused: a token was refused, or the first message contained none.
	// Reason says why.
	EventRefused EventKind = "refused"
	// EventUnavailable: the Verifier could not decide about a token, so it was
	// neither accepted nor refused. Detail is the cause.
	EventUnavailable EventKind = "unavailable"
	// EventDenied: [Session.Authorize] refused an action because the identity
	// does not have the permission. It occurs once for each token.
	EventDenied EventKind = "denied"
	// EventExpired: the authentication ended because the token expired.
	EventExpired EventKind = "expired"
	// EventRevoked: the authentication ended because the key was withdrawn or
	// [Gate.Revoke] was called.
	EventRevoked EventKind = "revoked"
	// EventReplaced: a newer session of the same subject replaced this one.
	EventReplaced EventKind = "replaced"
	// EventEnded: the connection of a session that had authenticated ended.
	// Reason says why if this package ended it, and is empty otherwise.
	EventEnded EventKind = "ended"
	// EventOriginRefused: the transport, such as wsauth/wsconn, refused a
	// request from a foreign page. It belongs to no session; Detail contains
	// the origins that were compared.
	EventOriginRefused EventKind = "origin_refused"
)

// Kinds of event of an issuer of package wsauth/refresh. TokenID is the ID of
// the new access token. If there is none, it is that of the newest access token
// of the family.
const (
	// EventPairIssued: a new family began.
	EventPairIssued EventKind = "pair_issued"
	// EventPairRotated: a refresh token was used and replaced.
	EventPairRotated EventKind = "pair_rotated"
	// EventPairRepeated: the previous answer was given again, within the grace.
	EventPairRepeated EventKind = "pair_repeated"
	// EventPairRefused: a refresh token was refused. Reason says why.
	EventPairRefused EventKind = "pair_refused"
	// EventFamilyRevoked: a family was ended. Reason is [ReasonReused] or
	// [ReasonRevoked].
	EventFamilyRevoked EventKind = "family_revoked"
)

// kinds is the closed set, with the level at which each is logged.
var kinds = [...]struct {
	kind  EventKind
	level slog.Level
}{
	{EventAuthenticated, slog.LevelInfo},
	{EventRefreshed, slog.LevelInfo},
	{EventRefused, slog.LevelWarn},
	{EventUnavailable, slog.LevelError},
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

// EventKinds returns all kinds of event, for example to create a counter for
// each. The caller may modify the slice.
func EventKinds() []EventKind {
	all := make([]EventKind, len(kinds))
	for i, k := range kinds {
		all[i] = k.kind
	}
	return all
}

// Level returns the level at which [AuditLog] logs events of this kind. It is
// Info for authenticated, refreshed, ended, pair_issued, pair_rotated and
// pair_repeated, Error for unavailable, and Warn for all others.
func (k EventKind) Level() slog.Level {
	for _, known := range kinds {
		if known.kind == k {
			return known.level
		}
	}
	return slog.LevelWarn
}

// Reason is why a token or an action was refused. The set is closed. You may
// log and count a Reason; it is never sent to the client.
type Reason string

// Reasons for refusing a token.
const (
	ReasonNoToken      Reason = "no_token"      // the first message, or the request, contained no token
	ReasonTimeout      Reason = "timeout"       // no token came within [Config].AuthTimeout
	ReasonMalformed    Reason = "malformed"     // not a string, or not a compact JWS in canonical base64url
	ReasonAlgorithm    Reason = "algorithm"     // no key has the "alg" of the header
	ReasonHeader       Reason = "header"        // "crit", "b64", a name twice, or not a JSON object
	ReasonKey          Reason = "key"           // no key of this ID is valid now
	ReasonSignature    Reason = "signature"     // no key of the ring made this signature
	ReasonClaims       Reason = "claims"        // a claim is missing, occurs twice or has the wrong type
	ReasonExpired      Reason = "expired"       // "exp" has passed
	ReasonNotYetValid  Reason = "not_yet_valid" // "nbf" has not passed
	ReasonIssuer       Reason = "issuer"        // "iss" is not the configured issuer
	ReasonAudience     Reason = "audience"      // "aud" does not name this service
	ReasonSubject      Reason = "subject"       // "subject" is not on the list
	ReasonRole         Reason = "role"          // "role" is unknown
	ReasonOtherSubject Reason = "other_subject" // the session belongs to another subject
	ReasonOlder        Reason = "older"         // the token expires before the one that it should renew
	ReasonSessions     Reason = "sessions"      // the subject has reached [Config].MaxSessions
	ReasonBarred       Reason = "barred"        // [Config].Barred refuses the peer's tokens; the token was not read
	ReasonRevoked      Reason = "revoked"       // the key was withdrawn, or [Gate.Revoke] was called
	ReasonVerifier     Reason = "verifier"      // a Verifier failed without a reason
)

// Reasons for refusing an action, besides [ReasonExpired] and [ReasonRevoked].
const (
	ReasonNotAuthenticated Reason = "not_authenticated" // the connection has sent no valid token
	ReasonPermission       Reason = "permission"        // the identity does not have the permission
	ReasonReplaced         Reason = "replaced"          // a newer session of the subject replaced this one
	ReasonOperator         Reason = "operator"          // [Gate.End] was called
	ReasonOrigin           Reason = "origin"            // a foreign page asked for the connection
)

// Reasons for refusing a refresh token, besides [ReasonMalformed],
// [ReasonExpired] and those of the signer.
const (
	ReasonUnknown     Reason = "unknown"     // of no family: never issued, revoked, or ended long ago
	ReasonReused      Reason = "reused"      // used before: two clients have it or its successor
	ReasonUnavailable Reason = "unavailable" // the store or the signer failed; the token may be valid
)

// IsGuess reports whether a token that was refused for this reason may have
// been guessed. Only guesses should count against the address of a client. The
// result is false if the signature of the token is valid, if a refresh token is
// of a known family, if there was no token, or if nothing could be decided: a
// subject whose token has expired or was revoked, or that reconnects beyond
// [Config].MaxSessions, does not guess, and any page can make the browser of
// its visitor send requests without a token. For all other reasons, also those
// of a [Verifier] of yours, the result is true.
func (r Reason) IsGuess() bool {
	switch r {
	case ReasonClaims, ReasonExpired, ReasonNotYetValid, ReasonIssuer, ReasonAudience, ReasonSubject, ReasonRole,
		ReasonOtherSubject, ReasonOlder, ReasonSessions, ReasonRevoked, ReasonBarred, ReasonReused, ReasonUnavailable, ReasonTimeout, ReasonNoToken:
		return false
	}
	return true
}

// Event is one entry of the audit. It never contains a token. Events of one
// session may come from several goroutines; sort them by Time.
type Event struct {
	Time      time.Time
	Kind      EventKind
	Reason    Reason // why something was refused or ended; empty otherwise
	Peer      Peer
	SessionID string // see [Session.ID]

	// Subject, TokenID and KeyID come from a token with a valid signature, and
	// are empty otherwise.
	Subject, TokenID, KeyID string

	// ExpiresAt is when the authentication ends, for EventAuthenticated and
	// EventRefreshed. For EventPairIssued, EventPairRotated and
	// EventPairRepeated, it is when the new refresh token expires.
	ExpiresAt time.Time
	// Detail says more. It may contain text from a stranger: quote it in logs,
	// and never show it as HTML.
	Detail string
}

// AuditLog returns a function for [Config].Audit that logs each event as one
// record of l. If l is nil, nothing is logged. The format of the records is
// stable, so that other programs can read them. The message is "auth". The
// attributes are, in this order:
//
//	outcome     Kind
//	addr        Peer.Addr
//	reason      Reason
//	subject     Subject
//	token_id    TokenID
//	key_id      KeyID
//	expires_at  ExpiresAt, a time
//	session_id  SessionID
//	detail      Detail
//
// A record always has outcome and addr. It has the other attributes only if
// they are not empty. Later versions may only append attributes. The level is
// [EventKind.Level] of the Kind.
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
		text("subject", e.Subject)
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
