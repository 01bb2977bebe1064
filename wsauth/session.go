package wsauth

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

// What a peer is told. The same bytes whatever the reason.
var (
	answerRefused = []byte(`{"error":"Authentication failed"}`)
	answerNotJSON = []byte(`{"error":"Invalid JSON"}`)
)

// Session is the authentication state of one connection. Next must be called from one goroutine at a time; all other
// methods are safe for concurrent use.
type Session struct {
	gate *Gate
	conn Conn
	peer Peer

	// A session has one identity for good once it has any: a refresh replaces it by the same device's.
	identity atomic.Pointer[Identity]
	// The identity that was last reported to the audit as denied, so that it is reported once.
	denied atomic.Pointer[Identity]

	end    sync.Once
	endErr error
	ended  atomic.Bool
}

// Next returns the next message that is not a token. Token messages, objects with a member "token", it answers itself:
// {"status":"authenticated","expires_at":N} for a token that is accepted, the first one as well as a later one of the
// same device that does not expire earlier, which renews the session. A token member makes a message a token message
// whatever else it holds.
//
// A returned message is valid JSON, nested at most 32 deep, from a connection that has authenticated; what is in it
// is the caller's to check. That it may be acted on now is [Session.Authorize]'s to say.
//
// Any error is final. The peer has then been told as much as it may know, and the connection is closed:
//
//	{"error":"Authentication failed"}, 4401   [ErrAuthenticationFailed]: a token was refused, or the first message was none
//	{"error":"Invalid JSON"}, 1007            [ErrInvalidJSON], [ErrInvalidUTF8]
//	{"error":"Invalid JSON"}, 1003            [ErrBinary]
//	nothing, 1009                             [ErrTooBig]
//
// After an error of the context, or of the connection itself, the caller closes the session with a code of its choice.
func (s *Session) Next(ctx context.Context) ([]byte, error) {
	for {
		if s.ended.Load() {
			return nil, ErrSessionClosed
		}
		msg, err := s.conn.Read(ctx)
		switch {
		case errors.Is(err, ErrBinary):
			return nil, s.dismiss(CodeUnsupportedData, answerNotJSON, ErrBinary)
		case errors.Is(err, ErrInvalidUTF8):
			return nil, s.dismiss(CodeInvalidPayload, answerNotJSON, ErrInvalidUTF8)
		case errors.Is(err, ErrTooBig):
			return nil, s.dismiss(CodeTooBig, nil, ErrTooBig)
		case err != nil:
			return nil, err
		case s.ended.Load():
			return nil, ErrSessionClosed
		}

		kind, token := classify(msg)
		switch {
		case kind == notJSON:
			return nil, s.dismiss(CodeInvalidPayload, answerNotJSON, ErrInvalidJSON)
		case kind == tokenMessage:
			if err := s.present(ctx, token); err != nil {
				return nil, err
			}
		case s.identity.Load() == nil:
			return nil, s.refuse(&RefusedError{Reason: ReasonNoToken})
		default:
			return msg, nil
		}
	}
}

// present decides about a token and answers it.
func (s *Session) present(ctx context.Context, token []byte) error {
	now := time.Now()
	id, err := s.gate.cfg.Verifier.VerifyAt(token, now)
	if err != nil {
		return s.refuse(err)
	}
	kind := EventAuthenticated
	if old := s.identity.Load(); old != nil {
		kind = EventRefreshed
		refused := &RefusedError{Device: id.Device, TokenID: id.TokenID, KeyID: id.KeyID}
		if id.Device != old.Device {
			refused.Reason = ReasonOtherDevice
			return s.refuse(refused)
		}
		if id.ExpiresAt.Before(old.ExpiresAt) {
			refused.Reason = ReasonOlder
			return s.refuse(refused)
		}
	}
	s.limit(s.gate.cfg.MessageLimit)
	s.identity.Store(&id)
	s.gate.cfg.Audit(Event{
		Time: now, Kind: kind, Peer: s.peer,
		Device: id.Device, TokenID: id.TokenID, KeyID: id.KeyID, ExpiresAt: id.ExpiresAt,
	})
	answer := make([]byte, 0, 64)
	answer = append(answer, `{"status":"authenticated","expires_at":`...)
	answer = strconv.AppendInt(answer, id.ExpiresAt.Unix(), 10)
	return s.conn.Write(ctx, append(answer, '}'))
}

// refuse is the one way in which a connection learns that its token, or the lack of one, was not good enough.
func (s *Session) refuse(cause error) error {
	refused, ok := errors.AsType[*RefusedError](cause)
	if !ok {
		refused = &RefusedError{Reason: ReasonVerifier}
	}
	s.gate.cfg.Audit(Event{
		Time: time.Now(), Kind: EventRefused, Reason: refused.Reason, Peer: s.peer,
		Device: refused.Device, TokenID: refused.TokenID, KeyID: refused.KeyID,
	})
	return s.dismiss(CodeAuthenticationFailed, answerRefused, ErrAuthenticationFailed)
}

