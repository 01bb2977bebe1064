package redislimit

import (
	"net/netip"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// Idle reports whether there is nothing to tell the engine.
func (l *Limits) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.pending {
			return false
		}
	}
	for _, c := range l.clients {
		if c.busy > 0 {
			return false
		}
	}
	return len(l.changed)+len(l.unsure)+len(l.forgive) == 0 && l.away.Load() == nil && l.view.number != "0"
}

// Known is the number of clients of which the node must tell.
func (l *Limits) Known() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.clients)
}

// Number returns the number of the node.
func (l *Limits) Number() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view.number
}

// SetClock makes the clock of the process wrong. Call it before the first
// meeting.
func (l *Limits) SetClock(wrong time.Duration) {
	l.wrong = wrong
	l.offset.Store(l.wall().UnixMicro() - time.Since(l.began).Microseconds())
}

// KeyOf returns the key of a client.
func (l *Limits) KeyOf(c ratelimit.Client) string { return l.clientKey(c) }

// Sealer is how a node encrypts records.
type Sealer = sealer

var (
	NewSealer = newSealer
	Taken     = taken
)

// Seal returns a record as the engine has it.
func (s *sealer) Seal(name string, kind int, network netip.Prefix, at, until, forget int64) string {
	return s.seal(name, &record{kind: kinds[kind], network: network, at: at, until: until, forget: forget})
}

// Open returns the parts of a record, and its text again.
func (s *sealer) Open(name, sealed string) (kind ratelimit.SharedKind, network netip.Prefix, at, until, forget int64, err error) {
	r, err := s.open(name, sealed)
	if err != nil {
		return "", network, 0, 0, 0, err
	}
	return r.kind, r.network, r.at, r.until, r.forget, nil
}

// Waiting is the number of decisions that wait for those under way.
func (l *Limits) Waiting() int {
	l.queue.Lock()
	defer l.queue.Unlock()
	return len(l.waiting)
}

// The bounds of decisions that travel together.
const (
	MaxFlights  = maxFlights
	MaxTogether = maxTogether
)
