package wsauth

import "time"

// EventKind is what happened to a session's authentication.
type EventKind string

// Kinds of event.
const (
	EventAuthenticated EventKind = "authenticated" // a token was accepted
	EventRefreshed     EventKind = "refreshed"     // another token was accepted on an authenticated connection
	EventRefused       EventKind = "refused"       // a token was refused, or none was sent; Reason says why
	EventDenied        EventKind = "denied"        // an authenticated connection lost its right; Reason says why
	EventEnded         EventKind = "ended"         // an authenticated connection ended
)

// Event is one line of the audit. It never holds a token. Device, TokenID and KeyID come from a token whose signature
// was good and are empty otherwise.
type Event struct {
	Time                   time.Time
	Kind                   EventKind
	Reason                 Reason // for EventRefused and EventDenied
	Peer                   Peer
	Device, TokenID, KeyID string
	ExpiresAt              time.Time // for EventAuthenticated and EventRefreshed
}
