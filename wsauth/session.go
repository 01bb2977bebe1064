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

// The answers to a client, which are the same bytes for every reason.
var (
	answerRefused = []byte(`{"error":"Authentication failed"}`)
	answerNotJSON = []byte(`{"error":"Invalid JSON"}`)
	answerViewer  = []byte(`{"status":"viewer"}`)
)

// Session is the authentication state of one connection. Only one goroutine at
// a time may call Next. All other methods are safe for concurrent use.
type Session struct {
	gate *Gate
	conn Conn
	peer Peer

	number uint64

	// grant is that of the newest token, nil before authentication. All grants
	// of a session are for the same subject. It is written under Gate.mu.
	grant atomic.Pointer[grant]
	ended atomic.Bool

	// Guarded by Gate.mu:
	since   time.Time   // when the present authentication began
	timer   *time.Timer // for the next warning or end; nil before authentication
	status  []byte      // the message to send to the client, nil for none
	telling bool        // a goroutine is sending status
	verdict *verdict    // how the Gate has decided to close the session, if so

	end    sync.Once
	endErr error
}

// ID returns the name of the session in the audit and for [Gate.End]. It is
// unique among all gates and not secret.
func (s *Session) ID() string { return s.gate.prefix + strconv.FormatUint(s.number, 10) }

// Next returns the next message that contains no token. The message is valid
// JSON, nested at most 32 levels deep, and the client has authenticated. Check
// the content yourself, and call [Session.Authorize] before you act on it.
//
// Next answers token messages itself. A token message is a JSON object with a
// member "token", whatever other members it has. If the token is accepted, the
// answer is {"status":"authenticated","expires_at":N}. A later token renews the
// authentication if it is of the same subject and does not expire earlier.
//
// Other changes reach the client when they happen, even if no goroutine is in
// Next: the messages {"status":"expiring","expires_at":N} and
// {"status":"viewer"}, and the close codes 4401, 4409 and 1008 of
// [Config].OnExpiry, [Config].OverLimit and [Gate.End]. After one of these
// codes, Next returns an error.
//
// Every error is final. These errors mean that the session has sent an answer
// and closed the connection:
//
//	error                     answer                             code
//	ErrAuthenticationFailed   {"error":"Authentication failed"}  4401
//	ErrInvalidJSON            {"error":"Invalid JSON"}           1007
//	ErrInvalidUTF8            {"error":"Invalid JSON"}           1007
//	ErrBinary                 {"error":"Invalid JSON"}           1003
//	ErrTooBig                 none                               1009
//
// [ErrAuthenticationFailed] means that a token was refused, or that the first
// message contained none. After any other error, such as that of ctx or of the
// connection, close the session with a code of your choice.
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

// present verifies a token and answers it.
func (s *Session) present(ctx context.Context, token []byte) error {
	now := s.gate.now()
	if barred := s.gate.cfg.Barred; barred != nil && barred(s.peer) {
		return s.refuse(&Error{Reason: ReasonBarred})
	}
	id, err := s.gate.verify(ctx, token, now)
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

// refuse is the only code that refuses a token or the lack of one, so that a
// client cannot tell the reasons apart.
func (s *Session) refuse(cause error) error {
	refused, ok := errors.AsType[*Error](cause)
	if !ok {
		refused = &Error{Reason: ReasonVerifier}
	}
	s.gate.cfg.Audit(s.event(s.gate.now(), EventRefused, refused.Reason,
		&Identity{Subject: refused.Subject, TokenID: refused.TokenID, KeyID: refused.KeyID}))
	return s.dismiss(codeAuthenticationFailed, answerRefused, ErrAuthenticationFailed)
}

func (s *Session) event(at time.Time, kind EventKind, reason Reason, id *Identity) Event {
	return Event{
		Time: at, Kind: kind, Reason: reason, Peer: s.peer, SessionID: s.ID(),
		Subject: id.Subject, TokenID: id.TokenID, KeyID: id.KeyID,
	}
}

// Authorize returns nil if the client has the permission p now. Otherwise, it
// returns an [*Error]. Call it for every action, since a token may expire, or
// its key may be withdrawn, while the connection is open. As long as the
// authentication is valid, Authorize takes no lock.
//
// If Authorize notices the end of the authentication before the timer of the
// session does, the client receives no {"status":"viewer"}, because you have a
// message to answer.
func (s *Session) Authorize(p string) error { return s.AuthorizeAt(p, s.gate.now()) }

// AuthorizeAt is [Session.Authorize] at the time now. If the authentication is
// no longer valid at that time, it ends and does not start again.
func (s *Session) AuthorizeAt(p string, now time.Time) error {
	r := s.grant.Load()
	if r == nil {
		return &Error{Reason: ReasonNotAuthenticated, Permission: p}
	}
	if reason, ok := s.gate.valid(r, now); !ok {
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

// Identity returns the identity of the newest accepted token, and false if the
// client has sent none. It does not check whether the identity is still valid;
// [Session.Authorize] does.
func (s *Session) Identity() (Identity, bool) {
	if r := s.grant.Load(); r != nil {
		return r.Identity, true
	}
	return Identity{}, false
}

// Reply sends one text message to the client. It returns [ErrSessionClosed]
// after the session has ended.
func (s *Session) Reply(ctx context.Context, text []byte) error {
	if s.ended.Load() {
		return ErrSessionClosed
	}
	return s.conn.Write(ctx, text)
}

// Close closes the connection with a close code and a reason. If this takes
// longer than [Config].CloseTimeout, Close aborts the connection, and its error
// matches [os.ErrDeadlineExceeded] with [errors.Is]. If the Abort of the Conn
// hangs too, Close returns after another CloseTimeout. Only the first call has
// an effect; other calls wait for it and return its result. If the Gate has
// decided to close the session, the code and reason of the Gate are sent
// instead.
func (s *Session) Close(code int, reason string) error { return s.finish(code, reason, nil) }

// dismiss sends answer, closes the connection and returns cause.
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
			s.gate.cfg.Audit(s.event(s.gate.now(), EventEnded, v.reason, &r.Identity))
		}
	})
	return s.endErr
}

// farewell must end even if the methods of the Conn do not, so they run in
// goroutines of their own.
func (s *Session) farewell(code int, reason string, answer []byte) error {
	timeout := s.gate.cfg.CloseTimeout
	done := make(chan error, 2) // room for both results, so that no goroutine waits to send one
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

// classify returns the kind of a message and the token in it. The token is nil
// if the message contains one that cannot be valid: not a string, or more than
// one.
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
