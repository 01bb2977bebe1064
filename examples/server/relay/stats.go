package relay

import (
	"sync/atomic"
	"time"
)

// LagBounds are the upper bounds of [Lag.Counts]. The first few are close to
// the interval at which the log wakes its readers, so the lag of a viewer that
// keeps up is within them.
var LagBounds = [...]time.Duration{
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Lag counts the delays of viewers, one for each live frame and viewer. A delay
// lasts from the time at which the frame's oldest message was stored to the end
// of the write to the viewer.
type Lag struct {
	Counts [len(LagBounds)]uint64 // for each bound, not cumulative
	Count  uint64                 // of all delays, those above the last bound included
	Sum    time.Duration
}

// Stats holds counts since the relay was made.
type Stats struct {
	Connections int    // open now
	Connected   uint64 // sockets upgraded, and streams opened
	Failed      uint64 // failed upgrades, without those refused for their origin
	Encoded     uint64 // frames made
	Delivered   uint64 // frames written to viewers; Delivered/Encoded viewers share one encoding
	Messages    uint64 // messages in the delivered frames
	Merged      uint64 // delivered live frames that carried more than one message
	Invalid     uint64 // messages of publishers that broke the schema
	Duplicates  uint64 // messages that were published before
	Unpublished uint64 // messages that could not be stored
	Retried     uint64 // further tries to store a message
	Lag         Lag
	Ended       map[string]uint64 // connections by the cause of their end, as in the log; every cause is a key
}

// Some of the causes that can end a connection.
const (
	causePanic = "panic"
	causeSlow  = "too slow"
	causeFlood = "flood"
	causeOther = "closed"
)

// causes is the closed set of causes that can end a connection.
var causes = []string{
	"authentication failed", "invalid JSON", "message too big", causeSlow, "no answer", "protocol violated", causeFlood, causePanic, causeOther,
}

// Add adds the counts of another relay.
func (s *Stats) Add(more Stats) {
	s.Connections += more.Connections
	s.Connected += more.Connected
	s.Failed += more.Failed
	s.Encoded += more.Encoded
	s.Delivered += more.Delivered
	s.Messages += more.Messages
	s.Merged += more.Merged
	s.Invalid += more.Invalid
	s.Duplicates += more.Duplicates
	s.Unpublished += more.Unpublished
	s.Retried += more.Retried
	for i, n := range more.Lag.Counts {
		s.Lag.Counts[i] += n
	}
	s.Lag.Count += more.Lag.Count
	s.Lag.Sum += more.Lag.Sum
	for cause, n := range more.Ended {
		s.Ended[cause] += n
	}
}

type counts struct {
	connected, failed, delivered, messages, merged, invalid, duplicates, unpublished, retried atomic.Uint64

	delay  time.Duration // of what viewers see, which is no lag
	lag    [len(LagBounds) + 1]atomic.Uint64
	lagSum atomic.Int64
	ended  map[string]*atomic.Uint64 // the map does not change after newCounts
}

func newCounts() *counts {
	c := &counts{ended: make(map[string]*atomic.Uint64)}
	for _, cause := range causes {
		c.ended[cause] = new(atomic.Uint64)
	}
	return c
}

// wrote counts a frame whose write to a viewer ended at now.
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
	lag := max(now.Sub(l.oldest)-c.delay, 0)
	i := 0
	for i < len(LagBounds) && lag > LagBounds[i] {
		i++
	}
	c.lag[i].Add(1)
	c.lagSum.Add(int64(lag))
}

// Stats returns the current counts.
func (r *Relay) Stats() Stats {
	c := r.counts
	s := Stats{
		Connections: r.Len(), Connected: c.connected.Load(), Failed: c.failed.Load(),
		Encoded: r.frames.encoded.Load(), Delivered: c.delivered.Load(), Messages: c.messages.Load(), Merged: c.merged.Load(),
		Invalid: c.invalid.Load(), Duplicates: c.duplicates.Load(), Unpublished: c.unpublished.Load(), Retried: c.retried.Load(),
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
