package wsauth

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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
	// cancel ends the context of the Verifier, or of Config.Shared. It is nil
	// unless one of them is deciding about a token.
	cancel atomic.Pointer[context.CancelFunc]

	// Guarded by Gate.mu:
	begun   time.Time     // when it was attached, or its authentication ended
	since   time.Time     // when the present authentication began
	timer   *time.Timer   // for the next warning or end; may be nil
	granted chan struct{} // of Authenticated; nil before its first call
	done    chan struct{} // of Done; nil before its first call
	status  []byte        // the message to send to the client, nil for none
	telling bool          // a goroutine is sending status
	joined  bool          // Config.Shared has the session
	verdict *verdict      // how the Gate has decided to close the session, if so

	end    sync.Once
	endErr error
}

// ID returns the name of the session in the audit and for [Gate.End]. It is
// unique among all gates and not secret.
func (s *Session) ID() string { return s.gate.prefix + strconv.FormatUint(s.number, 10) }

// issued reports whether the ID is one of a session of g.
func (g *Gate) issued(id string) bool { return strings.HasPrefix(id, g.prefix) }

// Next returns the next text message that contains no token. With the default
// [JSONDialect], the message is valid JSON, nested at most 32 levels deep, and
// the client has authenticated. Check the content yourself, and call
// [Session.Authorize] before you act on it.
//
// Next answers token messages itself, as [Config].Dialect says. With the
// default, a token message is a JSON object with a member "token", whatever
// other members it has. If the token is accepted, the answer is
// {"status":"authenticated","expires_at":N}. A later token renews the
// authentication if it is of the same subject and does not expire earlier.
//
// Other changes reach the client when they happen, even if no goroutine is in
// Next: the messages {"status":"expiring","expires_at":N} and
// {"status":"viewer"}, and the close codes 4401, 4409 and 1008 of
// [Config].OnExpiry, [Config].AuthTimeout, [Config].OverLimit and [Gate.End].
// After one of these codes, Next returns an error.
//
// Every error is final. These errors mean that the session has sent an answer
// and closed the connection:
//
//	error                     answer                             code
//	ErrAuthenticationFailed   {"error":"Authentication failed"}  4401
//	*UnavailableError         none                               1013
//	ErrInvalidJSON            {"error":"Invalid JSON"}           1007
//	ErrInvalidUTF8            {"error":"Invalid JSON"}           1007
//	ErrBinary                 {"error":"Invalid JSON"}           1003
//	ErrTooBig                 none                               1009
//
// [ErrAuthenticationFailed] means that a token was refused, or that the first
// message contained none. [*UnavailableError] means that the Verifier could not
// decide; the client should try again later. After any other error, such as
// that of ctx or of the connection, close the session with a code of your
// choice.
func (s *Session) Next(ctx context.Context) ([]byte, error) {
	msg, _, err := s.next(ctx, func(ctx context.Context) ([]byte, bool, error) {
		msg, err := s.conn.Read(ctx)
		return msg, false, err
	})
	return msg, err
}

// NextMessage is [Session.Next] for applications that use binary messages too,
// and reports whether the message is binary. The dialect does not see binary
// messages. NextMessage needs the method ReadMessage of the [Conn]; without it,
// a binary message is refused as by Next.
func (s *Session) NextMessage(ctx context.Context) (msg []byte, binary bool, err error) {
	if c, ok := s.conn.(interface {
		ReadMessage(context.Context) ([]byte, bool, error)
	}); ok {
		return s.next(ctx, c.ReadMessage)
	}
	msg, err = s.Next(ctx)
	return msg, false, err
}

