package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Shared is where several processes, called nodes, count their clients
// together. Set it as [Config].Shared. Package ratelimit/redislimit implements
// it by Redis or Valkey.
//
// A Shared serves one Limiter on each node, and the Limiters have the same
// limits. Its methods must be safe for concurrent use, must not call the
// Limiter, and must return soon after their context ends. They have their own
// bound for the time to wait, since the context may never end.
type Shared interface {
	// Take decides whether a connection of c may be opened by all nodes
	// together, and counts it then. If it cannot decide, it returns an error:
	// the Limiter then admits the connection by its own count, and Take must
	// count it later. If the connection is admitted, the Limiter calls give
	// once, when the connection ends. undo takes it back as if it had not been
	// admitted. give must return at once. It may be nil.
	Take(ctx context.Context, c Client, r Rules) (t Taken, give func(undo bool), err error)
	// Fail counts a failure of c on all nodes together, as [Limiter.Fail] does
	// on one, and tells the others of a penalty. After an error, the Limiter
	// counts the failure by itself.
	Fail(ctx context.Context, c Client, p Penalty) (until time.Time, blocked bool, err error)
	// Forgive removes the failures and the penalty of c on all nodes. It must
	// return at once.
	Forgive(c Client)
	// Block tells the others of a block. The zero time is forever. If it
	// returns an error, it must tell the others as soon as it can, and so must
	// Unblock.
	Block(ctx context.Context, network netip.Prefix, until time.Time) error
	// Unblock tells the others that the block of exactly this network has
	// ended, and removes the failures and penalties of all clients in it.
	Unblock(ctx context.Context, network netip.Prefix) error
	// Follow makes the Shared call apply for each block or penalty that is in
	// force, and then for each change by another node, one at a time. New calls
	// Follow once. Follow returns at once.
	Follow(apply func(SharedChange))
}

// Client is a client as all nodes know it.
type Client struct {
	// Network is the client's network, in the form of [Fold]. It is invalid if
	// the client has no valid address.
	Network netip.Prefix
	// ID is Key.ID.
	ID string
	// Group is set if Network is one of Config.Networks.
	Group bool
}

// Rules are the limits of a [Client]. See [Config] for their meaning.
type Rules struct {
	Limit, MaxAttempts, MaxOpen int

	Window   time.Duration
	Requests bool // Config.Count is CountRequests
	Penalty  bool // the client may have a penalty
	Ask      bool // decide, and count nothing
}

// Taken is the answer of [Shared].Take.
type Taken struct {
	// Reason is why the connection is refused: ReasonPenalty, ReasonOpen,
	// ReasonAttempts, ReasonLimit or, if it is admitted, ReasonNone.
	Reason Reason
	// RetryAfter, Reset and Remaining are as in [Decision]. RetryAfter is not
	// used for ReasonOpen.
	RetryAfter, Reset time.Duration
	Remaining         int
}

// SharedChange is a change of the blocks and penalties that all nodes have.
type SharedChange struct {
	Kind SharedKind
	// Network is what is blocked or unblocked. For a penalty it is the client.
	Network netip.Prefix
	// Until is when the block or the penalty ends. The zero time is forever.
	Until time.Time
}

// SharedKind is what a [SharedChange] does. The set is closed.
type SharedKind string

// The kinds of a [SharedChange].
const (
	SharedBlock    SharedKind = "block"    // [Limiter.Block]
	SharedUnblock  SharedKind = "unblock"  // [Limiter.Unblock]
	SharedPenalty  SharedKind = "penalty"  // [Limiter.Fail] began a penalty
	SharedForgiven SharedKind = "forgiven" // [Limiter.Forgive] ended a penalty
)

// ErrLocal is wrapped by the error of [Limiter.Block] if the other nodes could
// not be told. The block is in force in this process, and the others are told
// when that is possible again.
var ErrLocal = errors.New("ratelimit: the block is in force in this process only, until the other nodes can be told")

// remember is how long a refusal by Config.Shared is repeated without asking.
const remember = time.Second

// refusal is a refusal by Config.Shared. Times are since Limiter.began, in
// nanoseconds.
type refusal struct {
	reason       Reason
	retry, reset int64
	until        int64 // the refusal is repeated until then
}

// maxRefusals is the number of refusals that a shard remembers.
const maxRefusals = 64

// consider is answer, together with the other nodes if there is a
// Config.Shared.
func (l *Limiter) consider(ctx context.Context, key *Key, from *netip.Addr, at int64, count bool, slot *Slot, d *Decision) {
	if l.cfg.Shared == nil {
		l.answer(key, from, at, count, slot, d)
		return
	}
	id, c, b := l.shared(key)
	if l.refused(id, at, d) {
		// What is refused for a reason that comes earlier says so.
		remembered := *d
		*d = Decision{}
		if l.answer(key, from, at, false, new(Slot), d); d.Reason == ReasonNone {
			limit, client := d.Limit, d.Client
			*d = remembered
			d.Limit, d.Client, d.Allowed = limit, client, l.cfg.DryRun
		}
		return
	}
	l.answer(key, from, at, count, slot, d)
	if d.Reason != ReasonNone || d.Coarse || b.limit == unlimited {
		return
	}
	l.together(ctx, id, c, b, at, count, slot, d)
}

