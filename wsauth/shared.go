package wsauth

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Shared is what several processes, called nodes, know together: revocations,
// and the sessions of every node. Set it as [Config].Shared, call [Gate.Run],
// and the nodes act as one: [Gate.Revoke] and [Gate.End] reach every node, and
// [Config].MaxSessions counts the sessions of all nodes. Package
// wsauth/redisauth implements Shared by Redis or Valkey.
//
// A Shared serves one Gate. Its methods must be safe for concurrent use, must
// not call the Gate, and must return when their context ends. Update and Leave
// must return at once, because the Gate holds a lock when it calls them.
type Shared interface {
	// Revoke makes the tokens of subject that were issued before a time invalid
	// on every node. Of several times, the latest one counts. If it returns an
	// error, it must tell the other nodes as soon as it can.
	Revoke(ctx context.Context, subject string, issuedBefore time.Time) error
	// Unrevoke takes back all revocations of subject until now, and reports
	// whether there were any. After an error, it does as Revoke.
	Unrevoke(ctx context.Context, subject string) (bool, error)
	// Join adds a session that is about to authenticate. If most is not 0, and
	// the subject of the issuer has that many sessions on all nodes, over says
	// what happens: Join returns false and does not add the session, or it ends
	// the oldest ones and returns their IDs. The nodes that have these learn of
	// it by SharedState.Ended, also the caller. Sessions of nodes that have
	// died do not count. If Join returns an error, the Gate counts the sessions
	// of its own node, and the session must be added as soon as that is
	// possible.
	Join(ctx context.Context, s SessionInfo, most int, over OverLimit) (replaced []string, ok bool, err error)
	// Update replaces what Join has added, after a refresh. It has no effect on
	// a session that Join has not added.
	Update(s SessionInfo)
	// Leave removes a session that Join has added. A session may Join again
	// later.
	Leave(sessionID string)
	// End ends a session on the node that has it, as [Gate.End] does. It
	// returns false if no node has a session of this ID.
	End(ctx context.Context, sessionID string) (bool, error)
	// Sessions returns the sessions of all nodes, in any order. Their
	// Identities may lack Claims and Handle.
	Sessions(ctx context.Context) ([]SessionInfo, error)
	// Follow calls apply with what has changed, until ctx ends. The first call
	// has all revocations, and so has the first call after every failure; later
	// calls have what came since. Follow calls apply at least every quarter of
	// a second, also if nothing changes, and is the only caller of apply.
	Follow(ctx context.Context, apply func(SharedState))
}

// SharedState is what a node learns from a [Shared].
type SharedState struct {
	// Revoked has, by subject, the time before which tokens are invalid. The
	// zero time means that the revocations of the subject were taken back.
	// Subjects that it does not name are unchanged.
	Revoked map[string]time.Time
	// Ended has, by ID, sessions that ended, with [ReasonReplaced] or
	// [ReasonOperator]. IDs of sessions of other nodes are ignored.
	Ended map[string]Reason
	// AsOf is a time of this process: the node knows everything that was shared
	// before it. [Config].MaxStale counts from it.
	AsOf time.Time
}

// minStale is the least [Config].MaxStale: Follow is called four times a
// second, and a call may be late.
const minStale = time.Second

var (
	errStale      = errors.New("this node is out of touch with the others, and may not know the newest revocations")
	errUnreserved = errors.New("the authentication has ended since reserve, which must be called again")
)

// Run keeps the Gate in touch with the other nodes by [Config].Shared, until
// ctx ends. Until Run has loaded the revocations for the first time,
// [Session.Authorize] cannot decide. Without Shared, Run returns at once.
func (g *Gate) Run(ctx context.Context) {
	if g.cfg.Shared != nil {
		g.cfg.Shared.Follow(ctx, g.apply)
	}
}

// apply brings the Gate to the state of the other nodes.
func (g *Gate) apply(st SharedState) {
	now := g.now()
	var todo aftermath
	g.mu.Lock()
	for subject, before := range st.Revoked {
		if before.IsZero() {
			delete(g.revoked, subject)
		} else {
			g.revoke(subject, before, now, &todo)
		}
	}
	for id, reason := range st.Ended {
		g.endOne(id, reason, &todo)
	}
	g.mu.Unlock()
	g.settle(&todo)

	// Only now may a message that has waited be published.
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.inTouch.Load(); at == nil || st.AsOf.After(*at) {
		g.inTouch.Store(&st.AsOf)
	}
	if g.touched != nil {
		close(g.touched)
		g.touched = nil
	}
}

