package watch

import (
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
)

// maxPenalties is the number of clients whose penalties are listed.
const maxPenalties = 10_000

// penalties bars clients that have sent too many wrong tokens from sending
// more. They may go on watching: one person who guesses must not keep everyone
// behind the same address from the page.
type penalties struct {
	guesses    *ratelimit.Limiter // counts wrong tokens, and admits no one
	publishing func() []netip.Addr

	mu         sync.Mutex
	publishers map[string]netip.Prefix    // clients with an authenticated session, by session ID
	barred     map[netip.Prefix]time.Time // until when
}

func newPenalties(cfg Config) (*penalties, error) {
	p := &penalties{publishing: cfg.Publishing, publishers: make(map[string]netip.Prefix), barred: make(map[netip.Prefix]time.Time)}
	var err error
	p.guesses, err = ratelimit.New(ratelimit.Config{Penalty: cfg.Limits.Penalty, Shared: cfg.Tokens, OnShared: p.elsewhere})
	return p, err
}

// elsewhere keeps the list up to date with the penalties of other servers.
func (p *penalties) elsewhere(c ratelimit.SharedChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch c.Kind {
	case ratelimit.SharedPenalty:
		p.add(c.Network, c.Until)
	case ratelimit.SharedForgiven, ratelimit.SharedUnblock:
		p.drop(c.Network)
	}
}

// add lists a client. The caller holds mu.
func (p *penalties) add(client netip.Prefix, until time.Time) (listed bool) {
	maps.DeleteFunc(p.barred, func(_ netip.Prefix, end time.Time) bool { return !end.After(time.Now()) })
	_, again := p.barred[client]
	if again || len(p.barred) < maxPenalties {
		p.barred[client] = until
	}
	return !again
}

// drop removes all clients in network. The caller holds mu.
func (p *penalties) drop(network netip.Prefix) {
	maps.DeleteFunc(p.barred, func(client netip.Prefix, _ time.Time) bool { return network.Overlaps(client) })
}

// note keeps the clients of authenticated sessions.
func (p *penalties) note(e wsauth.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case wsauth.EventAuthenticated:
		p.publishers[e.SessionID] = ratelimit.Fold(e.Peer.Addr)
	case wsauth.EventExpired, wsauth.EventRevoked, wsauth.EventReplaced, wsauth.EventEnded:
		delete(p.publishers, e.SessionID)
	}
}

// fail counts a wrong token, and reports whether it has barred the client at
// addr. A client with an authenticated session is spared: the device behind the
// same address must be able to come back.
func (p *penalties) fail(addr netip.Addr) (until time.Time, began bool) {
	client := ratelimit.Fold(addr)
	if p.spared(client) {
		return time.Time{}, false
	}
	until, barred := p.guesses.Fail(ratelimit.Key{Addr: addr})
	if !barred {
		return time.Time{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return until, p.add(client, until)
}

func (p *penalties) spared(client netip.Prefix) bool {
	p.mu.Lock()
	for _, publisher := range p.publishers {
		if publisher == client {
			p.mu.Unlock()
			return true
		}
	}
	p.mu.Unlock()
	return p.publishing != nil && slices.ContainsFunc(p.publishing(), func(addr netip.Addr) bool { return ratelimit.Fold(addr) == client })
}

// forgive ends the penalties of all clients in network, and reports whether
// there were any.
func (p *penalties) forgive(network netip.Prefix) bool {
	p.mu.Lock()
	before := len(p.barred)
	p.drop(network)
	listed := len(p.barred) < before
	p.mu.Unlock()
	return p.guesses.Unblock(network) || listed
}

// Penalties returns the clients that may not send tokens now, and until when.
func (w *Watch) Penalties() map[netip.Prefix]time.Time {
	now := time.Now()
	w.penalties.mu.Lock()
	defer w.penalties.mu.Unlock()
	all := maps.Clone(w.penalties.barred)
	maps.DeleteFunc(all, func(_ netip.Prefix, end time.Time) bool { return !end.After(now) })
	return all
}

// Forgive ends the failures and penalties of all clients in network, and
// reports whether there were any.
func (w *Watch) Forgive(network netip.Prefix) bool { return w.penalties.forgive(network) }

// TokensBarred reports whether the peer may not send tokens now.
func (w *Watch) TokensBarred(peer wsauth.Peer) bool {
	_, barred := w.penalties.guesses.BlockedUntil(ratelimit.Key{Addr: peer.Addr})
	return barred
}

// RefuseTokens answers the request r from addr with 403 if addr is blocked or
// may not send tokens, and reports whether it has done so.
func (w *Watch) RefuseTokens(rw http.ResponseWriter, r *http.Request, addr netip.Addr) bool {
	d := ratelimit.Decision{Client: ratelimit.Fold(addr), Reason: ratelimit.ReasonBlocked}
	key := ratelimit.Key{Addr: addr}
	until, refused := w.limiter.BlockedUntil(key)
	if !refused {
		d.Reason = ratelimit.ReasonPenalty
		until, refused = w.penalties.guesses.BlockedUntil(key)
	}
	if refused {
		d.RetryAfter = time.Until(until)
		w.limiter.Refuse(rw, r, d)
	}
	return refused
}

var errRequired = errors.New("watch: Config.Log and Config.Trail are required")
