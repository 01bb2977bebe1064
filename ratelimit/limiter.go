package ratelimit

import (
	"context"
	"encoding/binary"
	"hash/maphash"
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
	// Coarse is set if Config.MaxKeys other clients are known already, so this
	// client shares a bucket with others of its network, or its ID with other
	// IDs.
	Coarse bool
	// Local is set if Config.Shared did not answer, so this process decided
	// alone.
	Local  bool
	Reason Reason
	// Client is the network that counts as the client: that of the address (see
	// [Fold]), one of Config.Networks, or a wider network if Coarse is set. It
	// is invalid if the key has no valid address.
	Client netip.Prefix
	// Limit is Config.Limit, or that of Config.Networks. It is zero if the
	// client's network has no limit. Remaining is the number of connections
	// that the client could still open now. It is zero after a refusal.
	Limit, Remaining int
	// Reset is the time until the client's window ends. It is zero for a
	// blocked client.
	Reset time.Duration
	// RetryAfter is the time after which another attempt can succeed. It is
	// exact, except for ReasonOpen and ReasonTotal: no one knows when a
	// connection will end, so RetryAfter is then the window, or one minute if
	// the window is longer. It is zero if Reason is ReasonNone, and also if
	// waiting does not help: for a block that lasts forever, and for a Process
	// that admits nothing.
	RetryAfter time.Duration
}

// before is a time before all others.
const before = math.MinInt64

// Limiter decides which connections clients may open, or which requests they
// may send. Make it with [New].
type Limiter struct {
	cfg      Config
	bounds   bounds
	networks []network
	began    time.Time
	seed     [2]uint64
	ids      maphash.Seed
	coarse   int // number of coarse buckets
	shards   []shard
	next     atomic.Int64 // when a period ends, and all shards must turn

	keys, strikes atomic.Int64
	total         atomic.Int64 // open connections, if there is a MaxTotal

	alone   origin // of all slots that Config.Shared does not count
	blocks  blocklist
	rejects *thin.Thinner[rejectKey, reject] // nil: no one is told
}

type shard struct {
	mu      sync.Mutex
	clients clients
	strikes table[strike]
	next    int64 // when a period ends

	refusals map[uint64]refusal // by Config.Shared
}

// New returns a Limiter, or all mistakes in the configuration, joined with
// [errors.Join], each a [*ConfigError].
func New(c Config) (*Limiter, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Limiter{
		cfg:      c,
		bounds:   bounds{uint32(c.Limit), uint32(c.MaxAttempts), uint32(c.MaxOpen)},
		networks: c.networks(),
		began:    time.Now(),
		seed:     [2]uint64{rand.Uint64(), rand.Uint64() | 1<<63 | 1},
		ids:      maphash.MakeSeed(),
		coarse:   max(1024, c.MaxKeys/16),
		// A shard of two thousand clients moves them in less than 0.2 ms.
		shards: make([]shard, max(64, min(c.MaxKeys/2048, 1<<18))),
	}
	l.alone.l = l
	l.rejects = l.cfg.thinned()
	l.blocks.init()
	l.next.Store(before)
	for i := range l.shards {
		s := &l.shards[i]
		s.next, s.strikes.period = before, before
		s.clients.begin, s.clients.end, s.clients.oldest = before, before, before
	}
	if c.Shared != nil {
		c.Shared.Follow(l.apply)
	}
	return l, nil
}

// Admit decides whether a connection may be opened, or a request served, now.
// If the decision allows it, call Release of the slot when it ends. Otherwise
// the slot is empty, and nothing has changed.
func (l *Limiter) Admit(key Key) (slot Slot, d Decision) {
	l.admit(&key, &slot, &d)
	return
}

// admit is apart from Admit so that the compiler inlines Admit: to copy its
// results would take a quarter of the time.
func (l *Limiter) admit(key *Key, slot *Slot, d *Decision) {
	if l.cfg.Shared != nil {
		l.consider(context.Background(), key, &key.Addr, l.now(), true, slot, d)
		return
	}
	l.answer(key, &key.Addr, l.now(), true, slot, d)
}

// Check returns the decision that Admit would make for key now, and counts
// nothing. Use it to answer a request that only asks, such as that of a page
// whose upgrade failed: a browser hides from scripts with which status. Never
// call it to decide about a connection, since others may be admitted before
// that connection is counted. Remaining does not include a connection of this
// request.
func (l *Limiter) Check(key Key) (d Decision) {
	l.consider(context.Background(), &key, &key.Addr, l.now(), false, new(Slot), &d)
	return d
}

// now returns the time since began. It reads the monotonic clock only, which
// takes half the time of time.Now.
func (l *Limiter) now() int64 { return int64(time.Since(l.began)) }

