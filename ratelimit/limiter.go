package ratelimit

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/ratelimit/internal/thin"
)

// Reason is why a connection is refused, or would be refused in a dry run. The
// set is closed.
type Reason string

// The reasons of a [Decision].
const (
	ReasonNone     Reason = ""
	ReasonLimit    Reason = "limit"    // Config.Limit in this window
	ReasonAttempts Reason = "attempts" // Config.MaxAttempts in this window
	ReasonOpen     Reason = "open"     // Config.MaxOpen open at once
	ReasonProcess  Reason = "process"  // Config.Process, of all clients
	ReasonTotal    Reason = "total"    // Config.MaxTotal open at once, of all clients
	ReasonBlocked  Reason = "blocked"  // blocked by Limiter.Block
	ReasonPenalty  Reason = "penalty"  // blocked by Config.Penalty
)

// Decision is the answer of [Limiter.Admit]. The zero value is a refusal.
type Decision struct {
	Allowed bool
	Reason  Reason
	// Client is the network that counts as the client: the result of [Fold], or
	// a wider network if Coarse is set. It is invalid if the address was
	// invalid.
	Client netip.Prefix
	// Coarse is set if Config.MaxKeys other clients are known already, so this
	// client shares a bucket with others of its network.
	Coarse bool
	// Limit is Config.Limit. Remaining is the number of connections that the
	// client could still open now. It is zero after a refusal.
	Limit, Remaining int
	// Reset is the time until the client's window ends. It is zero for a
	// blocked client.
	Reset time.Duration
	// RetryAfter is the time after which another attempt can succeed. It is
	// exact, except for ReasonOpen and ReasonTotal: no one knows when a
	// connection will end, so RetryAfter is then the window, or one minute if
	// the window is longer. It
	// is zero if Reason is ReasonNone, and also if waiting does not help: for a
	// block that lasts forever, and for a Process that admits nothing.
	RetryAfter time.Duration
}

// shards is large enough to make contention rare. It is not a power of two,
// because Go's maps double in size: a million keys in 2ⁿ maps would fill each
// of them just past the last doubling, and leave it half empty.
const shards = 160

// before is a period before all others.
const before = math.MinInt64

// Limiter decides which connections clients may open. Make it with [New].
type Limiter struct {
	cfg    Config
	began  time.Time
	seed   [2]uint64
	coarse int // number of coarse buckets
	shards [shards]shard
	// periods are the latest periods of clients and of strikes to which all
	// shards have moved.
	periods [2]atomic.Int64

	keys, strikes, open atomic.Int64

	blocks  blocklist
	rejects *thin.Thinner[rejectKey, reject] // nil: no one is told
}

type shard struct {
	mu      sync.Mutex
	clients table[client]
	strikes table[strike]
	// open counts open connections. It is separate from the generations, so
	// that a client with an open connection is never forgotten.
	open map[uint64]uint32
}

// client is one window of a client. It has 16 bytes, so that a key takes at
// most 64 bytes in a Go map at any load of the map.
type client struct {
	start             int64 // since Limiter.began, in nanoseconds
	counted, attempts uint32
}

// New returns a Limiter, or all mistakes in the configuration, joined with
// [errors.Join], each a [*ConfigError].
func New(c Config) (*Limiter, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Limiter{
		cfg:    c,
		began:  time.Now(),
		seed:   [2]uint64{rand.Uint64(), rand.Uint64() | 1<<63 | 1},
		coarse: max(1024, c.MaxKeys/16),
	}
	l.rejects = l.cfg.thinned()
	l.blocks.init()
	for i := range l.periods {
		l.periods[i].Store(before)
	}
	for i := range l.shards {
		l.shards[i].clients.period, l.shards[i].strikes.period = before, before
	}
	return l, nil
}

// Admit decides whether a connection from addr may be opened now. If the
// decision allows it, call Release of the slot when the connection ends.
// Otherwise the slot is empty, and nothing has changed.
func (l *Limiter) Admit(addr netip.Addr) (Slot, Decision) { return l.AdmitAt(addr, time.Now()) }

// AdmitAt is [Limiter.Admit] at the time now.
func (l *Limiter) AdmitAt(addr netip.Addr, now time.Time) (Slot, Decision) {
	return l.answer(addr, now, true)
}

// Check returns the decision that Admit would make for addr now, and counts
// nothing. Use it to answer a request that only asks, such as that of a page
// whose upgrade failed: a browser hides from scripts with which status. Never
// call it to decide about a connection, since others may be admitted before
// that connection is counted. Remaining does not include a connection of this
// request.
func (l *Limiter) Check(addr netip.Addr) Decision {
	_, d := l.answer(addr, time.Now(), false)
	return d
}

// answer decides about a connection from addr, and counts it if count is set
// and the decision allows it.
func (l *Limiter) answer(addr netip.Addr, now time.Time, count bool) (Slot, Decision) {
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
	slot, crowded := l.decide(keyOf(network), m, now, count, &d)
	if crowded {
		d.Client, d.Coarse = coarse(addr), true
		slot, _ = l.decide(l.coarseKey(d.Client), m, now, count, &d)
	}
	return slot, d
}

