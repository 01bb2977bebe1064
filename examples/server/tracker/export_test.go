package tracker

import "golang.org/x/time/rate"

// For tests.
const (
	Queue       = queue
	Burst       = burst
	MaxReported = maxReported
)

// SetPace replaces the pace at which events leave.
func (t *Tracker) SetPace(pace *rate.Limiter) { t.pace = pace }
