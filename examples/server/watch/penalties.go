package watch

import (
	"errors"
	"maps"
	"net/http"
	"net/netip"
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
	guesses *ratelimit.Limiter // counts wrong tokens, and admits no one

	mu         sync.Mutex
	publishers map[string]netip.Prefix    // clients with an authenticated session, by session ID
	barred     map[netip.Prefix]time.Time // until when
}

func newPenalties(p ratelimit.Penalty) (*penalties, error) {
	guesses, err := ratelimit.New(ratelimit.Config{Penalty: p})
	return &penalties{guesses: guesses, publishers: make(map[string]netip.Prefix), barred: make(map[netip.Prefix]time.Time)}, err
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
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, publisher := range p.publishers {
		if publisher == client {
			return time.Time{}, false
		}
	}
	until, barred := p.guesses.Fail(ratelimit.Key{Addr: addr})
	if !barred {
		return time.Time{}, false
	}
	maps.DeleteFunc(p.barred, func(_ netip.Prefix, end time.Time) bool { return !end.After(time.Now()) })
	if _, again := p.barred[client]; again {
		return until, false
	}
	if len(p.barred) < maxPenalties {
		p.barred[client] = until
	}
	return until, true
}

// forgive ends the penalties of all clients in network, and reports whether
// there were any.
func (p *penalties) forgive(network netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.barred, func(client netip.Prefix, _ time.Time) bool { return network.Overlaps(client) })
	return p.guesses.Unblock(network)
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
