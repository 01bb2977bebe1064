package relay

import (
	"sync/atomic"
	"time"
)

// LagBounds are the upper bounds of [Lag.Counts]. A viewer that keeps up is
// within the first few: they are around the pace at which the log wakes its
// readers.
var LagBounds = [...]time.Duration{
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Lag is how far behind viewers were, one observation for each live frame: from
// the moment at which its oldest message was stored to the end of the write
// that took it to the viewer.
type Lag struct {
	Counts [len(LagBounds)]uint64 // by bound, not cumulative
	Count  uint64                 // of all, those beyond the last bound included
	Sum    time.Duration
}

// Stats counts what the relay has done since it was made.
type Stats struct {
	Connections int    // open now
	Connected   uint64 // upgraded
	Failed      uint64 // upgrades that failed, other than for their origin
	Encoded     uint64 // frames made
	Delivered   uint64 // frames written to a viewer; Delivered/Encoded share one encoding
	Messages    uint64 // messages in them
	Merged      uint64 // live frames among them that carried more than one message
	Invalid     uint64 // messages of publishers that broke the schema
	Unpublished uint64 // messages that could not be stored
	Lag         Lag
	Ended       map[string]uint64 // connections by what ended them, the cause in the log; every cause is there
}

// What can end a connection.
const (
	causePanic = "panic"
	causeFlood = "flood"
	causeOther = "closed"
)

// causes is the closed set of them.
var causes = []string{
	"authentication failed", "invalid JSON", "message too big", "too slow", "no answer", "protocol violated", causeFlood, causePanic, causeOther,
}

type counts struct {
	connected, failed, delivered, messages, merged, invalid, unpublished atomic.Uint64

	lag    [len(LagBounds) + 1]atomic.Uint64
	lagSum atomic.Int64
	ended  map[string]*atomic.Uint64 // not changed after newCounts
}

func newCounts() *counts {
	c := &counts{ended: make(map[string]*atomic.Uint64)}
	for _, cause := range causes {
		c.ended[cause] = new(atomic.Uint64)
	}
	return c
}

// wrote counts a frame that a viewer was given by now.
func (c *counts) wrote(l load, now time.Time) {
	c.delivered.Add(1)
	c.messages.Add(uint64(l.messages))
	if !l.live || l.messages == 0 {
		return
	}
	if l.messages > 1 {
		c.merged.Add(1)
	}
	if l.oldest.IsZero() {
		return // a note has no time
	}
	lag := max(now.Sub(l.oldest), 0)
	i := 0
	for i < len(LagBounds) && lag > LagBounds[i] {
		i++
	}
	c.lag[i].Add(1)
	c.lagSum.Add(int64(lag))
}

// Stats returns the counts of this moment.
func (r *Relay) Stats() Stats {
	c := r.counts
	s := Stats{
		Connections: r.Len(), Connected: c.connected.Load(), Failed: c.failed.Load(),
		Encoded: r.frames.encoded.Load(), Delivered: c.delivered.Load(), Messages: c.messages.Load(), Merged: c.merged.Load(),
		Invalid: c.invalid.Load(), Unpublished: c.unpublished.Load(),
		Ended: make(map[string]uint64, len(c.ended)),
	}
	for i := range c.lag {
		n := c.lag[i].Load()
		s.Lag.Count += n
		if i < len(LagBounds) {
			s.Lag.Counts[i] = n
		}
	}
	s.Lag.Sum = time.Duration(c.lagSum.Load())
	for cause, n := range c.ended {
		s.Ended[cause] = n.Load()
	}
	return s
}
