package ratelimit

import (
	"net/netip"
	"time"
)

// CheckAt is Check at the time now, to compare it with AdmitAt.
func (l *Limiter) CheckAt(addr netip.Addr, now time.Time) Decision {
	_, d := l.answer(addr, now, false)
	return d
}

// StatsAt is Stats at the time now.
func (l *Limiter) StatsAt(now time.Time) Stats { return l.stats(now) }

// BlockedAt is Blocked at the time now.
func (l *Limiter) BlockedAt(addr netip.Addr, now time.Time) (time.Time, bool) {
	return l.blocked(addr, now)
}

// BlocksAt is Blocks at the time now.
func (l *Limiter) BlocksAt(now time.Time) map[netip.Prefix]time.Time { return l.blocksOf(now) }