// time returns the time of now by the clock as it is set today: a block may end
// at a time of day, and the clock may have been wrong at New.
func (l *Limiter) time(at int64) time.Time {
	today := time.Now()
	return today.Add(time.Duration(at) - today.Sub(l.began))
}

// steady returns the time of now by the monotonic clock. Compare it only with
// times that have a monotonic reading.
func (l *Limiter) steady(at int64) time.Time { return l.began.Add(time.Duration(at)) }

// answer decides about a request with this key that comes from an address, and
// counts it if count is set and the decision allows it. slot and d are zero
// before.
func (l *Limiter) answer(key *Key, from *netip.Addr, at int64, count bool, slot *Slot, d *Decision) {
	if at >= l.next.Load() {
		l.turn(at)
	}
	b := &l.bounds
	var client netip.Prefix
	var own uint64
	if key.Addr.Is4() && l.cfg.PrefixV4 == 32 { // the same as below, but faster
		a := key.Addr.As4()
		client, own = netip.PrefixFrom(key.Addr, 32), key4|uint64(binary.BigEndian.Uint32(a[:]))
	} else {
		client, own = l.client(key.Addr)
	}
	if key.ID != "" {
		own = l.idKey(key.ID, client)
	}
	d.Client, d.Limit = client, l.cfg.Limit
	if l.blocks.len() > 0 {
		now := l.time(at)
		if until, blocked := l.blocks.find(*from, now); blocked {
			d.Reason, d.Allowed = ReasonBlocked, l.cfg.DryRun
			if !until.IsZero() {
				d.RetryAfter = until.Sub(now)
			}
			return
		}
	}
	id := own
	if len(l.networks) > 0 && key.ID == "" {
		if i := l.network(key.Addr); i >= 0 {
			if l.penalized(own, at, d) {
				return
			}
			n := &l.networks[i]
			b, id, d.Client, d.Limit = &n.bounds, keyNetwork|uint64(i), n.Prefix, int(n.limit)
			if n.limit == unlimited {
				d.Limit = 0
			}
		}
	}
	if l.decide(id, b, at, count, slot, d) {
		return
	}
	d.Coarse = true
	if client.IsValid() {
		d.Client = l.crowd(key.Addr)
		own = keyOf(d.Client)
	}
	l.decide(l.coarseKey(own), b, at, count, slot, d)
}

// decide counts one connection, if count is set, under one lock; nothing else
// counts connections. It decides nothing, and returns false, if the key is
// unknown and MaxKeys keys are known. It copies no client as a whole, which
// would take as long as the rest.
func (l *Limiter) decide(key uint64, b *bounds, at int64, count bool, slot *Slot, d *Decision) (decided bool) {
	s, place := l.shard(key)
	s.mu.Lock()
	if at >= s.next {
		s.turn(l, at)
	}
	if s.clients.roomy {
		s.clients.rebuild(l.place)
	}
	// A caller whose clock is behind must not be forgotten at once.
	at = max(at, s.clients.oldest)
	window := int64(l.cfg.Window)
	var counted, attempts, open uint32
	c, known, start := s.clients.find(key, place), false, at
	if c != nil {
		known, open = s.clients.fresh(c), c.open
		// A network without a limit begins a new window before its counters
		// end.
		if known && at-c.start < window && c.tries <= unlimited {
			start, counted, attempts = c.start, c.counted, c.tries-1
		}
	}
	reset := time.Duration(start + window - at)

	switch decided = true; {
	case s.strikes.len() > 0 && s.penalized(key, at, d):
		// This comes first: a crowd must not hide a client from its penalty.
		reset = 0
	case !known && open == 0 && !d.Coarse && b == &l.bounds && l.keys.Load() >= int64(l.cfg.MaxKeys):
		decided = false // one of Config.Networks never shares a bucket
	case open >= b.open:
		d.Reason, d.RetryAfter = ReasonOpen, min(l.cfg.Window, time.Minute)
	case attempts >= b.attempts:
		d.Reason, d.RetryAfter = ReasonAttempts, reset
	case counted >= b.limit:
		d.Reason, d.RetryAfter = ReasonLimit, reset
	case l.cfg.MaxTotal > 0 && !l.enter(count):
		d.Reason, d.RetryAfter = ReasonTotal, min(l.cfg.Window, time.Minute)
	case l.cfg.Process != nil && !l.token(l.steady(at), count && l.cfg.Shared == nil):
		if count && l.cfg.MaxTotal > 0 {
			l.total.Add(-1)
		}
		d.Reason, d.RetryAfter = ReasonProcess, untilToken(l.cfg.Process, l.steady(at))
	case count:
		if c == nil {
			c = s.clients.add(key, place, l.place)
		}
		if !known {
			l.keys.Add(1)
		}
		if !known || c.start != start {
			s.clients.restart(c, start, known)
		}
		s.clients.enter(c)
		counted, attempts, open = counted+1, attempts+1, open+1
		slot.of, slot.key, slot.start = &l.alone, key, start
	}
	s.mu.Unlock()
	if !decided {
		return false
	}
	d.Reset = reset
	if d.Allowed = d.Reason == ReasonNone || l.cfg.DryRun; d.Reason == ReasonNone {
		d.Remaining = int(min(b.limit-counted, b.attempts-attempts, b.open-open))
	}
	return true
}

