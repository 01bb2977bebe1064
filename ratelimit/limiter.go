package ratelimit

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Reason says why a connection was, or in a dry run would have been, refused.
type Reason string

// The reasons. An admitted connection has ReasonNone.
const (
	ReasonNone     Reason = ""
	ReasonLimit    Reason = "limit"    // Config.Limit connections counted in this window
	ReasonAttempts Reason = "attempts" // Config.MaxAttempts in this window
	ReasonOpen     Reason = "open"     // Config.MaxOpen open at once
	ReasonProcess  Reason = "process"  // Config.Process, by all clients together
	ReasonBlocked  Reason = "blocked"  // by Limiter.Block
	ReasonPenalty  Reason = "penalty"  // by Config.Penalty
)

// Decision is what [Limiter.Admit] decided, and why. The zero value is a refusal.
type Decision struct {
	Allowed bool
	Reason  Reason
	// Client is the network that was counted; wider than [Fold] says where Coarse is set, invalid where the address was.
	Client netip.Prefix
	// Coarse says that Config.MaxKeys clients are known already and this one shares the bucket of its network.
	Coarse bool
	// Limit and Remaining are the window's limit and how many more connections it would admit now.
	Limit, Remaining int
	// Reset is the time until the client's window ends.
	Reset time.Duration
	// RetryAfter is the time after which another attempt can succeed: exact for ReasonLimit, ReasonAttempts, ReasonProcess,
	// ReasonPenalty and ReasonBlocked (zero: never by itself). For ReasonOpen nobody knows when a connection will end; it is then
	// the window, or a minute if that is shorter. Zero where Reason is ReasonNone.
	RetryAfter time.Duration
}

// shards are many enough for contention to be rare, and no power of two: Go's maps double in steps, and a million keys
// spread over 2ⁿ maps would sit right after a doubling, half empty.
const shards = 160

// before is a period before all others.
const before = math.MinInt64

// Limiter decides who may open a connection. Make one with [New].
type Limiter struct {
	cfg     Config
	began   time.Time
	seed    [2]uint64
	coarse  int // number of coarse buckets
	shards  [shards]shard
	periods [2]atomic.Int64 // the latest period of clients and strikes that all shards were turned to

	keys, strikes, open atomic.Int64

	blocks     blocklist
	rejects    *rate.Limiter
	suppressed atomic.Uint64
}

type shard struct {
	mu      sync.Mutex
	clients table[client]
	strikes table[strike]
	// open counts connections apart from the generations, so that whoever holds one is never forgotten.
	open map[uint64]uint32
}

// client is one window of a client. At 16 bytes, a key costs 64 at most in a Go map, however full.
type client struct {
	start             int64 // since Limiter.began, in nanoseconds
	counted, attempts uint32
}

// New returns a Limiter, or every problem of the configuration: an errors.Join of *[ConfigError].
func New(c Config) (*Limiter, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	every := rate.Inf
	if c.RejectEvery > 0 {
		every = rate.Every(c.RejectEvery)
	}
	l := &Limiter{
		cfg:     c,
		began:   time.Now(),
		seed:    [2]uint64{rand.Uint64(), rand.Uint64() | 1<<63 | 1},
		coarse:  max(1024, c.MaxKeys/16),
		rejects: rate.NewLimiter(every, 10),
	}
	l.blocks.init()
	for i := range l.periods {
		l.periods[i].Store(before)
	}
	for i := range l.shards {
		l.shards[i].clients.period, l.shards[i].strikes.period = before, before
	}
	return l, nil
}

// Admit asks for a connection from addr now. If the decision allows it, release the slot when the connection ends;
// otherwise the slot is empty and nothing has changed.
func (l *Limiter) Admit(addr netip.Addr) (Slot, Decision) { return l.AdmitAt(addr, time.Now()) }

// AdmitAt is [Limiter.Admit] at the given time.
func (l *Limiter) AdmitAt(addr netip.Addr, now time.Time) (Slot, Decision) {
	m := l.turn(now)
	network := Fold(addr)
	d := Decision{Client: network, Limit: l.cfg.Limit}
	if until, blocked := l.blocks.find(addr, now); blocked {
		d.Reason = ReasonBlocked
		if !until.IsZero() {
			d.RetryAfter = until.Sub(now)
		}
		d.Allowed = l.cfg.DryRun
		return Slot{}, d
	}
	slot, crowded := l.decide(keyOf(network), m, now, &d)
	if crowded {
		d.Client, d.Coarse = coarse(addr), true
		slot, _ = l.decide(l.coarseKey(d.Client), m, now, &d)
	}
	return slot, d
}

