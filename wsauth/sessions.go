package wsauth

import (
	"slices"
	"strings"
	"time"
)

// SessionInfo describes a session that holds a right.
type SessionInfo struct {
	ID       string // see [Session.ID]
	Peer     Peer
	Identity Identity
	Since    time.Time // when it got its right; refreshing does not change that
	EndsAt   time.Time // when the right ends unless it is refreshed
}

// Sessions lists the sessions that hold a right, the longest-standing first.
func (g *Gate) Sessions() []SessionInfo {
	g.mu.Lock()
	var list []SessionInfo
	for _, sessions := range g.devices {
		for _, s := range sessions {
			id := s.grant.Load().Identity
			list = append(list, SessionInfo{s.ID(), s.peer, id, s.since, g.endOf(&id)})
		}
	}
	g.mu.Unlock()
	slices.SortFunc(list, func(a, b SessionInfo) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// End takes the right of a session that holds one away and closes it with 1008, without waiting for
// that. It reports whether there was such a session. The token stays good; see [Gate.Revoke].
func (g *Gate) End(sessionID string) bool {
	var todo aftermath
	g.mu.Lock()
	for _, sessions := range g.devices {
		for _, s := range sessions {
			if s.ID() == sessionID {
				g.expel(s, verdict{codePolicyViolation, "", ReasonOperator}, &todo)
				g.mu.Unlock()
				g.settle(&todo)
				return true
			}
		}
	}
	g.mu.Unlock()
	return false
}

// Revoke makes all tokens of device that were issued before a time worthless, now and whenever they are shown, and
// ends the rights that stand on them at once. It returns how many sessions lost theirs. A token without "iat" counts
// as issued before any time. "iat" has whole seconds, so a token issued in the very second of issuedBefore is revoked
// unless that is a whole second itself. A time in the future shuts the device out until then.
//
// The time of a device never goes back. A Gate remembers it for as long as it lives; whoever needs more, across
// restarts, takes the device off the Verifier's list or its key from the ring.
func (g *Gate) Revoke(device string, issuedBefore time.Time) int {
	now := time.Now()
	var todo aftermath
	g.mu.Lock()
	if issuedBefore.After(g.revoked[device]) {
		g.revoked[device] = issuedBefore
	}
	ended := 0
	for _, s := range slices.Clone(g.devices[device]) {
		if r := s.grant.Load(); g.isRevoked(&r.Identity) {
			g.lapse(s, r, ReasonRevoked, now, true, &todo)
			ended++
		}
	}
	g.mu.Unlock()
	g.settle(&todo)
	return ended
}

// recheckAll asks the Verifier about every session that holds a right, and ends those rights that it does not stand by
// any longer.
func (g *Gate) recheckAll() {
	now := time.Now()
	var todo aftermath
	g.mu.Lock()
	for _, sessions := range g.devices {
		for _, s := range slices.Clone(sessions) {
			g.attend(s, now, &todo)
		}
	}
	g.mu.Unlock()
	g.settle(&todo)
}

// room makes room for one more session of the device, or reports that there is none. It needs mu.
func (g *Gate) room(device string, todo *aftermath) bool {
	for limit := g.cfg.MaxSessions; limit > 0 && len(g.devices[device]) >= limit; {
		if g.cfg.OverLimit == OverLimitRefuse {
			return false
		}
		g.expel(g.devices[device][0], verdict{codeReplaced, "replaced", ReasonReplaced}, todo)
	}
	return true
}

// withdraw takes a session from the list and stops its timer. It needs mu and is harmless twice.
func (g *Gate) withdraw(s *Session) {
	r := s.grant.Load()
	if r == nil {
		return
	}
	rest := slices.DeleteFunc(g.devices[r.Device], func(other *Session) bool { return other == s })
	if len(rest) == 0 {
		delete(g.devices, r.Device)
	} else {
		g.devices[r.Device] = rest
	}
	if s.timer != nil {
		s.timer.Stop()
	}
}
