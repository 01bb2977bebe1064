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