// decide is the one place where a connection is counted, under one lock. It reports crowded, and decides nothing, where
// the key is unknown and there is no room to know it.
func (l *Limiter) decide(key uint64, m moment, now time.Time, d *Decision) (slot Slot, crowded bool) {
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()

	s.turn(l, m)
	at := m.at
	c, known := s.clients.get(key)
	open := s.open[key]
	if !known && open == 0 && !d.Coarse && l.keys.Load() >= int64(l.cfg.MaxKeys) {
		return Slot{}, true
	}
	window := int64(l.cfg.Window)
	if !known || at-c.start >= window {
		c = client{start: at}
	}
	reset := time.Duration(c.start + window - at)

	switch {
	case s.penalized(key, at, d):
	case int(open) >= l.cfg.MaxOpen:
		d.Reason, d.RetryAfter = ReasonOpen, min(l.cfg.Window, time.Minute)
	case int(c.attempts) >= l.cfg.MaxAttempts:
		d.Reason, d.RetryAfter = ReasonAttempts, reset
	case int(c.counted) >= l.cfg.Limit:
		d.Reason, d.RetryAfter = ReasonLimit, reset
	case l.cfg.Process != nil && !l.cfg.Process.AllowN(now, 1):
		d.Reason, d.RetryAfter = ReasonProcess, untilToken(l.cfg.Process, now)
	default:
		c.counted++
		c.attempts++
		if known && c.attempts > 1 {
			s.clients.update(key, c)
		} else if s.clients.renew(key, c) {
			l.keys.Add(1)
		}
		if s.open == nil {
			s.open = make(map[uint64]uint32)
		}
		open++
		s.open[key] = open
		l.open.Add(1)
		slot = Slot{l: l, key: key, start: c.start}
	}
	d.Allowed = d.Reason == ReasonNone || l.cfg.DryRun
	d.Remaining = max(0, min(l.cfg.Limit-int(c.counted), l.cfg.MaxAttempts-int(c.attempts), l.cfg.MaxOpen-int(open)))
	d.Reset = reset
	return slot, false
}

// untilToken is the time until a limiter that has just refused has a whole token.
func untilToken(r *rate.Limiter, now time.Time) time.Duration {
	if r.Limit() <= 0 || r.Burst() < 1 {
		return 0
	}
	missing := max(0, 1-r.TokensAt(now))
	return time.Duration(missing / float64(r.Limit()) * float64(time.Second))
}

// Slot is the place that an admitted connection holds. Only its first Release counts. A Slot must not be copied after
// it has been released; the zero Slot, which comes with a refusal, holds nothing.
type Slot struct {
	l        *Limiter
	key      uint64
	start    int64
	released uint32
}

// Release gives the place back, and says whether it was held until now: to the count of open connections in any case,
// to the window's count only if that window is the one that counted it. It may be called from any goroutine.
func (s *Slot) Release() bool {
	if s.l == nil || !atomic.CompareAndSwapUint32(&s.released, 0, 1) {
		return false
	}
	sh := s.l.shard(s.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if n := sh.open[s.key]; n > 1 {
		sh.open[s.key] = n - 1
	} else {
		delete(sh.open, s.key)
	}
	s.l.open.Add(-1)
	if c, known := sh.clients.get(s.key); known && c.start == s.start && c.counted > 0 {
		c.counted--
		sh.clients.update(s.key, c)
	}
	return true
}

// moment is a point in time, and the periods of clients and strikes that it lies in.
type moment struct {
	at      int64 // since Limiter.began, in nanoseconds
	periods [2]int64
}

// turn drops the generations that are over by now, in every shard. Shards turn by themselves too; doing it for all
// keeps idle ones from holding on to what should be forgotten.
func (l *Limiter) turn(now time.Time) moment {
	m := moment{at: int64(now.Sub(l.began))}
	m.periods[0] = floorDiv(m.at, int64(l.cfg.Window))
	m.periods[1] = before
	if l.cfg.Penalty.Failures > 0 {
		m.periods[1] = floorDiv(m.at, l.cfg.Penalty.memory())
	}
	due := false
	for i, p := range m.periods {
		if seen := l.periods[i].Load(); p > seen && l.periods[i].CompareAndSwap(seen, p) {
			due = true
		}
	}
	if due {
		for i := range l.shards {
			s := &l.shards[i]
			s.mu.Lock()
			s.turn(l, m)
			s.mu.Unlock()
		}
	}
	return m
}

func (s *shard) turn(l *Limiter, m moment) {
	if dropped := s.clients.turn(m.periods[0]); dropped > 0 {
		l.keys.Add(-int64(dropped))
	}
	if dropped := s.strikes.turn(m.periods[1]); dropped > 0 {
		l.strikes.Add(-int64(dropped))
	}
}

// floorDiv rounds down below zero too: explicit times may lie before New.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Stats is a Limiter's size.
type Stats struct {
	Clients int // known one by one, or coarse buckets
	Open    int // connections that hold a slot
	Failing int // clients with failures or penalties remembered
	Blocks  int // networks blocked by Block, expired ones perhaps included
}

// Stats returns the Limiter's size now, after forgetting what is due.
func (l *Limiter) Stats() Stats { return l.StatsAt(time.Now()) }

// StatsAt is [Limiter.Stats] at the given time.
func (l *Limiter) StatsAt(now time.Time) Stats {
	l.turn(now)
	return Stats{
		Clients: int(l.keys.Load()),
		Open:    int(l.open.Load()),
		Failing: int(l.strikes.Load()),
		Blocks:  l.blocks.len(),
	}
}
