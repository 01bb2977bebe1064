// Package redislimit makes several processes count their clients together, by
// Redis 7 or Valkey 8. It implements [ratelimit.Shared].
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}})
//	shared, err := redislimit.New(redislimit.Config{Client: client, Key: key})
//	limiter, err := ratelimit.New(ratelimit.Config{Shared: shared})
//	// When the server has ended:
//	err = shared.Close()
//
// Every process with the same engine, Prefix and Key is a node. One script in
// the engine decides about a connection, by the clock of the engine: its
// client's penalty, open connections, attempts and window. What a node refuses
// by its own count never reaches the engine. A client over its limit asks the
// engine once a second and node.
//
// Decisions that wait for others under way travel together, 64 at most, and one
// script makes them. With 64 in flight, a node decides at 0.65 to 1.1 of the
// rate of bare GETs, and one at a time at 0.5 to 0.88, the more the faster the
// machine is (BenchmarkDecision). In a cluster, each decision is a script of its
// own.
//
// A node holds a lease, and renews it. If a node dies, its open connections do
// not count any more when the lease is over. A node that was paused for longer
// adds its connections again.
//
// Blocks and penalties reach every node within a second. There,
// [ratelimit.Config].OnShared can end open connections.
//
// # Failures
//
// If the engine does not answer within Timeout, or answers with an error, the
// node decides alone, and [ratelimit.Decision].Local is set. Its decisions then
// do not wait for the engine until the engine answers again, and not for a
// second at least. So of each second, Timeout at most is waited. Meanwhile a
// client can reach each limit once on every node. A block is in force on its
// node, and [ratelimit.Limiter.Block] returns an error.
//
// When the engine is back, every node declares its open connections, and the
// blocks and penalties of all nodes and of the engine are merged: of two
// changes of a network, the newer one counts. So an engine that has lost its
// data gets them back. The windows of clients are then lost.
//
// A node whose clock is wrong by more than two seconds ends blocks at the same
// moment as the others.
//
// # At rest
//
// A client is an HMAC-SHA256 in the engine. Blocks and penalties are encrypted
// with AES-256-GCM. A reader of the engine learns the counts and times of
// clients that it cannot name. A writer to the engine can change counts, and
// can drop or repeat blocks and the ends of blocks, but cannot make one of a
// network that never had one. If a block does not open with Config.Key, the
// node decides alone and tells Config.OnState.
//
// A client takes at most 160 bytes of the engine (MEMORY USAGE) while one node
// has connections of it, and 8 more for each further node. The engine's own
// tables take some 50 to 80 more. A client is forgotten when its window has
// ended and its connections too. If a node dies, its clients are forgotten
// after an hour.
//
// # Engine
//
// The engine must be Redis 7.0, Valkey 7.2 or later, and the client must not
// send reads to replicas. In a cluster, each client has a slot of its own. A
// user of the engine needs the keys PREFIX:* and the commands EVALSHA, EVAL,
// TIME, GET, SET, DEL, HMGET, HGET, HSET, HDEL, ZADD, ZREM, ZRANGE, ZSCORE,
// ZCARD, ZCOUNT and ZREMRANGEBYSCORE.
package redislimit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/ratelimit"
)

// ErrLost is what [Config].OnState gets if the engine has lost its data. The
// nodes give it their blocks, penalties and open connections again.
var ErrLost = errors.New("redislimit: the engine has lost its data, and every client begins a new window")

// lostData is ErrLost as Limits.away.
var lostData = ErrLost

// KeySize is the length of [Config].Key, in bytes.
const KeySize = 32

const (
	// meetEvery is the time between two meetings with the engine, which renew
	// the lease and bring the changes of other nodes.
	meetEvery = 400 * time.Millisecond
	// notice is how long it takes until all nodes know that a lease has ended.
	notice = meetEvery + 100*time.Millisecond
	// skipFor is how long the engine is not asked after it has failed.
	skipFor = time.Second
	// minLease is the least Config.Lease.
	minLease = 2 * time.Second
)

// Config configures [Limits]. Client and Key are required.
type Config struct {
	// Client is the connection to the engine. The caller closes it, after the
	// Limits.
	Client rueidis.Client
	// Prefix is the beginning of all keys, without braces. Empty means "limit".
	// Each Limiter of a process needs a Prefix of its own.
	Prefix string
	// Key makes clients and blocks unreadable in the engine, and has 32 bytes.
	// All nodes need the same Key.
	Key []byte
	// Lease is how long the open connections of a node count after its death,
	// by the engine's clock. It is at least 2 seconds. 0 means 15 seconds.
	Lease time.Duration
	// Timeout is how long a decision waits for the engine. 0 means 250 ms.
	Timeout time.Duration
	// OnState, if not nil, is called with an error when this node begins to
	// decide alone, and with nil when it no longer does. If the engine has lost
	// its data, it is called with [ErrLost] and then with nil. It should not
	// block.
	OnState func(error)
}

