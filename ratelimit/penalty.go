package ratelimit

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// strike holds the failures of a client. Times are since Limiter.began, in
// nanoseconds.
type strike struct {
	since    int64 // of the first failure that counts
	until    int64 // end of the latest block
	failures uint32
	blocks   uint16 // in a row; each lasts twice as long as the one before
	id       bool   // of an ID, whose key says no address
}

// memory returns the time, in nanoseconds, for which a strike must be kept
// after the client's last failure.
func (p Penalty) memory() int64 { return int64(max(p.Within, 2*p.MaxBlock)) }

// length returns the duration of a block that follows this number of blocks.
func (p Penalty) length(before uint16) time.Duration {
	d := p.Block
	for ; before > 0 && d < p.MaxBlock; before-- {
		d *= 2
	}
	return min(d, p.MaxBlock)
}

// Fail counts a failure of the key, such as a refused token, and reports
// whether the client is blocked now and until when. A client with
// Penalty.Failures failures within Penalty.Within of the first one is blocked.
// A failure of a client that is already blocked changes nothing. Open
// connections stay open.
//
// The limiter remembers at most MaxKeys/4 failing clients. If there are more,
// the failures of further clients are not counted. This fails open, since the
// alternative would be to block innocent clients of the same network. The
// limits still apply.
//
// With Config.Shared, the failures on all nodes count together, and Fail waits
// for its answer.
func (l *Limiter) Fail(key Key) (until time.Time, blocked bool) {
	if l.cfg.Shared != nil && l.cfg.Penalty.Failures > 0 {
		return l.failShared(key)
	}
	return l.fail(key, l.now())
}

func (l *Limiter) fail(key Key, at int64) (until time.Time, blocked bool) {
	p := l.cfg.Penalty
	if p.Failures == 0 {
		return time.Time{}, false
	}
	l.turn(at)
	id := l.key(key)
	s, _ := l.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(l, at)

	k, known := s.strikes.get(id)
	if !known && l.strikes.Load() >= int64(l.cfg.MaxKeys+3)/4 {
		return time.Time{}, false
	}
	if k.blocks > 0 {
		if at < k.until {
			return l.time(k.until), true
		}
		if at-k.until >= int64(p.MaxBlock) {
			k = strike{}
		}
	}
	if k.failures == 0 || at-k.since >= int64(p.Within) {
		k.since, k.failures = at, 0
	}
	if k.failures++; int(k.failures) >= p.Failures {
		k.until = at + int64(p.length(k.blocks))
		k.failures = 0
		k.blocks = min(k.blocks, math.MaxUint16-1) + 1
		until, blocked = l.time(k.until), true
	}
	k.id = key.ID != ""
	if s.strikes.renew(id, k) {
		l.strikes.Add(1)
	}
	return until, blocked
}

// key returns what the tables know the key by.
func (l *Limiter) key(key Key) uint64 {
	client, own := l.client(key.Addr)
	if key.ID != "" {
		own = l.idKey(key.ID, client)
	}
	return own
}

// Forgive removes the counted failures and the penalty of the key. Call it
// after a success, such as an accepted token. Blocks by [Limiter.Block] stay.
// With Config.Shared, Forgive returns before the other nodes know.
func (l *Limiter) Forgive(key Key) {
	if l.cfg.Shared != nil && l.cfg.Penalty.Failures > 0 {
		network, _ := l.client(key.Addr)
		l.cfg.Shared.Forgive(Client{Network: network, ID: key.ID})
		l.forget(l.key(key))
	}
	if l.strikes.Load() > 0 {
		l.pardon(l.key(key))
	}
}

func (l *Limiter) pardon(key uint64) (removed bool) {
	s, _ := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if removed = s.strikes.remove(key); removed {
		l.strikes.Add(-1)
	}
	return removed
}

// penalized reports whether a penalty blocks the client with this key. If so,
// it sets the reason and the time in d.
func (s *shard) penalized(key uint64, at int64, d *Decision) bool {
	if s.strikes.len() == 0 {
		return false
	}
	k, _ := s.strikes.get(key)
	if k.blocks == 0 || at >= k.until {
		return false
	}
	d.Reason, d.RetryAfter = ReasonPenalty, time.Duration(k.until-at)
	return true
}

// penalized is the same for a client that counts by another key.
func (l *Limiter) penalized(key uint64, at int64, d *Decision) bool {
	if l.strikes.Load() == 0 {
		return false
	}
	s, _ := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(l, at)
	if !s.penalized(key, at, d) {
		return false
	}
	d.Allowed = l.cfg.DryRun
	return true
}

// forgive removes the strikes of all clients in the network.
func (l *Limiter) forgive(network netip.Prefix) (any bool) {
	if l.strikes.Load() == 0 {
		return false
	}
	client, key := l.client(network.Addr())
	if network.Addr().BitLen() == client.Addr().BitLen() && network.Bits() >= client.Bits() {
		return l.pardon(key)
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, generation := range []map[uint64]strike{s.strikes.young, s.strikes.old} {
			for key, k := range generation {
				if !k.id && network.Contains(addrOf(key)) && s.strikes.remove(key) {
					l.strikes.Add(-1)
					any = true
				}
			}
		}
		s.mu.Unlock()
	}
	return any
}

// addrOf returns the first address of the client with this key.
func addrOf(key uint64) netip.Addr {
	switch key &^ 0xffff_ffff_ffff {
	case key4:
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(key))
		return netip.AddrFrom4(b)
	case keyNone, keyCoarse:
		return netip.Addr{}
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], key)
	return netip.AddrFrom16(b)
}
