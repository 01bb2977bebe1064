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
	answerViewer  = []byte(`{"status":"viewer"}`)
)

// Session is the authentication state of one connection. Next must be called from one goroutine at a time; all other
// methods are safe for concurrent use.
type Session struct {
	gate *Gate
	conn Conn
	peer Peer

	number uint64

	// The newest token's. All grants of a session are for the same device. Written under Gate.mu.
	grant atomic.Pointer[grant]
	ended atomic.Bool

	// Under Gate.mu:
	since   time.Time   // when a right began that stands since
	timer   *time.Timer // to what is due next; nil before authentication
	status  []byte      // what the peer is to be told, nil for nothing
	telling bool        // somebody is telling it
	verdict *verdict    // how the session is to be closed, if that was decided for it

	end    sync.Once
	endErr error
}

// ID names the session in the audit and for [Gate.End]. It is unique among all gates and no secret.
func (s *Session) ID() string { return s.gate.prefix + strconv.FormatUint(s.number, 10) }

// Next returns the next message that is not a token. Token messages, objects with a member "token", it answers itself:
// {"status":"authenticated","expires_at":N} for a token that is accepted, the first one as well as a later one of the
// same device that does not expire earlier, which renews the session. A token member makes a message a token message
// whatever else it holds.
//
// What else happens to the session is told to the peer, or closes the connection, at its time, also while nobody is in
// Next: {"status":"expiring","expires_at":N}, {"status":"viewer"}, and the closes with 4401, 4409 and 1008 that
// [Config].OnExpiry, [Config].OverLimit and [Gate.End] speak of, after which Next returns an error.
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
			return nil, s.dismiss(codeUnsupportedData, answerNotJSON, ErrBinary)
		case errors.Is(err, ErrInvalidUTF8):
			return nil, s.dismiss(codeInvalidPayload, answerNotJSON, ErrInvalidUTF8)
		case errors.Is(err, ErrTooBig):
			return nil, s.dismiss(codeTooBig, nil, ErrTooBig)
		case err != nil:
			return nil, err
		case s.ended.Load():
			return nil, ErrSessionClosed
		}

		kind, token := classify(msg)
		switch {
		case kind == notJSON:
			return nil, s.dismiss(codeInvalidPayload, answerNotJSON, ErrInvalidJSON)
		case kind == tokenMessage:
			if err := s.present(ctx, token); err != nil {
				return nil, err
			}
		case s.grant.Load() == nil:
			return nil, s.refuse(&Error{Reason: ReasonNoToken})
		default:
			return msg, nil
		}
	}
}

// present decides about a token and answers it.
func (s *Session) present(ctx context.Context, token []byte) error {
	now := time.Now()
	id, err := s.gate.verify(token, now)
	if err != nil {
		return s.refuse(err)
	}
	var todo aftermath
	deliver, err := s.gate.admit(s, id, now, &todo)
	s.gate.settle(&todo)
	switch {
	case errors.Is(err, ErrSessionClosed):
		return err
	case err != nil:
		return s.refuse(err)
	}
	s.limit(s.gate.cfg.MessageLimit)
	if deliver {
		return s.deliver(ctx)
	}
	return nil
}

// refuse is the one way in which a connection learns that its token, or the lack of one, was not good enough.
func (s *Session) refuse(cause error) error {
	refused, ok := errors.AsType[*Error](cause)
	if !ok {
		refused = &Error{Reason: ReasonVerifier}
	}
	s.gate.cfg.Audit(s.event(time.Now(), EventRefused, refused.Reason,
		&Identity{Device: refused.Device, TokenID: refused.TokenID, KeyID: refused.KeyID}))
	return s.dismiss(codeAuthenticationFailed, answerRefused, ErrAuthenticationFailed)
}

func (s *Session) event(at time.Time, kind EventKind, reason Reason, id *Identity) Event {
	return Event{
		Time: at, Kind: kind, Reason: reason, Peer: s.peer, SessionID: s.ID(),
		Device: id.Device, TokenID: id.TokenID, KeyID: id.KeyID,
	}
}

// Authorize reports whether the connection may do what p names, now. Its error is an [*Error]. While the right
// stands it takes no lock, and it is meant to be asked for every single action: a token that expires, or a key that is
// withdrawn, while the connection is open counts from that instant.
//
// Where Authorize finds the end of a right before the session's timer does, the peer is not told {"status":"viewer"}:
// the caller has a message of the peer's to answer.
func (s *Session) Authorize(p string) error { return s.AuthorizeAt(p, time.Now()) }

// AuthorizeAt is [Session.Authorize] at the time now. A right that it finds ended has ended.
func (s *Session) AuthorizeAt(p string, now time.Time) error {
	r := s.grant.Load()
	if r == nil {
		return &Error{Reason: ReasonNotAuthenticated, Permission: p}
	}
	if reason, ok := s.gate.stands(r, now); !ok {
		if r.lost.Load() == nil {
			var todo aftermath
			s.gate.mu.Lock()
			s.gate.lapse(s, r, reason, now, false, &todo)
			s.gate.mu.Unlock()
			s.gate.settle(&todo)
		}
		return r.forbidden(p, reason)
	}
	if !r.Can(p) {
		if !r.denied.Swap(true) {
			s.gate.cfg.Audit(s.event(now, EventDenied, ReasonPermission, &r.Identity))
		}
		return r.forbidden(p, ReasonPermission)
	}
	return nil
}

// Identity returns what the connection's token says, and whether there is one. It does not say that the identity still
// stands; [Session.Authorize] does.
func (s *Session) Identity() (Identity, bool) {
	if r := s.grant.Load(); r != nil {
		return r.Identity, true
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
// connection that takes longer is aborted, and the error is [os.ErrDeadlineExceeded]. Only the first call has an effect; others
// wait for it and return its result. Where the Gate has decided to close the session, its code and reason go before
// the caller's.
func (s *Session) Close(code int, reason string) error { return s.finish(code, reason, nil) }

// dismiss tells the peer and closes; what remains to be said about it is cause.
func (s *Session) dismiss(code int, answer []byte, cause error) error {
	_ = s.finish(code, "", answer)
	return cause
}

func (s *Session) finish(code int, reason string, answer []byte) error {
	s.end.Do(func() {
		s.gate.mu.Lock()
		s.ended.Store(true)
		s.gate.withdraw(s)
		v := verdict{code: code, why: reason}
		if s.verdict != nil {
			v, answer = *s.verdict, nil
		}
		s.gate.mu.Unlock()
		s.endErr = s.farewell(v.code, v.why, answer)
		if r := s.grant.Load(); r != nil {
			s.gate.cfg.Audit(s.event(time.Now(), EventEnded, v.reason, &r.Identity))
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
	return errAborted
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
