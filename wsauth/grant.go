package wsauth

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// grant is the authentication of one session by one token. It ends once and
// never starts again; another token makes another grant.
type grant struct {
	Identity
	// foreign says that the Identity is the caller's and not the Verifier's.
	foreign bool

	lost   atomic.Pointer[Reason] // why it ended; written under Gate.mu
	denied atomic.Bool            // whether EventDenied has been audited

	// Guarded by Gate.mu:
	lead   time.Duration // how long before the end the client is warned
	warned time.Time     // the end that the client was warned of
}

// verdict is how to close a session that the Gate ends, not its reader.
type verdict struct {
	code   int
	why    string
	reason Reason
}

// aftermath is the work that is left after the lock is released, because it may
// wait for a client or for Audit.
type aftermath struct {
	events []Event
	push   []*Session // that have a status to write
	close  []*Session // that have a verdict
}

// settle does the work in todo without waiting for any client. Each of its
// goroutines ends when its session ends, or sooner.
func (g *Gate) settle(todo *aftermath) {
	for _, e := range todo.events {
		g.cfg.Audit(e)
	}
	for _, s := range todo.push {
		go s.push()
	}
	for _, s := range todo.close {
		go func() { _ = s.Close(0, "") }() // sends the code of the verdict
	}
}

// valid reports whether a grant is valid at the time now, and the reason if
// not. It takes no lock of the Gate.
func (g *Gate) valid(r *grant, now time.Time) (Reason, bool) {
	if reason := r.lost.Load(); reason != nil {
		return *reason, false
	}
	if expired(&r.Identity, now) {
		return ReasonExpired, false
	}
	if g.recheck != nil && !r.foreign {
		return g.recheck.ValidAt(r.Identity, now)
	}
	return "", true
}

func expired(id *Identity, now time.Time) bool {
	return !id.ExpiresAt.IsZero() && !now.Before(id.ExpiresAt)
}

// endOf returns when a grant ends if nothing changes before, or zero for never.
func (g *Gate) endOf(r *grant) time.Time {
	if g.recheck != nil && !r.foreign {
		if end := g.recheck.EndsAt(r.Identity); earlier(end, r.ExpiresAt) {
			return end
		}
	}
	return r.ExpiresAt
}

// earlier compares two ends, of which the zero time is never.
func earlier(a, b time.Time) bool { return !a.IsZero() && (b.IsZero() || a.Before(b)) }

// lead returns how long before its end a client is warned, for an
// authentication of that lifetime. It is at most half of the lifetime, or a
// client that refreshes after each warning would be warned again immediately.
func (g *Gate) lead(lifetime time.Duration) time.Duration {
	if g.cfg.ExpiryWarning > 0 {
		return min(g.cfg.ExpiryWarning, lifetime/2)
	}
	return min(time.Minute, lifetime/10)
}

// check returns how a session would authenticate with r, [EventAuthenticated]
// or [EventRefreshed], or why it must not. It ends an authentication that has
// ended unnoticed. It needs mu.
func (g *Gate) check(s *Session, r *grant, now time.Time, todo *aftermath) (EventKind, error) {
	if s.ended.Load() {
		return "", ErrSessionClosed
	}
	if g.isRevoked(&r.Identity, now) {
		return "", r.refused(ReasonRevoked)
	}
	if reason, ok := g.valid(r, now); !ok { // after a Rotate since verify
		return "", r.refused(reason)
	}
	old := s.grant.Load()
	if old == nil {
		return EventAuthenticated, nil
	}
	if old.Subject != r.Subject || old.Issuer != r.Issuer {
		return "", r.refused(ReasonOtherSubject)
	}
	if reason, ok := g.valid(old, now); !ok {
		if g.lapse(s, old, reason, now, false, todo); s.ended.Load() {
			return "", ErrSessionClosed
		}
		return EventAuthenticated, nil
	}
	if earlier(g.endOf(r), g.endOf(old)) {
		return "", r.refused(ReasonOlder)
	}
	return EventRefreshed, nil
}

// admit authenticates a session with r, or returns why not. joined and counted
// are results of reserve. admit reports whether the caller must deliver the
// status message.
func (g *Gate) admit(s *Session, r *grant, joined, counted bool, now time.Time, todo *aftermath) (deliver bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	kind, err := g.check(s, r, now, todo)
	if err != nil {
		return false, err
	}
	if kind == EventAuthenticated {
		if g.cfg.Shared != nil && !joined {
			return false, errUnreserved
		}
		if !counted && !g.room(&r.Identity, now, todo) {
			return false, r.refused(ReasonSessions)
		}
		s.since, s.joined = now, joined
		g.subjects[r.Subject] = append(g.subjects[r.Subject], s)
	}
	ends := g.endOf(r)
	r.lead = g.lead(math.MaxInt64)
	if !ends.IsZero() {
		r.lead = g.lead(ends.Sub(now))
	}
	s.grant.Store(r)
	raise(s.granted)
	if kind == EventRefreshed && s.joined {
		g.cfg.Shared.Update(g.describe(s, r, s.since))
	}
	g.attend(s, now, todo)
	e := s.event(now, kind, "", &r.Identity)
	e.ExpiresAt = ends
	todo.events = append(todo.events, e)
	return s.tell(g.cfg.Dialect.Message(StatusAuthenticated, ends)), nil
}