// ConfigError is one problem of a [Config]. It never contains a value.
type ConfigError struct {
	Field  string // with its struct, such as "Config.Client"
	Reason error  // a [ratelimit.ConfigReason]
}

func (e *ConfigError) Error() string { return "redislimit: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// Limits are the limits of all nodes. Set them as [ratelimit.Config].Shared of
// one Limiter. Limits are safe for concurrent use.
type Limits struct {
	cfg    Config
	seal   *sealer
	tag    string // the beginning of what all nodes know
	shared []string
	began  time.Time
	wrong  time.Duration // by how much a test makes the clock of the process wrong

	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	follow sync.Once
	work   sync.WaitGroup // the goroutine that Follow starts
	apply  func(ratelimit.SharedChange)
	met    chan struct{} // closed after the first meeting
	wake   chan struct{} // there is something to tell the engine

	offset atomic.Int64 // the engine's clock less the time since began, in µs
	alone  atomic.Uint64

	states sync.Mutex            // for changes of away, and OnState
	away   atomic.Pointer[error] // why the engine is not asked; nil: it is
	since  time.Time             // when that began

	queue   sync.Mutex // for waiting and flights
	waiting []*decision
	flights int // scripts of decisions under way

	mu      sync.Mutex
	view    *view
	clients map[string]*client     // those that this node must tell of, by key
	changed map[*client]bool       // those that have given connections back
	unsure  map[*client]bool       // those whose number the engine may not have
	forgive map[string]bool        // keys of failures to remove
	records map[string]*record     // by name
	pardons map[netip.Prefix]int64 // when the networks were unblocked, in µs
	keep    time.Duration          // how long an end of blocks is kept
}

// New returns Limits. It does not connect to the engine. Its error joins a
// [*ConfigError] for each problem. [ratelimit.New] starts a goroutine of the
// Limits, which Close ends.
func New(cfg Config) (*Limits, error) {
	var errs []error
	refuse := func(bad bool, field string, reason ratelimit.ConfigReason) {
		if bad {
			errs = append(errs, &ConfigError{"Config." + field, reason})
		}
	}
	refuse(cfg.Client == nil, "Client", ratelimit.ConfigMissing)
	refuse(strings.ContainsAny(cfg.Prefix, "{}"), "Prefix", ratelimit.ConfigMalformed)
	refuse(len(cfg.Key) == 0, "Key", ratelimit.ConfigMissing)
	refuse(len(cfg.Key) > 0 && len(cfg.Key) < KeySize, "Key", ratelimit.ConfigTooSmall)
	refuse(len(cfg.Key) > KeySize, "Key", ratelimit.ConfigTooLarge)
	refuse(cfg.Lease < 0 || cfg.Lease > 0 && cfg.Lease < minLease, "Lease", ratelimit.ConfigTooSmall)
	refuse(cfg.Timeout < 0, "Timeout", ratelimit.ConfigTooSmall)
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "limit"
	}
	if cfg.Lease == 0 {
		cfg.Lease = 15 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 250 * time.Millisecond
	}
	if cfg.OnState == nil {
		cfg.OnState = func(error) {}
	}
	l := &Limits{
		cfg: cfg, seal: newSealer(cfg.Key, cfg.Prefix), began: time.Now(), keep: minKeep,
		met: make(chan struct{}), wake: make(chan struct{}, 1), view: &view{number: "0", version: "0"},
		clients: make(map[string]*client), changed: make(map[*client]bool), unsure: make(map[*client]bool),
		forgive: make(map[string]bool), records: make(map[string]*record), pardons: make(map[netip.Prefix]int64),
	}
	l.tag = cfg.Prefix + ":{" + cfg.Prefix + "}:"
	l.shared = []string{l.tag + "head", l.tag + "nodes", l.tag + "records", l.tag + "order", l.tag + "ends"}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.offset.Store(l.began.UnixMicro())
	return l, nil
}

// Stats are the figures of [Limits].
type Stats struct {
	Down  bool   // this node decides alone now
	Nodes int    // that have a lease, with this one; 0 before the engine has answered
	Alone uint64 // decisions that this node made alone, since the engine did not answer
}