func (s *Session) next(ctx context.Context, read func(context.Context) ([]byte, bool, error)) ([]byte, bool, error) {
	dialect := s.gate.cfg.Dialect
	for {
		if s.ended.Load() {
			return nil, false, ErrSessionClosed
		}
		msg, binary, err := read(ctx)
		switch {
		case errors.Is(err, ErrBinary):
			return nil, false, s.dismiss(codeUnsupportedData, StatusInvalid, ErrBinary)
		case errors.Is(err, ErrInvalidUTF8):
			return nil, false, s.dismiss(codeInvalidPayload, StatusInvalid, ErrInvalidUTF8)
		case errors.Is(err, ErrTooBig):
			return nil, false, s.dismiss(codeTooBig, "", ErrTooBig)
		case err != nil:
			return nil, false, err
		case s.ended.Load():
			return nil, false, ErrSessionClosed
		}

		var token []byte
		var is bool
		if !binary {
			if token, is, err = dialect.Token(msg); err != nil {
				return nil, false, s.dismiss(codeInvalidPayload, StatusInvalid, ErrInvalidJSON)
			}
		}
		switch {
		case is:
			if err := s.present(ctx, token); err != nil {
				return nil, false, err
			}
		case s.grant.Load() == nil && dialect != Dialect(NoDialect{}):
			return nil, false, s.refuse(&Error{Reason: ReasonNoToken})
		default:
			return msg, binary, nil
		}
	}
}

// present verifies a token and answers it.
func (s *Session) present(ctx context.Context, token []byte) error {
	if barred := s.gate.cfg.Barred; barred != nil && barred(s.peer) {
		return s.refuse(&Error{Reason: ReasonBarred})
	}
	id, err := s.verify(ctx, token)
	_, undecided := errors.AsType[*UnavailableError](err)
	switch {
	case undecided && s.ended.Load(): // verify was stopped
		return ErrSessionClosed
	case err != nil:
		return s.refuse(err)
	}
	return s.enter(ctx, id, false, s.gate.now()) // verify may have taken long
}

// verify asks the Verifier, until the session ends: the context of a request
// does not end when its connection does.
func (s *Session) verify(ctx context.Context, token []byte) (Identity, error) {
	ctx, done := s.cancellable(ctx)
	defer done()
	return s.gate.verify(ctx, token, s.gate.now())
}

// cancellable returns a context that also ends with the session, until done is
// called.
func (s *Session) cancellable(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	s.cancel.Store(&cancel)
	if s.ended.Load() {
		cancel()
	}
	return ctx, func() {
		s.cancel.Store(nil)
		cancel()
	}
}

// markEnded needs Gate.mu.
func (s *Session) markEnded() {
	s.ended.Store(true)
	raise(s.done)
	if cancel := s.cancel.Load(); cancel != nil {
		(*cancel)()
	}
}