// endOne ends the session of this ID, or one that is about to have it: another
// node may end a session as soon as it has joined. It needs mu.
func (g *Gate) endOne(id string, reason Reason, todo *aftermath) {
	if s := g.find(id); s != nil {
		g.expel(s, verdictOf(reason), todo)
	} else if _, joining := g.joining[id]; joining {
		g.joining[id] = reason
	}
}

// verdictOf returns how to close a session that ended for this reason.
func verdictOf(r Reason) verdict {
	if r == ReasonReplaced {
		return verdict{codeReplaced, "replaced", r}
	}
	return verdict{codePolicyViolation, "", ReasonOperator}
}

// find returns the authenticated session of this ID, or nil. It needs mu.
func (g *Gate) find(id string) *Session {
	for _, sessions := range g.subjects {
		for _, s := range sessions {
			if s.ID() == id {
				return s
			}
		}
	}
	return nil
}

// stale reports whether the Gate may lack revocations that are older than
// [Config].MaxStale.
func (g *Gate) stale() bool {
	if g.cfg.Shared == nil {
		return false
	}
	at := g.inTouch.Load()
	if at == nil {
		return true
	}
	// On many systems, the monotonic clock does not advance while the machine
	// sleeps, and the other one may be set.
	now := time.Now()
	return now.Sub(*at) > g.cfg.MaxStale || now.Round(0).Sub(at.Round(0)) > g.cfg.MaxStale
}

// news returns a channel that is closed at the next apply.
func (g *Gate) news() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.touched == nil {
		g.touched = make(chan struct{})
	}
	return g.touched
}

// AuthorizeWait is [Session.Authorize], but waits as long as only
// [Config].MaxStale prevents the permission. It returns an [*UnavailableError]
// if ctx ends first, and [ErrSessionClosed] if the session ends first. Call it
// on the goroutine that calls [Session.Next], so that the client's later
// messages wait too, in order.
func (s *Session) AuthorizeWait(ctx context.Context, permission string, resources ...string) error {
	for {
		err := s.Authorize(permission, resources...)
		if _, later := errors.AsType[*UnavailableError](err); !later {
			return err
		}
		news := s.gate.news()
		if !s.gate.stale() { // since the call of Authorize
			continue
		}
		select {
		case <-news:
		case <-s.Done():
			return ErrSessionClosed
		case <-ctx.Done():
			return &UnavailableError{Err: ctx.Err()}
		}
	}
}

// RevokeContext is [Gate.Revoke] on all nodes. It returns the number of open
// sessions of this node that it ended. After an error, which comes from
// [Config].Shared, the revocation is in force on this node, and will be on the
// others when this node is in touch with them again, unless it is restarted
// before that. Without Shared, it returns no error.
func (g *Gate) RevokeContext(ctx context.Context, subject string, issuedBefore time.Time) (int, error) {
	now := g.now()
	if bound := now.Add(maxAhead); issuedBefore.After(bound) {
		issuedBefore = bound
	}
	here := func() (ended int) {
		var todo aftermath
		g.mu.Lock()
		ended = g.revoke(subject, issuedBefore, now, &todo)
		g.mu.Unlock()
		g.settle(&todo)
		return ended
	}
	ended := here()
	if g.cfg.Shared == nil {
		return ended, nil
	}
	err := g.cfg.Shared.Revoke(ctx, subject, issuedBefore)
	// The news of an earlier Unrevoke on another node may have come in between.
	return ended + here(), err
}

// revoke ends the sessions of subject by tokens that were issued before a time,
// and returns their number. It needs mu.
func (g *Gate) revoke(subject string, issuedBefore, now time.Time, todo *aftermath) (ended int) {
	if issuedBefore.After(g.revoked[subject]) {
		g.revoked[subject] = issuedBefore
	}
	for _, s := range slices.Clone(g.subjects[subject]) {
		if r := s.grant.Load(); g.isRevoked(&r.Identity, now) {
			g.lapse(s, r, ReasonRevoked, now, true, todo)
			ended++
		}
	}
	return ended
}

