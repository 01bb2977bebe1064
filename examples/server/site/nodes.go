package site

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// blockedElsewhere passes a block of another server on.
func (s *Site) blockedElsewhere(c ratelimit.SharedChange) {
	if b := s.blocks.Load(); b != nil {
		b.Changed(c)
	}
}

// The bounds on asking for the sessions of other servers, which strangers can
// cause by wrong tokens.
const (
	elsewhereEvery = time.Second
	elsewhereWait  = 250 * time.Millisecond
)

// elsewhere holds the addresses of sessions on all servers, as they were
// moments ago.
type elsewhere struct {
	mu    sync.Mutex
	read  time.Time
	addrs []netip.Addr
}

// publishing returns the addresses that have authenticated sessions on any
// server. Without an engine there are no others than this.
func (s *Site) publishing() []netip.Addr {
	if s.engine == nil || s.blocks.Load() == nil {
		return nil
	}
	e := &s.elsewhere
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); now.Sub(e.read) > elsewhereEvery {
		ctx, cancel := context.WithTimeout(context.Background(), elsewhereWait)
		defer cancel()
		// If the engine does not answer, the list has those of this server.
		all, _ := s.Authority.Gate().AllSessions(ctx)
		e.read, e.addrs = now, nil
		for _, session := range all {
			e.addrs = append(e.addrs, session.Peer.Addr)
		}
	}
	return e.addrs
}