// attend ends the authentication of a session, or warns the client, if that is
// due now, and sets the timer to the next time. It needs mu.
func (g *Gate) attend(s *Session, now time.Time, todo *aftermath) {
	r := s.grant.Load()
	switch {
	case s.ended.Load():
		return
	case r == nil || r.lost.Load() != nil:
		g.await(s, now, todo)
		return
	}
	if reason, ok := g.valid(r, now); !ok {
		g.lapse(s, r, reason, now, true, todo)
		return
	}
	next := g.endOf(r)
	if next.IsZero() {
		return
	}
	if warning := next.Add(-r.lead); now.Before(warning) {
		next = warning
	} else if !r.warned.Equal(next) {
		r.warned = next
		if s.tell(g.cfg.Dialect.Message(StatusExpiring, next)) {
			todo.push = append(todo.push, s)
		}
	}
	// A timer does not notice that the clock was set, and on many systems it
	// stands still while the machine sleeps. So it asks the clock again soon.
	// Authorize does not depend on the timer.
	s.wake(min(next.Sub(now), maxWait))
}

// await ends a session that has not authenticated within [Config].AuthTimeout,
// or sets its timer. It needs mu.
func (g *Gate) await(s *Session, now time.Time, todo *aftermath) {
	if g.cfg.AuthTimeout == 0 {
		return
	}
	if wait := s.begun.Add(g.cfg.AuthTimeout).Sub(now); wait > 0 {
		s.wake(min(wait, maxWait))
		return
	}
	e := Event{Time: now, Kind: EventRefused, Reason: ReasonTimeout, Peer: s.peer, SessionID: s.ID()}
	v := verdict{codeAuthenticationFailed, "", ReasonTimeout}
	if s.cancel.Load() != nil { // the Verifier is late, not the client
		e.Kind, e.Reason, e.Detail = EventUnavailable, ReasonUnavailable, "the Verifier took longer than AuthTimeout"
		v.code, v.reason = codeTryAgainLater, ReasonUnavailable
	}
	todo.events = append(todo.events, e)
	s.condemn(v, todo)
}

// wake sets the timer. It needs mu.
func (s *Session) wake(wait time.Duration) {
	if s.timer == nil {
		s.timer = time.AfterFunc(wait, s.tick)
	} else {
		s.timer.Reset(wait)
	}
}

// maxWait is how long after the end of an authentication its client may learn
// of it, if the end came with a change of the clock or during a sleep of the
// machine.
const maxWait = time.Minute

func (s *Session) tick() {
	var todo aftermath
	s.gate.mu.Lock()
	s.gate.attend(s, s.gate.now(), &todo)
	s.gate.mu.Unlock()
	s.gate.settle(&todo)
}

// lapse ends an authentication that expired or was revoked. It tells the client
// only if tell is set; without it, the caller has a message to answer. It needs
// mu.
func (g *Gate) lapse(s *Session, r *grant, reason Reason, now time.Time, tell bool, todo *aftermath) {
	if s.ended.Load() || s.grant.Load() != r || !r.lost.CompareAndSwap(nil, &reason) {
		return
	}
	g.withdraw(s)
	kind := EventRevoked
	if reason == ReasonExpired {
		kind = EventExpired
	}
	todo.events = append(todo.events, s.event(now, kind, reason, &r.Identity))
	if g.cfg.OnExpiry == OnExpiryClose {
		s.condemn(verdict{codeAuthenticationFailed, "", reason}, todo)
		return
	}
	s.begun = g.now()
	g.await(s, s.begun, todo)
	if tell && s.tell(g.cfg.Dialect.Message(StatusViewer, time.Time{})) {
		todo.push = append(todo.push, s)
	}
}

// expel ends the authentication of a session and closes its connection. It
// needs mu.
func (g *Gate) expel(s *Session, v verdict, todo *aftermath) {
	r := s.grant.Load()
	r.lost.Store(&v.reason)
	g.withdraw(s)
	if v.reason == ReasonReplaced {
		todo.events = append(todo.events, s.event(g.now(), EventReplaced, v.reason, &r.Identity))
	}
	s.condemn(v, todo)
}

// condemn needs mu. After it, Next returns no message, and the session is
// closed with v, not with the code of its reader.
func (s *Session) condemn(v verdict, todo *aftermath) {
	s.markEnded()
	s.verdict = &v
	todo.close = append(todo.close, s)
}

// tell sets text as the next status message, in place of one that has not been
// sent: a client that reads slowly gets only the newest. It reports whether the
// caller must call deliver; if not, another goroutine is in it. It needs mu.
func (s *Session) tell(text []byte) bool {
	s.status = text
	if s.telling || text == nil {
		return false
	}
	s.telling = true
	return true
}

// deliver writes status messages, in order, until there are no more.
func (s *Session) deliver(ctx context.Context) error {
	for {
		s.gate.mu.Lock()
		text := s.status
		s.status = nil
		if text == nil || s.ended.Load() {
			s.telling = false
			s.gate.mu.Unlock()
			return nil
		}
		s.gate.mu.Unlock()
		if err := s.conn.Write(ctx, text); err != nil {
			s.gate.mu.Lock()
			s.telling = false
			s.gate.mu.Unlock()
			return err
		}
	}
}

// push delivers from another goroutine than the reader's. A client that does
// not read the message in time learns its state from the answer to its next
// one.
func (s *Session) push() {
	ctx, cancel := context.WithTimeout(context.Background(), s.gate.cfg.CloseTimeout)
	defer cancel()
	_ = s.deliver(ctx)
}
