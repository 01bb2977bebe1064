package ratelimit

import (
	"net/netip"
	"time"
	"unsafe"
)

// SetClock moves the clock by d since New: it moves the limiter's beginning the
// other way, and only in the reading of the wall clock. A time.Time with a
// monotonic reading has its seconds above 30 bits of nanoseconds.
func (l *Limiter) SetClock(d time.Duration) {
	wall := (*uint64)(unsafe.Pointer(&l.began))
	*wall -= uint64(d/time.Second) << 30
}

// at returns the time now as the limiter knows it.
func (l *Limiter) at(now time.Time) int64 { return int64(now.Sub(l.began)) }

// AdmitAt is Admit of an address at the time now.
func (l *Limiter) AdmitAt(addr netip.Addr, now time.Time) (slot Slot, d Decision) {
	l.answer(&Key{Addr: addr}, &addr, l.at(now), true, &slot, &d)
	return
}

// CheckAt is Check at the time now, to compare it with AdmitAt.
func (l *Limiter) CheckAt(addr netip.Addr, now time.Time) (d Decision) {
	l.answer(&Key{Addr: addr}, &addr, l.at(now), false, new(Slot), &d)
	return d
}

// FailAt is Fail of an address at the time now.
func (l *Limiter) FailAt(addr netip.Addr, now time.Time) (time.Time, bool) {
	return l.fail(Key{Addr: addr}, l.at(now))
}

// StatsAt is Stats at the time now.
func (l *Limiter) StatsAt(now time.Time) Stats { return l.stats(l.at(now)) }

// BlockAt is Block at the time now.
func (l *Limiter) BlockAt(network netip.Prefix, until, now time.Time) error {
	return l.block(network, until, now)
}

// BlockedAt is BlockedUntil of an address at the time now.
func (l *Limiter) BlockedAt(addr netip.Addr, now time.Time) (time.Time, bool) {
	return l.blockedUntil(Key{Addr: addr}, l.at(now))
}

// BlocksAt is Blocks at the time now.
func (l *Limiter) BlocksAt(now time.Time) map[netip.Prefix]time.Time { return l.blocksOf(now) }

// Spend sets the counters of the first of Config.Networks, which must be known,
// as if n more connections had come and gone.
func (l *Limiter) Spend(n uint32) {
	s, place := l.shard(keyNetwork)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients.find(keyNetwork, place)
	c.counted, c.tries = c.counted+n, c.tries+n
}