// shared returns what this node and the others know the key by, and its limits.
func (l *Limiter) shared(key *Key) (id uint64, c Client, b *bounds) {
	network, id := l.client(key.Addr)
	if key.ID != "" {
		return l.idKey(key.ID, network), Client{Network: network, ID: key.ID}, &l.bounds
	}
	if i := l.network(key.Addr); i >= 0 {
		n := &l.networks[i]
		return keyNetwork | uint64(i), Client{Network: n.Prefix, Group: true}, &n.bounds
	}
	return id, Client{Network: network}, &l.bounds
}

// together asks Config.Shared about a connection that this node would admit.
func (l *Limiter) together(ctx context.Context, id uint64, c Client, b *bounds, at int64, count bool, slot *Slot, d *Decision) {
	t, give, err := l.cfg.Shared.Take(ctx, c, Rules{
		Limit: int(b.limit), MaxAttempts: int(b.attempts), MaxOpen: int(b.open), Window: l.cfg.Window,
		Requests: l.cfg.Count == CountRequests, Penalty: l.cfg.Penalty.Failures > 0 && !c.Group, Ask: !count,
	})
	switch {
	case err != nil:
		d.Local = true
	case t.Reason == ReasonNone:
		d.Remaining, d.Reset = t.Remaining, t.Reset
	default:
		slot.undo()
		if t.Reason == ReasonOpen {
			t.RetryAfter = min(l.cfg.Window, time.Minute)
		}
		now := l.now()
		l.note(id, now, refusal{t.Reason, now + int64(t.RetryAfter), now + int64(t.Reset), now + int64(min(t.RetryAfter, remember))})
		d.Reason, d.RetryAfter, d.Reset, d.Remaining, d.Allowed = t.Reason, t.RetryAfter, t.Reset, 0, l.cfg.DryRun
		return
	}
	if !count {
		return
	}
	if give != nil {
		slot.of = &origin{l, give}
	}
	// The token is taken last, so that what the others refuse takes none.
	if now := l.steady(at); l.cfg.Process != nil && !l.token(now, true) {
		slot.undo()
		d.Reason, d.RetryAfter, d.Remaining, d.Allowed = ReasonProcess, untilToken(l.cfg.Process, now), 0, l.cfg.DryRun
	}
}

// refused reports whether Config.Shared has just refused the client with this
// key, and sets the reason and the times in d then.
func (l *Limiter) refused(id uint64, at int64, d *Decision) bool {
	s, _ := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.refusals[id]
	if !ok || at >= r.until {
		return false
	}
	d.Reason, d.RetryAfter, d.Reset = r.reason, time.Duration(r.retry-at), max(0, time.Duration(r.reset-at))
	if r.reason == ReasonOpen {
		d.RetryAfter = min(l.cfg.Window, time.Minute)
	}
	if r.reason == ReasonPenalty {
		d.Reset = 0
	}
	return true
}

// note remembers a refusal.
func (l *Limiter) note(id uint64, at int64, r refusal) {
	s, _ := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refusals) >= maxRefusals {
		for id, r := range s.refusals {
			if at >= r.until {
				delete(s.refusals, id)
			}
		}
		if len(s.refusals) >= maxRefusals {
			clear(s.refusals) // it only costs another question
		}
	}
	if s.refusals == nil {
		s.refusals = make(map[uint64]refusal)
	}
	s.refusals[id] = r
}

// forget forgets the refusal of the client with this key.
func (l *Limiter) forget(id uint64) {
	s, _ := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refusals, id)
}

// failShared is fail, together with the other nodes.
func (l *Limiter) failShared(key Key) (until time.Time, blocked bool) {
	at := l.now()
	var d Decision
	id := l.key(key)
	if l.penalized(id, at, &d) {
		return l.time(at + int64(d.RetryAfter)), true
	}
	network, _ := l.client(key.Addr)
	until, blocked, err := l.cfg.Shared.Fail(context.Background(), Client{Network: network, ID: key.ID}, l.cfg.Penalty)
	switch {
	case err != nil:
		return l.fail(key, l.now())
	case blocked:
		l.penalize(id, key.ID != "", until)
	}
	return until, blocked
}

// penalize begins a penalty that other nodes know of.
func (l *Limiter) penalize(id uint64, isID bool, until time.Time) {
	at := l.now()
	l.turn(at)
	s, _ := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(l, at)
	k, known := s.strikes.get(id)
	if !known && l.strikes.Load() >= int64(l.cfg.MaxKeys+3)/4 {
		return
	}
	k.until, k.failures, k.blocks, k.id = at+int64(time.Until(until)), 0, max(1, k.blocks), isID
	if s.strikes.renew(id, k) {
		l.strikes.Add(1)
	}
}

// blockShared tells the other nodes of a block.
func (l *Limiter) blockShared(network netip.Prefix, until time.Time) error {
	if err := l.cfg.Shared.Block(context.Background(), network, until); err != nil {
		return fmt.Errorf("%w: %w", ErrLocal, err)
	}
	return nil
}

// apply makes a change of another node.
func (l *Limiter) apply(c SharedChange) {
	switch c.Kind {
	case SharedBlock:
		if l.block(c.Network, c.Until, time.Now()) != nil {
			return
		}
	case SharedUnblock:
		l.unblock(c.Network)
	case SharedPenalty, SharedForgiven:
		if l.cfg.Penalty.Failures == 0 {
			return
		}
		if _, id := l.client(c.Network.Addr()); c.Kind == SharedForgiven {
			l.pardon(id)
			l.forget(id)
		} else {
			l.penalize(id, false, c.Until)
		}
	}
	if l.cfg.OnShared != nil {
		l.cfg.OnShared(c)
	}
}