// UnrevokeContext is [Gate.Unrevoke] on all nodes. Its error is as that of
// [Gate.RevokeContext].
func (g *Gate) UnrevokeContext(ctx context.Context, subject string) (bool, error) {
	g.mu.Lock()
	_, was := g.revoked[subject]
	delete(g.revoked, subject)
	g.mu.Unlock()
	if g.cfg.Shared == nil {
		return was, nil
	}
	elsewhere, err := g.cfg.Shared.Unrevoke(ctx, subject)
	return was || elsewhere, err
}

// EndContext is [Gate.End] for a session of any node. If another node has the
// session, that node ends it within a second. After an error, which comes from
// [Config].Shared, the session may end or not.
func (g *Gate) EndContext(ctx context.Context, sessionID string) (bool, error) {
	var todo aftermath
	g.mu.Lock()
	s := g.find(sessionID)
	if s != nil {
		g.expel(s, verdictOf(ReasonOperator), &todo)
	}
	g.mu.Unlock()
	g.settle(&todo)
	if s != nil || g.cfg.Shared == nil {
		return s != nil, nil
	}
	return g.cfg.Shared.End(ctx, sessionID)
}

// AllSessions is [Gate.Sessions] for all nodes. A session of this node has no
// Node as long as the other nodes do not know of it. If AllSessions returns an
// error, which comes from [Config].Shared, the list has the sessions of this
// node.
func (g *Gate) AllSessions(ctx context.Context) ([]SessionInfo, error) {
	list := g.Sessions()
	if g.cfg.Shared == nil {
		return list, nil
	}
	all, err := g.cfg.Shared.Sessions(ctx)
	if err != nil {
		return list, err
	}
	own := make(map[string]int, len(list))
	for i := range list {
		own[list[i].ID] = i
	}
	for _, s := range all {
		if i, ok := own[s.ID]; ok {
			list[i].Node = s.Node // this process knows the rest better
		} else if !g.issued(s.ID) { // else it ended meanwhile
			list = append(list, s)
		}
	}
	sortSessions(list)
	return list, nil
}

// reserve asks [Config].Shared for a place for s, if s would authenticate with
// id and is not authenticated. joined says that Shared has the session, and
// counted that Shared has counted those of all nodes. The Verifier's context
// bounds the call too.
func (g *Gate) reserve(ctx context.Context, s *Session, r *grant, now time.Time, todo *aftermath) (joined, counted bool, err error) {
	if g.cfg.Shared == nil {
		return false, false, nil
	}
	g.mu.Lock()
	kind, err := g.check(s, r, now, todo)
	if err == nil && kind == EventAuthenticated {
		g.attendAll(r.Subject, now, todo) // those that have ended unnoticed make room
		g.joining[s.ID()] = ""
	}
	g.mu.Unlock()
	if err != nil || kind == EventRefreshed {
		return false, false, err
	}
	ctx, done := s.cancellable(ctx)
	defer done()
	replaced, ok, err := g.cfg.Shared.Join(ctx, g.describe(s, r, now), g.cfg.MaxSessions, g.cfg.OverLimit)
	switch {
	case err != nil:
		return true, false, nil
	case !ok:
		return false, false, r.refused(ReasonSessions)
	}
	g.mu.Lock()
	for _, id := range replaced {
		g.endOne(id, ReasonReplaced, todo)
	}
	g.mu.Unlock()
	return true, true, nil
}

// unreserve ends what reserve has begun. err says why the session was not
// admitted, and is nil if it was.
func (g *Gate) unreserve(s *Session, joined bool, err error, todo *aftermath) {
	if g.cfg.Shared == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	reason := g.joining[s.ID()]
	delete(g.joining, s.ID())
	switch {
	case err != nil && joined:
		g.cfg.Shared.Leave(s.ID())
	case err == nil && reason != "" && !s.ended.Load():
		g.expel(s, verdictOf(reason), todo)
	}
}

// describe returns what a list of sessions says of s.
func (g *Gate) describe(s *Session, r *grant, since time.Time) SessionInfo {
	return SessionInfo{ID: s.ID(), Peer: s.peer, Identity: r.Identity, Since: since, EndsAt: g.endOf(r)}
}