// Stats returns the figures of the Limits.
func (l *Limits) Stats() Stats {
	l.mu.Lock()
	v := l.view
	l.mu.Unlock()
	return Stats{l.away.Load() != nil, v.nodes, l.alone.Load()}
}

// Close gives up the lease and the open connections of this node, so that they
// do not count any more. It takes about a second at most. If the engine does
// not answer, it returns an error, and the lease ends by itself. The Limiter
// then decides alone.
func (l *Limits) Close() error {
	l.stop()
	l.work.Wait()
	if why := l.away.Load(); why != nil {
		return *why
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l.mu.Lock()
	number := l.view.number
	calls := []call{}
	for c := range l.clients {
		calls = append(calls, l.farewell(l.clients[c])...)
	}
	clear(l.clients)
	clear(l.changed)
	clear(l.unsure)
	l.mu.Unlock()
	if number == "0" {
		return nil
	}
	// The lease first: without it, no connection of this node counts.
	c := l.cfg.Client
	if err := c.Do(ctx, c.B().Zrem().Key(l.shared[1]).Member(number).Build()).Error(); err != nil {
		return failed(err)
	}
	return failed(errors.Join(pipeline(ctx, c, calls)...))
}

// engineNow returns the time of the engine's clock in µs, as far as this node
// knows it.
func (l *Limits) engineNow() int64 { return l.offset.Load() + time.Since(l.began).Microseconds() }

// wall returns the time by the clock of this process.
func (l *Limits) wall() time.Time { return time.Now().Add(l.wrong) }

// sameClock is by how much two clocks may differ that are taken as the same.
const sameClock = 2_000_000

// shift returns by how much the engine's clock is ahead of this process's, in
// µs, or 0 if it is about the same.
func (l *Limits) shift() int64 {
	d := l.engineNow() - l.wall().UnixMicro()
	if -sameClock < d && d < sameClock {
		return 0
	}
	return d
}

// toEngine returns a time in µs of the engine's clock. The zero time is 0.
func (l *Limits) toEngine(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, t.UnixMicro()+l.shift())
}

// fromEngine is the reverse of toEngine.
func (l *Limits) fromEngine(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.UnixMicro(at - l.shift())
}

var (
	errClosed = errors.New("redislimit: the Limits are closed")
	errReply  = errors.New("redislimit: the engine's keys hold data of another program")
)

// ready returns an error if the engine must not be asked now. It waits for the
// first meeting.
func (l *Limits) ready(ctx context.Context) error {
	if l.ctx.Err() != nil {
		return errClosed
	}
	if why := l.away.Load(); why != nil {
		return fmt.Errorf("redislimit: the engine is away: %w", *why)
	}
	select {
	case <-l.met:
		return nil
	default:
	}
	select {
	case <-l.met:
		return nil
	case <-l.ctx.Done():
		return errClosed
	case <-ctx.Done():
		return failed(ctx.Err())
	}
}

// readyBy is ready until a deadline. It makes a context only to wait.
func (l *Limits) readyBy(deadline time.Time) error {
	select {
	case <-l.met:
		return l.ready(context.Background())
	default:
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	return l.ready(ctx)
}

// lost notes that the engine has failed.
func (l *Limits) lost(err error) error {
	err = failed(err)
	l.states.Lock()
	defer l.states.Unlock()
	if l.away.Load() == nil {
		l.since = time.Now()
		l.away.Store(&err)
		if l.ctx.Err() == nil {
			l.cfg.OnState(err)
		}
	}
	return err
}

// back notes that the engine answers.
func (l *Limits) back() {
	l.states.Lock()
	defer l.states.Unlock()
	if l.away.Load() != nil && time.Since(l.since) >= skipFor {
		if time.Since(l.since) >= 2*skipFor {
			// A failover may have lost what was counted last.
			l.mu.Lock()
			l.declare()
			l.mu.Unlock()
		}
		l.away.Store(nil)
		l.cfg.OnState(nil)
	}
}

// failed says what the error of a call means.
func failed(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errReply) || errors.Is(err, errSealed) {
		return err
	}
	if answer, ok := errors.AsType[*rueidis.RedisError](err); ok {
		return fmt.Errorf("redislimit: the engine refuses: %w", answer)
	}
	return fmt.Errorf("redislimit: the engine does not answer: %w", err)
}

// dataID returns a random name of the engine's data.
func dataID() string { return rand.Text() }
