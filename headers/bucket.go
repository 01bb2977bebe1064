package headers

import (
	"math"
	"time"
)

// bucket is a token bucket: it holds up to burst tokens and gains rate tokens a
// second. It is not safe for concurrent use.
type bucket struct {
	rate   float64
	burst  float64
	tokens float64
	last   time.Time
}

func newBucket(rate float64, burst int) bucket {
	return bucket{rate: rate, burst: float64(burst), tokens: float64(burst)}
}

// take takes a token, and reports whether there was one. If now is before the
// time of the previous call, the bucket gains nothing.
func (b *bucket) take(now time.Time) bool {
	if math.IsInf(b.rate, 1) {
		return true
	}
	if gained := now.Sub(b.last).Seconds() * b.rate; gained > 0 {
		b.tokens = min(b.burst, b.tokens+gained)
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
