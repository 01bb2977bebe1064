// Package redislog shares a [history.Log] between processes, by Redis 7 or
// Valkey 8.
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}})
//	engine, err := redislog.New(redislog.Config{Client: client})
//	log, err := engine.Open(ctx, "room", history.Config{})
//
// Every process that opens the log of that name has the same entries, numbers
// and positions. A change is one script in the engine. It comes back to every
// process by one blocked XREAD, and readers then read it from memory, so a
// reader costs the engine nothing. Appends of many goroutines travel together.
//
// # Failures
//
// If the engine does not answer, readers read what the process has, and a
// change fails after Config.Timeout. An unanswered change is asked again under
// the same number, and is made once. If its answer never came, the error wraps
// [history.ErrUncertain].
//
// If a replica of the engine is promoted, or the engine restarts, a new line
// begins. Readers go on without a Reset up to the last entry that the new
// master has. A reader that has read an entry that it has not gets a Reset. An
// engine replicates asynchronously, so a promoted replica can lack the last
// entries, although their appends were acknowledged. An entry that this process
// has seen erased, and that a promoted replica brings back, is erased again
// before a reader sees it. An engine that has lost everything begins a new log.
//
// # At rest
//
// With Config.Keys, entries and notes are encrypted with AES-256-GCM before
// they reach the engine. The data key is random, and the engine keeps it
// encrypted with the first of Config.Keys. A Replace or a Clear makes a new
// data key and overwrites the old one. Copies that were made before, such as an
// older dump, a backup or an append-only file, still hold the encrypted old
// data key: only the holder of one of Config.Keys can read them. Run
// BGREWRITEAOF or BGSAVE after an erasure to drop it from the engine's files.
// A reader of the engine learns the counts, lengths and times of entries. A
// writer to the engine can drop, repeat or reorder entries, but cannot make or
// read one.
//
// # Engine
//
// The engine must be Redis 7.0, Valkey 7.2 or later, with the policy noeviction
// for its memory. A log has its keys in one slot of a cluster. The commands are
// EVALSHA, EVAL, XADD, XREAD, XRANGE, XTRIM, DEL, HSET, HDEL, HMGET, HGETALL,
// GET, SET, TIME, INFO and, with Config.Replicas, WAIT.
package redislog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
)

// ErrLost is what [Config].OnState gets if the engine has lost the
// log, and a new one has begun. All readers get a Reset.
var ErrLost = errors.New("redislog: the engine has lost the log, and a new one has begun")

// KeySize is the length of each of [Config.Keys], in bytes.
const KeySize = 32

// Config configures an [Engine]. Only Client is required.
type Config struct {
	// Client is the connection to the engine. The caller closes it, after the
	// logs.
	Client rueidis.Client
	// Prefix is the beginning of all keys. Empty means "history".
	Prefix string
	// Keys encrypt the entries: the first one is for new data keys, and all of
	// them open older ones. Without Keys, entries are stored as they are. All
	// processes need the same Keys.
	Keys [][]byte
	// Replicas is the number of replicas that must have an erasure before
	// Replace, Clear or Delete return, in 500 ms. If fewer have it, the error
	// wraps [history.ErrNotErased]: a failover within the next seconds may
	// bring back what was erased. 0 means that no call waits for a replica.
	Replicas int
	// Timeout is how long a change waits for its answer. 0 means 2 seconds.
	Timeout time.Duration
	// Check is the time between two looks at the state of the engine. A loss
	// that the engine does not tell is found after Check. 0 means 5 seconds.
	Check time.Duration
	// OnState, if not nil, is called with an error when a log can no longer
	// follow the engine, and with nil when it can again. If the engine has
	// lost a log, it is called with [ErrLost] and then with nil. It should not
	// block.
	OnState func(error)
}

// ConfigError is one problem of a [Config]. It never holds a value.
type ConfigError struct {
	Field  string // with its struct, such as "Config.Client"
	Reason error  // a [ConfigReason]
}

