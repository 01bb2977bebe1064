package ratelimit

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// blocklist holds the networks that Block refuses.
type blocklist struct {
	size  atomic.Int64 // makes the check of an empty list one load
	mu    sync.RWMutex
	until map[netip.Prefix]time.Time // the zero time is forever
	bits4 [33]int                    // number of networks of each length
	bits6 [129]int
}

func (b *blocklist) init() { b.until = make(map[netip.Prefix]time.Time) }

func (b *blocklist) len() int { return int(b.size.Load()) }

// find returns the end of the block of addr that ends last.
func (b *blocklist) find(addr netip.Addr, now time.Time) (until time.Time, blocked bool) {
	if b.size.Load() == 0 || !addr.IsValid() {
		return time.Time{}, false
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	until, blocked = b.findForm(plain(addr), now)
	// The IPv6 form too: a block of 2002::/16 is not one of IPv4. A mapped
	// address is no IPv6 address on the wire.
	if addr = addr.WithZone(""); !addr.Is4In6() && addr != plain(addr) {
		if u, also := b.findForm(addr, now); also && (!blocked || u.IsZero() || !until.IsZero() && u.After(until)) {
			return u, true
		}
	}
	return until, blocked
}

// findForm looks for one form of an address.
func (b *blocklist) findForm(addr netip.Addr, now time.Time) (until time.Time, blocked bool) {
	for n, count := range b.lengths(addr) {
		if count == 0 {
			continue
		}
		p, _ := addr.Prefix(n)
		u, listed := b.until[p]
		switch {
		case !listed || !u.IsZero() && !now.Before(u):
		case u.IsZero():
			return u, true
		case u.After(until):
			until, blocked = u, true
		}
	}
	return until, blocked
}

func (b *blocklist) lengths(addr netip.Addr) []int {
	if addr.Is4() {
		return b.bits4[:]
	}
	return b.bits6[:]
}

func (b *blocklist) add(p netip.Prefix, until, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Each call also removes expired blocks, but looks at eight at most, so
	// that no call takes long.
	looked := 0
	for old, u := range b.until {
		if !u.IsZero() && !now.Before(u) {
			b.drop(old)
		}
		if looked++; looked == 8 {
			break
		}
	}
	if _, listed := b.until[p]; !listed {
		b.lengths(p.Addr())[p.Bits()]++
	}
	b.until[p] = until
	b.size.Store(int64(len(b.until)))
}

func (b *blocklist) remove(p netip.Prefix) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, listed := b.until[p]
	if listed {
		b.drop(p)
	}
	return listed
}

func (b *blocklist) drop(p netip.Prefix) {
	delete(b.until, p)
	b.lengths(p.Addr())[p.Bits()]--
	b.size.Store(int64(len(b.until)))
}

var errPrefix = errors.New("ratelimit: the network is not a valid prefix")

// Block refuses new connections from the network until the given time. The zero
// time is forever. A block of an IPv4 network also refuses the IPv6 addresses
// that stand for its addresses (see [Fold]), and a block of an IPv6 network
// that stands for an IPv4 /8 or less refuses that IPv4 network. If the network
// is blocked already, the new time replaces the old one. Open connections stay
// open. The number of blocks is not limited, but the list is meant for some
// thousands.
//
// Block returns an error if the prefix is invalid. With Config.Shared, Block
// tells the other nodes, and its error wraps [ErrLocal] if that failed.
func (l *Limiter) Block(network netip.Prefix, until time.Time) error {
	if err := l.block(network, until, time.Now()); err != nil || l.cfg.Shared == nil {
		return err
	}
	return l.blockShared(FoldPrefix(network), until)
}

// block uses the time now only to decide which earlier blocks have expired.
func (l *Limiter) block(network netip.Prefix, until, now time.Time) error {
	if !network.IsValid() {
		return errPrefix
	}
	l.blocks.add(FoldPrefix(network), until, now)
	return nil
}

// Unblock removes the block of exactly this network, and the penalties and
// counted failures of all clients in it. It reports whether there was anything
// to remove in this process. With Config.Shared, Unblock tells the other nodes,
// if need be later, and also removes failures there that this process does not
// know of.
func (l *Limiter) Unblock(network netip.Prefix) bool {
	if !network.IsValid() {
		return false
	}
	removed := l.unblock(network)
	if l.cfg.Shared != nil {
		// By its contract, Shared tells the others later.
		_ = l.cfg.Shared.Unblock(context.Background(), FoldPrefix(network))
	}
	return removed
}

func (l *Limiter) unblock(network netip.Prefix) bool {
	p := FoldPrefix(network)
	removed := l.blocks.remove(p)
	return l.forgive(p) || removed
}

// BlockedUntil reports whether the key is blocked now, by Block or by a
// penalty, and the end of the block that ends last. The zero time is forever.
func (l *Limiter) BlockedUntil(key Key) (until time.Time, blocked bool) {
	return l.blockedUntil(key, l.now())
}

func (l *Limiter) blockedUntil(key Key, at int64) (until time.Time, blocked bool) {
	now := l.time(at)
	until, blocked = l.blocks.find(key.Addr, now)
	if blocked && until.IsZero() {
		return until, true
	}
	l.turn(at)
	var d Decision
	if l.penalized(l.key(key), at, &d) {
		if end := now.Add(d.RetryAfter); end.After(until) {
			return end, true
		}
	}
	return until, blocked
}

// Blocks returns a copy of the networks that [Limiter.Block] has blocked, each
// with the end of its block. The networks are in the form of [FoldPrefix]. The
// zero time is forever. Expired blocks and penalties are not included.
func (l *Limiter) Blocks() map[netip.Prefix]time.Time { return l.blocksOf(time.Now()) }

func (l *Limiter) blocksOf(now time.Time) map[netip.Prefix]time.Time {
	l.blocks.mu.RLock()
	defer l.blocks.mu.RUnlock()
	m := make(map[netip.Prefix]time.Time, len(l.blocks.until))
	for p, u := range l.blocks.until {
		if u.IsZero() || now.Before(u) {
			m[p] = u
		}
	}
	return m
}
