package watch

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of the lines that a stranger can cause, of one kind: so many at once,
// and then one in each interval.
const (
	thinBurst = 10
	thinEvery = time.Second
)

// thinned thins the lines of one kind. Its zero value is ready.
type thinned struct {
	mu         sync.Mutex
	pace       *rate.Limiter
	suppressed uint64
}

// allow reports whether the next line may be written, and how many were left
// out since the last one.
func (t *thinned) allow(now time.Time) (suppressed uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pace == nil {
		t.pace = rate.NewLimiter(rate.Every(thinEvery), thinBurst)
	}
	if !t.pace.AllowN(now, 1) {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed = t.suppressed, 0
	return suppressed, true
}
