package wsauth

import (
	"strconv"
	"time"

	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

// Dialect is how a session and its client speak about tokens: which messages of
// the client contain one, and which messages tell the client of a change. Until
// the client has authenticated, a message that is not about a token is refused,
// except with [NoDialect]. A Dialect must be safe for concurrent use and fast,
// and must not call the Gate or a Session.
type Dialect interface {
	// Token returns the token in a text message of the client, and whether the
	// message is about a token at all. If it is and contains no token, Token
	// returns nil and true; the session then refuses it. The error ends the
	// session like [ErrInvalidJSON]. Token must not keep msg.
	Token(msg []byte) (token []byte, is bool, err error)
	// Message returns the text message that tells the client of s, or nil if
	// the dialect has none. The time at is the end of the authentication for
	// StatusAuthenticated and StatusExpiring; it is zero if there is no end.
	// The caller must not modify the message.
	Message(s Status, at time.Time) []byte
}

// Status is a change that a client is told of. The set is closed.
type Status string

// The changes that a client is told of.
const (
	StatusAuthenticated Status = "authenticated" // its token was accepted
	StatusExpiring      Status = "expiring"      // its authentication ends soon
	StatusViewer        Status = "viewer"        // its authentication has ended
	StatusRefused       Status = "refused"       // its token was refused; the connection is closed
	StatusInvalid       Status = "invalid"       // its message cannot be read; the connection is closed
)

// JSONDialect is the default [Dialect]. Messages are JSON, and the package
// documentation lists those about tokens. The first message must contain a
// token.
type JSONDialect struct{}

// Token returns the member "token" of a JSON object. If msg is not valid JSON,
// or nested more than 32 levels deep, the error is [ErrInvalidJSON].
func (JSONDialect) Token(msg []byte) (token []byte, is bool, err error) {
	var value []byte
	count := 0
	m := strictjson.Read(msg)
	for m.Next() {
		if strictjson.Is(m.Name(), "token") {
			count++
			value = m.Value()
		}
	}
	switch {
	case m.Err != nil:
		return nil, false, ErrInvalidJSON
	case count == 0:
		return nil, false, nil
	case count > 1:
		return nil, true, nil
	}
	token, ok := strictjson.AppendString(nil, value)
	if !ok {
		return nil, true, nil
	}
	return token, true, nil
}

// The answers to a client that is refused are the same bytes for every reason.
var (
	answerRefused = []byte(`{"error":"Authentication failed"}`)
	answerNotJSON = []byte(`{"error":"Invalid JSON"}`)
	answerViewer  = []byte(`{"status":"viewer"}`)
)

// Message returns a JSON object with the member "status" or "error".
func (JSONDialect) Message(s Status, at time.Time) []byte {
	switch s {
	case StatusRefused:
		return answerRefused
	case StatusInvalid:
		return answerNotJSON
	case StatusViewer:
		return answerViewer
	}
	text := make([]byte, 0, 64)
	text = append(text, `{"status":"`...)
	text = append(text, s...)
	text = append(text, '"')
	if !at.IsZero() {
		text = append(text, `,"expires_at":`...)
		text = strconv.AppendInt(text, at.Unix(), 10)
	}
	return append(text, '}')
}

// NoDialect is a [Dialect] without messages: every message of the client is the
// application's, before authentication too. Sessions authenticate by
// [Gate.AttachToken] or [Gate.AttachIdentity] only, and a client learns of a
// change by the close code. So set [Config].OnExpiry to [OnExpiryClose]: with
// [OnExpiryView], a client is not told that its authentication has ended, and
// cannot authenticate again.
type NoDialect struct{}

// Token returns false for every message.
func (NoDialect) Token([]byte) (token []byte, is bool, err error) { return nil, false, nil }

// Message returns nil.
func (NoDialect) Message(Status, time.Time) []byte { return nil }