// place returns the second result of shard.
func (l *Limiter) place(key uint64) uint64 {
	_, place := l.shard(key)
	return place
}

// enter reports whether there are less than MaxTotal open connections. If count
// is set, it counts one more then.
func (l *Limiter) enter(count bool) bool {
	if !count {
		return l.total.Load() < int64(l.cfg.MaxTotal)
	}
	for {
		n := l.total.Load()
		if n >= int64(l.cfg.MaxTotal) {
			return false
		}
		if l.total.CompareAndSwap(n, n+1) {
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

// Slot is the place of an admitted connection or request. Only its first
// Release has an effect. Do not copy a Slot, since the copy could give back the
// place of another connection; go vet finds copies. The zero Slot, which Admit
// returns with a refusal, holds no place.
type Slot struct {
	of       *origin
	key      uint64
	start    int64
	released atomic.Bool
}

// origin is what a slot is of. It is apart from Slot, since a Slot of more than
// 32 bytes would make Admit slower by a fifth.
type origin struct {
	l    *Limiter
	give func(undo bool) // by Config.Shared; nil: it has nothing to give back
}

// Release gives the place back, and reports whether the slot held one until
// now. The connection no longer counts against MaxOpen, and no longer against
// Limit if the window that counted it has not ended, unless Config.Count is
// CountRequests. It still counts against MaxAttempts. Any goroutine may call
// Release.
func (s *Slot) Release() bool { return s.end(false) && s.told(false) }

// undo gives the place back as if it had not been admitted.
func (s *Slot) undo() { _ = s.end(true) && s.told(true) }

// told tells Config.Shared that the slot has given its place back.
func (s *Slot) told(undo bool) bool {
	if s.of.give != nil {
		s.of.give(undo)
		s.of.l.forget(s.key)
	}
	return true
}

func (s *Slot) end(undo bool) bool {
	if s.of == nil || !s.released.CompareAndSwap(false, true) {
		return false
	}
	l := s.of.l
	sh, place := l.shard(s.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	// A client with an open connection is never forgotten, so otherwise s is a
	// copy of a Slot that was released.
	c := sh.clients.find(s.key, place)
	if c == nil || c.open == 0 {
		return false
	}
	sh.clients.leave(c)
	if l.cfg.MaxTotal > 0 {
		l.total.Add(-1)
	}
	if c.start != s.start {
		return true
	}
	if c.counted > 0 && (undo || l.cfg.Count == CountConnections) {
		c.counted--
	}
	if undo {
		c.tries--
	}
	return true
}

// turn forgets in every shard what has expired. Each shard does so itself when
// it is used; turn also reaches shards that are not used.
func (l *Limiter) turn(at int64) {
	next := l.next.Load()
	if at < next {
		return
	}
	_, end := period(at, int64(l.cfg.Window))
	if l.cfg.Penalty.Failures > 0 {
		_, other := period(at, l.cfg.Penalty.memory())
		end = min(end, other)
	}
	if !l.next.CompareAndSwap(next, end) {
		return // another goroutine does it
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		s.turn(l, at)
		s.mu.Unlock()
	}
}

func (s *shard) turn(l *Limiter, at int64) {
	if at < s.next {
		return
	}
	if forgotten := s.clients.turn(at, int64(l.cfg.Window)); forgotten > 0 {
		l.keys.Add(-int64(forgotten))
	}
	s.next = s.clients.end
	if l.cfg.Penalty.Failures > 0 {
		begin, end := period(at, l.cfg.Penalty.memory())
		if forgotten := s.strikes.turn(begin, end); forgotten > 0 {
			l.strikes.Add(-int64(forgotten))
		}
		s.next = min(s.next, end)
	}
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
func (l *Limiter) Stats() Stats { return l.stats(l.now()) }

func (l *Limiter) stats(at int64) Stats {
	l.turn(at)
	open := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		open += s.clients.open
		s.mu.Unlock()
	}
	return Stats{
		Clients: int(l.keys.Load()),
		Open:    open,
		Failing: int(l.strikes.Load()),
		Blocks:  l.blocks.len(),
	}
}
