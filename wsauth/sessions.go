package wsauth

import (
	"context"
	"slices"
	"strings"
	"time"
)

// SessionInfo describes an authenticated session.
type SessionInfo struct {
	ID       string // see [Session.ID]
	Node     string // the name of the node that has it, from [Gate.AllSessions]; empty without Shared
	Peer     Peer
	Identity Identity
	Since    time.Time // when it authenticated; refreshing does not change Since
	EndsAt   time.Time // when its authentication ends unless it is refreshed; zero: never
}

// Sessions returns the authenticated sessions of this process, the one with the
// oldest Since first.
func (g *Gate) Sessions() []SessionInfo {
	now := g.now()
	g.mu.Lock()
	var list []SessionInfo
	for _, sessions := range g.subjects {
		for _, s := range sessions {
			r := s.grant.Load()
			if _, ok := g.valid(r, now); ok {
				list = append(list, g.describe(s, r, s.since))
			}
		}
	}
	g.mu.Unlock()
	sortSessions(list)
	return list
}

func sortSessions(list []SessionInfo) {
	slices.SortFunc(list, func(a, b SessionInfo) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
}

// End ends the authentication of one session and closes its connection with the
// code 1008. It does not wait for the close. It returns false if no
// authenticated session has this ID. The token stays valid; to revoke it, call
// [Gate.Revoke]. With [Config].Shared, the session may be one of another node,
// and [Gate.EndContext] returns errors.
func (g *Gate) End(sessionID string) bool {
	ended, _ := g.EndContext(context.Background(), sessionID)
	return ended
}

// Revoke makes all tokens of subject that were issued before issuedBefore
// invalid, for open sessions and for later ones. It ends the authentication of
// these open sessions before it returns, and returns their number. If several
// issuers use the same subject, it revokes the tokens of all of them. A token
// without "iat" counts as issued before any time. "iat" has whole seconds, so a
// token issued in the same second as issuedBefore is revoked, unless
// issuedBefore is a whole second.
//
// If issuedBefore is in the future, the subject cannot authenticate with any
// token issued until then. To bound that, a time more than a minute in the
// future counts as in a minute. A token of the subject whose "iat" is more than
// a minute in the future counts as issued before, because its "iat" does not
// show when it was issued.
//
// For each subject, the latest issuedBefore of all calls counts, until
// [Gate.Unrevoke]. Without [Config].Shared, a Gate keeps it in memory only. To
// make a revocation outlast a restart, store it and call Revoke again, remove
// the subject from the list of the Verifier, or remove the key from the ring.
// With Shared, the revocation is in force on all nodes. [Gate.RevokeContext]
// returns an error if they could not be told yet.
func (g *Gate) Revoke(subject string, issuedBefore time.Time) int {
	ended, _ := g.RevokeContext(context.Background(), subject, issuedBefore)
	return ended
}

// Unrevoke takes back all revocations of subject by [Gate.Revoke], and reports
// whether there were any. Tokens that have not expired are accepted again. An
// authentication that has ended does not come back; the client must send a
// token. [Gate.UnrevokeContext] returns an error if the other nodes of
// [Config].Shared could not be told yet.
func (g *Gate) Unrevoke(subject string) bool {
	was, _ := g.UnrevokeContext(context.Background(), subject)
	return was
}

// recheckAll asks the Verifier about every authenticated session, and ends each
// authentication that is no longer valid.
func (g *Gate) recheckAll() {
	now := g.now()
	var todo aftermath
	g.mu.Lock()
	for subject := range g.subjects {
		g.attendAll(subject, now, &todo)
	}
	g.mu.Unlock()
	g.settle(&todo)
}

// attendAll calls attend for the sessions of a subject. It needs mu.
func (g *Gate) attendAll(subject string, now time.Time, todo *aftermath) {
	for _, s := range slices.Clone(g.subjects[subject]) {
		g.attend(s, now, todo)
	}
}

// room reports whether one more session of the subject of id may authenticate.
// Those that have ended unnoticed make room first. Then, with OverLimitReplace,
// it ends the oldest one. It needs mu.
func (g *Gate) room(id *Identity, now time.Time, todo *aftermath) bool {
	limit := g.cfg.MaxSessions
	if limit > 0 && len(g.sessionsOf(id)) >= limit {
		g.attendAll(id.Subject, now, todo)
	}
	for limit > 0 {
		open := g.sessionsOf(id)
		if len(open) < limit {
			break
		}
		if g.cfg.OverLimit == OverLimitRefuse {
			return false
		}
		g.expel(open[0], verdictOf(ReasonReplaced), todo)
	}
	return true
}

// sessionsOf returns the sessions of the subject of id. Two issuers may give
// the same subject to different users. It needs mu.
func (g *Gate) sessionsOf(id *Identity) (open []*Session) {
	for _, s := range g.subjects[id.Subject] {
		if s.grant.Load().Issuer == id.Issuer {
			open = append(open, s)
		}
	}
	return open
}

// withdraw removes a session from the list and stops its timer. It needs mu,
// and a second call has no effect.
func (g *Gate) withdraw(s *Session) {
	if s.timer != nil {
		s.timer.Stop()
	}
	r := s.grant.Load()
	if r == nil {
		return
	}
	if s.joined {
		s.joined = false
		g.cfg.Shared.Leave(s.ID())
	}
	rest := slices.DeleteFunc(g.subjects[r.Subject], func(other *Session) bool { return other == s })
	if len(rest) == 0 {
		delete(g.subjects, r.Subject)
	} else {
		g.subjects[r.Subject] = rest
	}
}