// enter authenticates the session with id and tells the client.
func (s *Session) enter(ctx context.Context, id Identity, foreign bool, now time.Time) error {
	var todo aftermath
	r := &grant{Identity: id, foreign: foreign}
	deliver, err := false, errUnreserved
	for errors.Is(err, errUnreserved) {
		var joined, counted bool
		if joined, counted, err = s.gate.reserve(ctx, s, r, now, &todo); err == nil {
			deliver, err = s.gate.admit(s, r, joined, counted, now, &todo)
		}
		s.gate.unreserve(s, joined, err, &todo)
	}
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
// client cannot tell the reasons apart. It closes the connection.
func (s *Session) refuse(cause error) error {
	e := s.gate.refusal(cause, s.peer)
	e.SessionID = s.ID()
	s.gate.cfg.Audit(e)
	if e.Kind == EventUnavailable {
		return s.dismiss(codeTryAgainLater, "", cause)
	}
	return s.dismiss(codeAuthenticationFailed, StatusRefused, ErrAuthenticationFailed)
}

// refusal returns the event of a token that was not accepted because of cause.
func (g *Gate) refusal(cause error, peer Peer) Event {
	e := Event{Time: g.now(), Kind: EventRefused, Peer: peer}
	if undecided, ok := errors.AsType[*UnavailableError](cause); ok {
		e.Kind, e.Reason = EventUnavailable, ReasonUnavailable
		if undecided.Err != nil {
			e.Detail = undecided.Err.Error()
		}
		return e
	}
	refused, ok := errors.AsType[*Error](cause)
	if !ok {
		refused = &Error{Reason: ReasonVerifier}
	}
	e.Reason, e.Detail = refused.Reason, refused.Detail
	e.Subject, e.TokenID, e.KeyID = refused.Subject, refused.TokenID, refused.KeyID
	return e
}

func (s *Session) event(at time.Time, kind EventKind, reason Reason, id *Identity) Event {
	return Event{
		Time: at, Kind: kind, Reason: reason, Peer: s.peer, SessionID: s.ID(),
		Subject: id.Subject, TokenID: id.TokenID, KeyID: id.KeyID,
	}
}

// Authorize returns nil if the client has the permission now. Otherwise, it
// returns an [*Error], or with [Config].Shared an [*UnavailableError]. Call it
// for every action, since a token may expire, or its key may be withdrawn,
// while the connection is open. As long as the authentication is valid,
// Authorize takes no lock. If you name resources, such as a room, the client
// must have the permission on each of them; see [Identity.Can].
//
// An [*UnavailableError] means that the client has the permission, as far as
// this process knows, but that [Config].MaxStale has passed. Ask again later,
// or call [Session.AuthorizeWait], which waits.
//
// If Authorize notices the end of the authentication before the timer of the
// session does, the client receives no {"status":"viewer"}, because you have a
// message to answer.
func (s *Session) Authorize(permission string, resources ...string) error {
	return s.AuthorizeAt(s.gate.now(), permission, resources...)
}

// AuthorizeAt is [Session.Authorize] at the time now. If the authentication is
// no longer valid at that time, it ends and does not start again.
func (s *Session) AuthorizeAt(now time.Time, permission string, resources ...string) error {
	r := s.grant.Load()
	if r == nil {
		return &Error{Reason: ReasonNotAuthenticated, Permission: permission}
	}
	if reason, ok := s.gate.valid(r, now); !ok {
		if r.lost.Load() == nil {
			var todo aftermath
			s.gate.mu.Lock()
			s.gate.lapse(s, r, reason, now, false, &todo)
			s.gate.mu.Unlock()
			s.gate.settle(&todo)
		}
		return r.forbidden(permission, reason)
	}
	if !r.Can(permission, resources...) {
		if !r.denied.Swap(true) {
			s.gate.cfg.Audit(s.event(now, EventDenied, ReasonPermission, &r.Identity))
		}
		return r.forbidden(permission, ReasonPermission)
	}
	if s.gate.stale() {
		return &UnavailableError{Err: errStale}
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

// Authenticated returns a channel that is closed when the client authenticates
// for the first time. Use it with [Session.Done] to serve only clients that
// have authenticated.
func (s *Session) Authenticated() <-chan struct{} {
	return s.signal(&s.granted, func() bool { return s.grant.Load() != nil })
}

// Done returns a channel that is closed when the session has ended, for any
// reason. An expired authentication does not end the session, unless
// [Config].OnExpiry or [Config].AuthTimeout says so.
func (s *Session) Done() <-chan struct{} { return s.signal(&s.done, s.ended.Load) }

// signal returns the channel c. Most sessions need none, so it is made when it
// is asked for.
func (s *Session) signal(c *chan struct{}, happened func() bool) <-chan struct{} {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if *c == nil {
		*c = make(chan struct{})
		if happened() {
			close(*c)
		}
	}
	return *c
}

// raise closes a channel of signal, if there is one. It needs Gate.mu.
func raise(c chan struct{}) {
	if c == nil {
		return
	}
	select {
	case <-c:
	default:
		close(c)
	}
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
func (s *Session) Close(code int, reason string) error { return s.finish(code, reason, "") }

// dismiss tells the client of a status, if it is not empty, closes the
// connection and returns cause.
func (s *Session) dismiss(code int, tell Status, cause error) error {
	_ = s.finish(code, "", tell)
	return cause
}

func (s *Session) finish(code int, reason string, tell Status) error {
	s.end.Do(func() {
		s.gate.mu.Lock()
		s.markEnded()
		s.gate.withdraw(s)
		v := verdict{code: code, why: reason}
		if s.verdict != nil {
			v, tell = *s.verdict, ""
		}
		s.gate.mu.Unlock()
		var answer []byte
		if tell != "" {
			answer = s.gate.cfg.Dialect.Message(tell, time.Time{})
		}
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