// Authorize reports whether the connection may do what p names, now. Its error is a [*DeniedError]. It takes no lock
// and is meant to be asked for every single action: a token that expires, or a key that is withdrawn, while the
// connection is open counts from that instant.
func (s *Session) Authorize(p Permission) error { return s.AuthorizeAt(p, time.Now()) }

// AuthorizeAt is [Session.Authorize] at the time now.
func (s *Session) AuthorizeAt(p Permission, now time.Time) error {
	id := s.identity.Load()
	if id == nil {
		return &DeniedError{p, ReasonNotAuthenticated}
	}
	if reason, ok := s.stands(id, now); !ok {
		if s.denied.Swap(id) != id {
			s.gate.cfg.Audit(Event{
				Time: now, Kind: EventDenied, Reason: reason, Peer: s.peer,
				Device: id.Device, TokenID: id.TokenID, KeyID: id.KeyID,
			})
		}
		return &DeniedError{p, reason}
	}
	if !id.Can(p) {
		return &DeniedError{p, ReasonPermission}
	}
	return nil
}

func (s *Session) stands(id *Identity, now time.Time) (Reason, bool) {
	if !now.Before(id.ExpiresAt) {
		return ReasonExpired, false
	}
	if s.gate.recheck != nil {
		return s.gate.recheck.StandsAt(*id, now)
	}
	return "", true
}

// Identity returns what the connection's token says, and whether there is one. It does not say that the identity still
// stands; [Session.Authorize] does.
func (s *Session) Identity() (Identity, bool) {
	if id := s.identity.Load(); id != nil {
		return *id, true
	}
	return Identity{}, false
}

// Reply sends one text message to this connection only.
func (s *Session) Reply(ctx context.Context, text []byte) error {
	if s.ended.Load() {
		return ErrSessionClosed
	}
	return s.conn.Write(ctx, text)
}

// Close ends the connection with a close code and a reason, within [Config].CloseTimeout whatever the peer does; a
// connection that takes longer is aborted, and the error is [ErrAborted]. Only the first call has an effect; others
// wait for it and return its result.
func (s *Session) Close(code int, reason string) error { return s.finish(code, reason, nil) }

// dismiss tells the peer and closes; what remains to be said about it is cause.
func (s *Session) dismiss(code int, answer []byte, cause error) error {
	_ = s.finish(code, "", answer)
	return cause
}

func (s *Session) finish(code int, reason string, answer []byte) error {
	s.end.Do(func() {
		s.ended.Store(true)
		s.endErr = s.farewell(code, reason, answer)
		if id := s.identity.Load(); id != nil {
			s.gate.cfg.Audit(Event{
				Time: time.Now(), Kind: EventEnded, Peer: s.peer,
				Device: id.Device, TokenID: id.TokenID, KeyID: id.KeyID,
			})
		}
	})
	return s.endErr
}

// farewell must come to its end even on a Conn whose methods do not, so they run beside it.
func (s *Session) farewell(code int, reason string, answer []byte) error {
	timeout := s.gate.cfg.CloseTimeout
	done := make(chan error, 2) // room for the end of both, so that neither goroutine outlives its call
	go func() {
		if answer != nil {
			ctx, cancel := context.WithTimeout(context.Background(), timeout/2)
			_ = s.conn.Write(ctx, answer)
			cancel()
		}
		done <- s.conn.Close(code, reason)
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	go func() { done <- s.conn.Abort() }()
	timer.Reset(timeout)
	select {
	case <-done:
	case <-timer.C:
	}
	return ErrAborted
}

func (s *Session) limit(n int64) {
	if c, ok := s.conn.(interface{ SetReadLimit(int64) }); ok {
		c.SetReadLimit(n)
	}
}

type messageKind int

const (
	notJSON messageKind = iota
	tokenMessage
	otherMessage
)

// classify looks at a message as far as authentication goes. The token is nil where the message holds one that
// cannot be good: a value that is no string, or more than one.
func classify(msg []byte) (messageKind, []byte) {
	var count int
	var value []byte
	m := strictjson.Read(msg)
	for m.Next() {
		if strictjson.Is(m.Name(), "token") {
			count++
			value = m.Value()
		}
	}
	switch {
	case m.Err != nil:
		return notJSON, nil
	case count == 0:
		return otherMessage, nil
	case count > 1:
		return tokenMessage, nil
	}
	text, ok := strictjson.AppendString(nil, value)
	if !ok {
		return tokenMessage, nil
	}
	return tokenMessage, text
}
