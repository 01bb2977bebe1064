package wsauth

import "time"

// SetClock makes now the clock of g. Timers do not follow it. Call SetClock
// before Attach.
func (g *Gate) SetClock(now func() time.Time) { g.now = now }
