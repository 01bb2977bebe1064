package relay

import (
	"testing"
	"time"
)

// A courier rests as its rounds require, and no longer than others need.
func TestRest(t *testing.T) {
	const ms = time.Millisecond
	for _, row := range []struct {
		round, want time.Duration
		why         string
	}{
		{0, 0, "nothing was done"},
		{3 * ms, ms, "a third, so that a quarter of the processor is free"},
		{60 * ms, 20 * ms, "the same"},
		{90 * ms, 20 * ms, "a longer rest would only delay viewers"},
		{time.Second, 20 * ms, "the same"},
	} {
		if got := restAfter(row.round); got != row.want {
			t.Errorf("after %v: %v, want %v: %s", row.round, got, row.want, row.why)
		}
	}
}
