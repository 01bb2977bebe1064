package relay

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
)

const (
	// posterIdle is how long a poster is remembered after its last message, or
	// after its session was ended.
	posterIdle = time.Minute
	// maxPosters bounds the posters. Only a client with a valid token makes
	// one, but it can have many addresses.
	maxPosters = 1000
)

var (
	// errPosters means that there are too many posters.
	errPosters = errors.New("relay: too many clients publish with requests")
	// errGone means that a poster was forgotten in this moment.
	errGone = errors.New("relay: the poster is gone")
)

// posters are the publishers that have sent a request within the last minute.
type posters struct {
	mu      sync.Mutex
	closed  bool
	entries map[posterKey]*poster
	count   *atomic.Int64 // of them, and of those of other relays
}

// posterKey is what requests of one publisher have in common. A token is not
// part of it, so that a device can change its token without a second session.
type posterKey struct {
	issuer, subject string
	client          netip.Prefix
	may             bool // publish
}

// poster is a publisher without a connection.
type poster struct {
	limit *rate.Limiter
	idle  *time.Timer

	mu      sync.Mutex
	session *wsauth.Session // nil before the first request is admitted
	gone    bool            // no longer one of the posters
	ended   bool            // the operator, or a newer session, has ended the session
}

// of returns the poster of a client whose token was just verified, and its
// session. The error is that of [wsauth.Session.Authorize] or of
// [wsauth.Gate.AttachIdentity].
func (ps *posters) of(ctx context.Context, r *Relay, id wsauth.Identity, peer wsauth.Peer) (*poster, *wsauth.Session, error) {
	key := posterKey{id.Issuer, id.Subject, ratelimit.Fold(peer.Addr), r.can(&id)}
	for {
		p, err := ps.find(key, r)
		if err != nil {
			return nil, nil, err
		}
		session, err := p.authorize(ctx, r, id, peer)
		if !errors.Is(err, errGone) {
			return p, session, err
		}
	}
}

func (ps *posters) find(key posterKey, r *Relay) (*poster, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.entries[key]
	if p != nil {
		return p, nil
	}
	if ps.closed {
		return nil, errPosters
	}
	if ps.count.Add(1) > maxPosters {
		ps.count.Add(-1)
		return nil, errPosters
	}
	p = &poster{limit: rate.NewLimiter(r.cfg.PublishRate, r.cfg.PublishBurst)}
	p.idle = time.AfterFunc(posterIdle, func() { ps.leave(key, p, codeNormal) })
	ps.entries[key] = p
	return p, nil
}

// authorize returns the session of a poster that may publish now.
func (p *poster) authorize(ctx context.Context, r *Relay, id wsauth.Identity, peer wsauth.Peer) (_ *wsauth.Session, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil, errGone
	}
	if p.session != nil {
		err = r.permitted(p.session)
		if refused, ok := errors.AsType[*wsauth.Error](err); ok {
			switch refused.Reason {
			case wsauth.ReasonPermission:
				return nil, err
			case wsauth.ReasonReplaced, wsauth.ReasonOperator:
				if !p.ended {
					p.ended = true
					p.idle.Reset(posterIdle)
				}
				return nil, err
			}
			// Its token has expired or was revoked. The token of this request
			// is another one, since it was just verified.
			_ = p.session.Close(codeNormal, "")
			p.session = nil
		}
	}
	if p.session == nil {
		if p.session, err = r.cfg.Gate.AttachIdentity(ctx, postConn{}, peer, id); err == nil {
			err = r.permitted(p.session)
		}
	}
	if err == nil {
		p.idle.Reset(posterIdle)
	}
	return p.session, err
}

// wait counts a message, or returns how long the client must wait before it
// sends one.
func (p *poster) wait() time.Duration {
	reserved := p.limit.Reserve()
	wait := reserved.Delay()
	if wait > 0 {
		reserved.Cancel()
	}
	return wait
}

// leave ends the session of a poster and forgets the poster.
func (ps *posters) leave(key posterKey, p *poster, code int) {
	ps.mu.Lock()
	if ps.entries[key] == p {
		delete(ps.entries, key)
		ps.count.Add(-1)
	}
	ps.mu.Unlock()
	p.idle.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	if p.session != nil {
		_ = p.session.Close(code, "")
	}
}

// close ends all sessions and admits no new ones.
func (ps *posters) close() {
	ps.mu.Lock()
	all := ps.entries
	ps.entries, ps.closed = nil, true
	ps.count.Add(-int64(len(all)))
	ps.mu.Unlock()
	for key, p := range all {
		ps.leave(key, p, codeGoingAway)
	}
}
