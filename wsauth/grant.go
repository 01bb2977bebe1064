package wsauth

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"
)

// grant is the right that one token gave to one session. It ends once, for one reason, and for good; another token
// makes another grant.
type grant struct {
	Identity
	lost   atomic.Pointer[Reason] // why it ended; written under Gate.mu
	denied atomic.Bool            // that a permission is missing was audited

	// Under Gate.mu:
	lead   time.Duration // how long before the end the peer is told
	warned time.Time     // the end that the peer was told of
}

// verdict is how a session is to be closed that somebody else than its reader ends.
type verdict struct {
	code   int
	why    string
	reason Reason
}

// aftermath is what is left to do when the lock is released: the lock is for deciding, and whoever is told or closed
// may take his time.
type aftermath struct {
	events []Event
	push   []*Session // that have a status to write
	close  []*Session // that have a verdict
}

// settle returns without waiting for any peer. Each of the goroutines ends with its session at the latest.
func (g *Gate) settle(todo *aftermath) {
	for _, e := range todo.events {
		g.cfg.Audit(e)
	}
	for _, s := range todo.push {
		go s.push()
	}
	for _, s := range todo.close {
		go func() { _ = s.Close(0, "") }() // the verdict's code counts
	}
}

// stands reports whether a grant is still worth anything. Without a recheck it takes no lock.
func (g *Gate) stands(r *grant, now time.Time) (Reason, bool) {
	if reason := r.lost.Load(); reason != nil {
		return *reason, false
	}
	if !now.Before(r.ExpiresAt) {
		return ReasonExpired, false
	}
	if g.recheck != nil {
		return g.recheck.StandsAt(r.Identity, now)
	}
	return "", true
}

// endOf is when a right ends as things are.
func (g *Gate) endOf(id *Identity) time.Time {
	if g.recheck != nil {
		if end := g.recheck.EndsAt(*id); !end.IsZero() && end.Before(id.ExpiresAt) {
			return end
		}
	}
	return id.ExpiresAt
}

// lead is how long before its end a right of that lifetime is announced to end. Half of it at most: a peer that
// refreshes whenever it is told to shall not be told all the time.
func (g *Gate) lead(lifetime time.Duration) time.Duration {
	if g.cfg.ExpiryWarning > 0 {
		return min(g.cfg.ExpiryWarning, lifetime/2)
	}
	return min(time.Minute, lifetime/10)
}

// admit gives a session the right that id stands for, or returns why not. It reports whether its caller must deliver
// the status that says so.
func (g *Gate) admit(s *Session, id Identity, now time.Time, todo *aftermath) (deliver bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.ended.Load() {
		return false, ErrSessionClosed
	}
	if g.isRevoked(&id) {
		return false, id.refused(ReasonRevoked)
	}
	r := &grant{Identity: id}
	if reason, ok := g.stands(r, now); !ok { // the ring may have turned since the token was verified
		return false, id.refused(reason)
	}
	kind, ends := EventAuthenticated, g.endOf(&id)
	if old := s.grant.Load(); old != nil {
		if old.Device != id.Device {
			return false, id.refused(ReasonOtherDevice)
		}
		if reason, ok := g.stands(old, now); ok {
			kind = EventRefreshed
			if ends.Before(g.endOf(&old.Identity)) {
				return false, id.refused(ReasonOlder)
			}
		} else if g.lapse(s, old, reason, now, false, todo); s.ended.Load() {
			return false, ErrSessionClosed
		}
	}
	if kind == EventAuthenticated {
		if !g.room(id.Device, todo) {
			return false, id.refused(ReasonSessions)
		}
		s.since = now
		g.devices[id.Device] = append(g.devices[id.Device], s)
	}
	r.lead = g.lead(ends.Sub(now))
	s.grant.Store(r)
	g.attend(s, now, todo)
	e := s.event(now, kind, "", &id)
	e.ExpiresAt = ends
	todo.events = append(todo.events, e)
	return s.tell(statusAt("authenticated", ends)), nil
}

// attend does what is due on a session that holds a right and sets its timer to what is due next. It needs mu.
func (g *Gate) attend(s *Session, now time.Time, todo *aftermath) {
	r := s.grant.Load()
	if s.ended.Load() || r == nil || r.lost.Load() != nil {
		return
	}
	if reason, ok := g.stands(r, now); !ok {
		g.lapse(s, r, reason, now, true, todo)
		return
	}
	next := g.endOf(&r.Identity)
	if warning := next.Add(-r.lead); now.Before(warning) {
		next = warning
	} else if !r.warned.Equal(next) {
		r.warned = next
		if s.tell(statusAt("expiring", next)) {
			todo.push = append(todo.push, s)
		}
	}
	// A clock that is set meanwhile lets the timer come early, and it is set again; Authorize asks the clock itself.
	switch wait := next.Sub(now); {
	case s.timer == nil:
		s.timer = time.AfterFunc(wait, s.tick)
	default:
		s.timer.Reset(wait)
	}
}

func (s *Session) tick() {
	var todo aftermath
	s.gate.mu.Lock()
	s.gate.attend(s, time.Now(), &todo)
	s.gate.mu.Unlock()
	s.gate.settle(&todo)
}

// lapse ends a right that expired or was revoked. Where the peer is answered by whoever found out, it need not be told.
// It needs mu.
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
	} else if tell && s.tell(answerViewer) {
		todo.push = append(todo.push, s)
	}
}

// expel ends a session that holds a right together with its connection. It needs mu.
func (g *Gate) expel(s *Session, v verdict, todo *aftermath) {
	r := s.grant.Load()
	r.lost.Store(&v.reason)
	g.withdraw(s)
	if v.reason == ReasonReplaced {
		todo.events = append(todo.events, s.event(time.Now(), EventReplaced, v.reason, &r.Identity))
	}
	s.condemn(v, todo)
}

// condemn needs mu. From here on no message is delivered, and the verdict goes before whatever else would close the
// session.
func (s *Session) condemn(v verdict, todo *aftermath) {
	s.ended.Store(true)
	s.verdict = &v
	todo.close = append(todo.close, s)
}

// tell makes text what the peer is to be told of its state, in place of what it was not told yet: a peer that reads
// more slowly than its state changes hears the newest. It reports whether the caller must see to the delivery; else
// somebody is at it. It needs mu.
func (s *Session) tell(text []byte) bool {
	s.status = text
	if s.telling {
		return false
	}
	s.telling = true
	return true
}

// deliver writes what there is to tell, in order.
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

// push delivers beside the reader. A peer that does not take it learns its state from the answer to its next message.
func (s *Session) push() {
	ctx, cancel := context.WithTimeout(context.Background(), s.gate.cfg.CloseTimeout)
	defer cancel()
	_ = s.deliver(ctx)
}

func statusAt(word string, at time.Time) []byte {
	text := make([]byte, 0, 64)
	text = append(text, `{"status":"`...)
	text = append(text, word...)
	text = append(text, `","expires_at":`...)
	text = strconv.AppendInt(text, at.Unix(), 10)
	return append(text, '}')
}