// decide counts one connection, if count is set, under one lock; nothing else
// counts connections. It returns crowded, without a decision, if the key is
// unknown and MaxKeys keys are known.
func (l *Limiter) decide(key uint64, m moment, now time.Time, count bool, d *Decision) (slot Slot, crowded bool) {
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()

	s.turn(l, m)
	at := m.at
	c, known := s.clients.get(key)
	open := s.open[key]
	// A penalty comes first: a crowd must not hide a client from it.
	if s.penalized(key, at, d) {
		d.Allowed = l.cfg.DryRun
		return Slot{}, false
	}
	if !known && open == 0 && !d.Coarse && l.keys.Load() >= int64(l.cfg.MaxKeys) {
		return Slot{}, true
	}
	window := int64(l.cfg.Window)
	if !known || at-c.start >= window {
		c = client{start: at}
	}
	reset := time.Duration(c.start + window - at)

	switch {
	case int(open) >= l.cfg.MaxOpen:
		d.Reason, d.RetryAfter = ReasonOpen, min(l.cfg.Window, time.Minute)
	case int(c.attempts) >= l.cfg.MaxAttempts:
		d.Reason, d.RetryAfter = ReasonAttempts, reset
	case int(c.counted) >= l.cfg.Limit:
		d.Reason, d.RetryAfter = ReasonLimit, reset
	case !l.enter(count):
		d.Reason, d.RetryAfter = ReasonTotal, min(l.cfg.Window, time.Minute)
	case l.cfg.Process != nil && !l.token(now, count):
		if count {
			l.open.Add(-1)
		}
		d.Reason, d.RetryAfter = ReasonProcess, untilToken(l.cfg.Process, now)
	case count:
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
		slot = Slot{l: l, key: key, start: c.start}
	}
	d.Allowed = d.Reason == ReasonNone || l.cfg.DryRun
	if d.Reason == ReasonNone {
		d.Remaining = min(l.cfg.Limit-int(c.counted), l.cfg.MaxAttempts-int(c.attempts), l.cfg.MaxOpen-int(open))
	}
	d.Reset = reset
	return slot, false
}

// enter reports whether there are less than MaxTotal open connections. If count
// is set, it counts one more then.
func (l *Limiter) enter(count bool) bool {
	switch {
	case !count:
		return l.cfg.MaxTotal == 0 || l.open.Load() < int64(l.cfg.MaxTotal)
	case l.cfg.MaxTotal == 0:
		l.open.Add(1)
		return true
	}
	for {
		n := l.open.Load()
		if n >= int64(l.cfg.MaxTotal) {
			return false
		}
		if l.open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// token reports whether Process has a token, and takes it if take is set.
func (l *Limiter) token(now time.Time, take bool) bool {
	if take {
		return l.cfg.Process.AllowN(now, 1)
	}
	return l.cfg.Process.Limit() == rate.Inf || l.cfg.Process.TokensAt(now) >= 1
}

// untilToken returns the time until r, which has just refused, has a whole
// token.
func untilToken(r *rate.Limiter, now time.Time) time.Duration {
	if r.Limit() <= 0 || r.Burst() < 1 {
		return 0
	}
	missing := max(0, 1-r.TokensAt(now))
	return time.Duration(missing / float64(r.Limit()) * float64(time.Second))
}

// Slot is the place of an admitted connection. Only its first Release has an
// effect. Do not copy a Slot after its Release. The zero Slot, which Admit
// returns with a refusal, holds no place.
type Slot struct {
	l        *Limiter
	key      uint64
	start    int64
	released uint32
}

// Release gives the place back, and reports whether the slot held one until
// now. The connection no longer counts against MaxOpen, and no longer against
// Limit if the window that counted it has not ended. It still counts against
// MaxAttempts. Any goroutine may call Release.
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

// moment is a time with its periods of clients and of strikes.
type moment struct {
	at      int64 // since Limiter.began, in nanoseconds
	periods [2]int64
}

// turn drops the generations that have expired by now, in every shard. Each
// shard does so itself when it is used; turn also reaches shards that are not
// used.
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

// floorDiv rounds down, also for negative numbers: the given time may be before
// New.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Stats holds the sizes of a Limiter.
type Stats struct {
	Clients int // known one by one, or as coarse buckets
	Open    int // connections that hold a slot
	Failing int // clients with failures or penalties
	Blocks  int // networks in the block list, some perhaps expired
}

// Stats returns the sizes of the Limiter now, after it has dropped expired
// data.
func (l *Limiter) Stats() Stats { return l.stats(time.Now()) }

func (l *Limiter) stats(now time.Time) Stats {
	l.turn(now)
	return Stats{
		Clients: int(l.keys.Load()),
		Open:    int(l.open.Load()),
		Failing: int(l.strikes.Load()),
		Blocks:  l.blocks.len(),
	}
}