func (e *ConfigError) Error() string { return "redislog: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns Reason, so that [errors.Is] finds it.
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a [Config] is refused. The set is closed. It
// is an error, so that [errors.Is] finds it.
type ConfigReason string

// The reasons of a [ConfigError].
const (
	ConfigMissing  ConfigReason = "is required"
	ConfigNegative ConfigReason = "must not be negative"
	ConfigKeySize  ConfigReason = "must hold keys of 32 bytes"
)

func (r ConfigReason) Error() string { return string(r) }

// Engine opens logs that several processes share. It is safe for concurrent
// use.
type Engine struct {
	cfg Config

	mu   sync.Mutex
	down map[*origin]bool // the logs that cannot follow

	reloads, retries atomic.Uint64
	lag              atomic.Int64
}

// New returns an Engine. It does not connect to the engine. Its error joins a
// [*ConfigError] for each problem.
func New(cfg Config) (*Engine, error) {
	var errs []error
	refuse := func(bad bool, field string, reason ConfigReason) {
		if bad {
			errs = append(errs, &ConfigError{"Config." + field, reason})
		}
	}
	refuse(cfg.Client == nil, "Client", ConfigMissing)
	refuse(cfg.Replicas < 0, "Replicas", ConfigNegative)
	refuse(cfg.Timeout < 0, "Timeout", ConfigNegative)
	refuse(cfg.Check < 0, "Check", ConfigNegative)
	wrong := false
	for _, key := range cfg.Keys {
		wrong = wrong || len(key) != KeySize
	}
	refuse(wrong, "Keys", ConfigKeySize)
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "history"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Check == 0 {
		cfg.Check = 5 * time.Second
	}
	if cfg.OnState == nil {
		cfg.OnState = func(error) {}
	}
	return &Engine{cfg: cfg, down: make(map[*origin]bool)}, nil
}

// Open opens the log of this name, with cfg and this engine's Origin. If there
// is none, it begins one. If the engine does not answer, the error says so; try
// again later. All processes should open a log with the same limits.
func (e *Engine) Open(ctx context.Context, name string, cfg history.Config) (*history.Log, error) {
	cfg.Origin = e.origin(name, cfg)
	return history.Open(ctx, cfg)
}

// Stats are the figures of an [Engine].
type Stats struct {
	Down    bool          // a log cannot follow the engine
	Lag     time.Duration // the age of the newest entry when this process got it
	Reloads uint64        // how often a log was loaded as a whole, after the first time
	Retries uint64        // changes that were asked again, since no answer came
}

// Stats returns the figures of the Engine.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	down := len(e.down) > 0
	e.mu.Unlock()
	return Stats{down, time.Duration(e.lag.Load()), e.reloads.Load(), e.retries.Load()}
}

// state tells the caller if o can follow, unless it knows.
func (e *Engine) state(o *origin, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := len(e.down) > 0
	if err != nil {
		e.down[o] = true
	} else {
		delete(e.down, o)
	}
	if now := len(e.down) > 0; now != before {
		e.cfg.OnState(err)
	}
}

// origin is one log of an Engine.
type origin struct {
	e      *Engine
	limits [3]string      // Keep, TrimAt, MaxBytes
	cfg    history.Config // of the log
	seal   *sealer

	head, log, record, pinned string // keys of the engine

	ctx  context.Context // ends with the log
	stop context.CancelFunc
	work sync.WaitGroup // the goroutines that make changes

	// Under mu: the changes that wait, and whether a goroutine makes them.
	mu      sync.Mutex
	queue   []*request
	running bool
	number  uint64 // of the last change of this process
	trim    uint64 // entries up to here are too old
	trimmed uint64

	follow follower
}

func (e *Engine) origin(name string, cfg history.Config) *origin {
	if cfg.Keep == 0 {
		cfg.Keep = 1000
	}
	if cfg.TrimAt == 0 {
		cfg.TrimAt = cfg.Keep + cfg.Keep/5
	}
	tag := "{" + e.cfg.Prefix + ":" + name + "}"
	o := &origin{
		e: e, cfg: cfg, seal: newSealer(e.cfg.Keys, e.cfg.Prefix, name),
		limits: [3]string{strconv.Itoa(cfg.Keep), strconv.Itoa(cfg.TrimAt), strconv.FormatInt(cfg.MaxBytes, 10)},
		head:   tag + ":head", log: tag + ":log", record: tag + ":w:" + rand.Text(), pinned: tag + ":pins",
	}
	o.ctx, o.stop = context.WithCancel(context.Background())
	o.follow.asked = make(chan struct{}, 1)
	o.follow.key = o.seal.fresh() // of the log, if this process begins it
	return o
}

// newLine returns the random name of a line, as the scripts write it.
func newLine() string {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:])
		if id := binary.LittleEndian.Uint64(b[:]); id != 0 {
			return strconv.FormatUint(id, 10)
		}
	}
}

// Close implements [history.Origin].
func (o *origin) Close() error {
	o.stop()
	o.work.Wait()
	o.e.state(o, nil)
	return nil
}
