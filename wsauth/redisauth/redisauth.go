// Package redisauth shares a [wsauth.Gate] and the families of refresh tokens
// between processes, by Redis 7 or Valkey 8.
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}})
//	shared, err := redisauth.New(redisauth.Config{Client: client, Key: key})
//	defer shared.Close()
//	gate, err := wsauth.New(wsauth.Config{Verifier: tokens, Shared: shared})
//	go gate.Run(ctx)
//	issuer, err := refresh.New(refresh.Config{Signer: tokens, Store: shared.Families(), Key: key})
//
// Every process with the same engine, Prefix and Key is a node. A revocation,
// or the end of a session, is one script in the engine, and reaches every node
// by one blocked XREAD. Tokens are verified locally: a message of a publisher
// never asks the engine.
//
// # Failures
//
// If the engine does not answer, sessions are counted on each node alone, a
// revocation is in force on its node and returns an error, and a refresh fails
// with a [*wsauth.UnavailableError]. After [wsauth.Config].MaxStale, publishers
// wait. When a node reaches the engine again, it first loads all revocations,
// and then gives the engine those that the engine lacks. So a revocation that a
// failover has lost comes back from any node that knew it, and so does one that
// was made while the engine was away. A family that was revoked, and that a
// failover brings back, is removed again.
//
// A node holds a lease, and renews it every second. If a node dies, its
// sessions do not count any more when the lease is over. A node that was paused
// for longer adds its sessions again. Leases, and the order of sessions, follow
// the engine's clock.
//
// A rotation of a refresh token that a failover loses is not taken for a theft
// if [refresh.Config].Key is set. With Config.Replicas, a rotation also waits
// until replicas have it.
//
// # At rest
//
// The names of devices, and everything about sessions and families, are
// encrypted with AES-256-GCM before they reach the engine. In names of keys, a
// device is an HMAC-SHA256. A reader of the engine learns the counts, times and
// random IDs of sessions and families. A writer to the engine can end sessions
// and families and can bring back an older state, but cannot make a revocation,
// a session or a family. What does not open with Config.Key is an error: the
// nodes then stop to authorize.
//
// # Engine
//
// The engine must be Redis 7.0, Valkey 7.2 or later, with the policy noeviction
// for its memory, and the client must not send reads to replicas. All keys are
// in one slot of a cluster. A user of the engine needs the keys {PREFIX}:* and
// the commands EVALSHA, EVAL, XREAD, XADD, TIME, DEL, PEXPIRE, PEXPIREAT, HGET,
// HGETALL, HKEYS, HSET, HDEL, HINCRBY, ZADD, ZREM, ZSCORE, ZCARD, ZRANGE,
// ZREMRANGEBYSCORE and, with Config.Replicas, WAIT.
package redisauth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/wsauth"
)

// ErrLost is what [Config].OnState gets if the engine has lost its data. The
// nodes give it their revocations and sessions again. The families of refresh
// tokens are lost, so devices need new pairs.
var ErrLost = errors.New("redisauth: the engine has lost its data, and with them all refresh tokens")

// KeySize is the length of [Config].Key, in bytes.
const KeySize = 32

// minLease is the least Config.Lease: it is renewed every second.
const minLease = 3 * time.Second

// Config configures an [Authority]. Client and Key are required.
type Config struct {
	// Client is the connection to the engine. The caller closes it, after the
	// Authority.
	Client rueidis.Client
	// Prefix is the beginning of all keys, in braces. Empty means "auth".
	Prefix string
	// Key encrypts what the engine keeps, and has 32 bytes. All nodes need the
	// same Key.
	Key []byte
	// Node is the name of this process in lists of sessions. Empty means a
	// random name.
	Node string
	// Lease is how long the sessions of a node count after its death, by the
	// engine's clock. It is at least 3 seconds. 0 means 15 seconds.
	Lease time.Duration
	// Timeout is how long a call waits for the engine. 0 means 2 seconds.
	Timeout time.Duration
	// Replicas is the number of replicas that must have a rotation or a
	// revocation of refresh tokens within 500 ms. If fewer have it, the
	// rotation returns an error, and the client gets its new pair when it asks
	// again. 0 means that no call waits for a replica.
	Replicas int
	// MaxFamilies is the maximum number of families of refresh tokens, of about
	// a kilobyte each in the engine. 0 means 10,000.
	MaxFamilies int
	// OnState, if not nil, is called with an error when this node can no longer
	// follow the engine, and with nil when it can again. If the engine has lost
	// its data, it is called with [ErrLost] and then with nil. It should not
	// block.
	OnState func(error)
}

// ConfigError is one problem of a [Config]. It never contains a value.
type ConfigError struct {
	// Field is the field with its struct, such as "Config.Client".
	Field string
	// Reason is a [wsauth.ConfigReason].
	Reason error
}

func (e *ConfigError) Error() string { return "redisauth: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// Authority is a [wsauth.Shared] in an engine. It is safe for concurrent use.
type Authority struct {
	cfg  Config
	seal *sealer
	node string // the random name of this process in the engine
	keys keys

	ctx       context.Context // ends with Close
	stop      context.CancelFunc
	following sync.Mutex     // held by Follow
	work      sync.WaitGroup // the goroutine of the roster

	ledger  ledger
	roster  roster
	removed removed

	down    atomic.Pointer[error] // why Follow cannot follow; nil if it can
	lapsed  atomic.Bool           // a Join found that the lease was over
	skew    atomic.Int64          // the engine's clock less that of this process, in µs
	nodes   atomic.Int64
	reloads atomic.Uint64
}

// keys are the names of keys in the engine.
type keys struct {
	tag string // the beginning of all of them

	head     string // hash: id of the data, seq of the last event
	events   string // stream: what changed; the id of an event is SEQ-0
	nodes    string // sorted set: nodes, by the end of their lease in µs
	revoked  string // hash: HMAC of a device, sealed record
	ends     string // hash: session that was ended, reason and time in µs
	own      string // hash: sessions of this node, sealed
	families string // sorted set: IDs of families, by the end of their validity in ms
}

func newKeys(prefix, node string) keys {
	k := keys{tag: "{" + prefix + "}:"}
	k.head, k.events, k.nodes, k.revoked = k.tag+"head", k.tag+"events", k.tag+"nodes", k.tag+"revoked"
	k.ends, k.own, k.families = k.tag+"ends", k.of(node), k.tag+"families"
	return k
}

// of returns the key of a node's sessions.
func (k *keys) of(node string) string { return k.tag + "n:" + node }

// family returns the key of a family, a hash of its generation and its content.
func (k *keys) family(id string) string { return k.tag + "f:" + id }

// New returns an Authority. It does not connect to the engine. Its error joins
// a [*ConfigError] for each problem.
func New(cfg Config) (*Authority, error) {
	var errs []error
	refuse := func(bad bool, field string, reason wsauth.ConfigReason) {
		if bad {
			errs = append(errs, &ConfigError{"Config." + field, reason})
		}
	}
	refuse(cfg.Client == nil, "Client", wsauth.ConfigMissing)
	refuse(strings.ContainsAny(cfg.Prefix, "{}"), "Prefix", wsauth.ConfigMalformed)
	refuse(len(cfg.Key) == 0, "Key", wsauth.ConfigMissing)
	refuse(len(cfg.Key) > 0 && len(cfg.Key) < KeySize, "Key", wsauth.ConfigTooShort)
	refuse(len(cfg.Key) > KeySize, "Key", wsauth.ConfigTooLong)
	refuse(cfg.Lease < 0, "Lease", wsauth.ConfigNegative)
	refuse(cfg.Lease > 0 && cfg.Lease < minLease, "Lease", wsauth.ConfigTooShort)
	refuse(cfg.Timeout < 0, "Timeout", wsauth.ConfigNegative)
	refuse(cfg.Replicas < 0, "Replicas", wsauth.ConfigNegative)
	refuse(cfg.MaxFamilies < 0, "MaxFamilies", wsauth.ConfigNegative)
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "auth"
	}
	if cfg.Lease == 0 {
		cfg.Lease = 15 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.MaxFamilies == 0 {
		cfg.MaxFamilies = 10_000
	}
	if cfg.OnState == nil {
		cfg.OnState = func(error) {}
	}
	node := rand.Text()
	if cfg.Node == "" {
		cfg.Node = node[:8]
	}
	a := &Authority{cfg: cfg, seal: newSealer(cfg.Key, cfg.Prefix), node: node, keys: newKeys(cfg.Prefix, node)}
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.ledger.entries = make(map[string]*entry)
	a.roster.init()
	return a, nil
}

// Close ends Follow, and gives up the lease and the sessions of this node, so
// that they do not count any more. It takes a second at most. If the engine
// does not answer, it returns an error, and the lease ends by itself.
func (a *Authority) Close() error {
	a.roster.close()
	a.stop()
	a.following.Lock()
	defer a.following.Unlock()
	a.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c := a.cfg.Client
	// The lease first: without it, no session of this node counts.
	farewell := append([]rueidis.Completed{
		c.B().Zrem().Key(a.keys.nodes).Member(a.node).Build(), c.B().Del().Key(a.keys.own).Build(),
	}, a.roster.farewell(c)...)
	return failed(a.pipeline(ctx, c, farewell))
}

// Stats are the figures of an [Authority].
type Stats struct {
	Down    bool   // this node cannot follow the engine
	Nodes   int    // that had a lease when this one was renewed, with this one
	Reloads uint64 // how often everything was loaded, after the first time
}

// Stats returns the figures of the Authority.
func (a *Authority) Stats() Stats {
	return Stats{a.down.Load() != nil, int(a.nodes.Load()), a.reloads.Load()}
}

// engineNow returns the time of the engine's clock in µs, as far as this node
// knows it.
func (a *Authority) engineNow() int64 { return time.Now().UnixMicro() + a.skew.Load() }

// ready returns an error if it is known that the engine does not answer, so
// that no caller waits for it.
func (a *Authority) ready() error {
	if a.ctx.Err() != nil {
		return errClosed
	}
	if why := a.down.Load(); why != nil {
		return fmt.Errorf("redisauth: the engine is away: %w", *why)
	}
	return nil
}

var (
	errClosed = errors.New("redisauth: the Authority is closed")
	errReply  = errors.New("redisauth: the engine's keys hold data of another program")
)

// answerIn returns the engine's own error in err. In contrast to
// rueidis.IsRedisErr, it looks into wrapped errors.
func answerIn(err error) (*rueidis.RedisError, bool) {
	answer, ok := errors.AsType[*rueidis.RedisError](err)
	return answer, ok && answer != rueidis.Nil
}

// failed says what the error of a call means.
func failed(err error) error {
	if err == nil {
		return nil
	}
	if answer, ok := answerIn(err); ok {
		return fmt.Errorf("redisauth: the engine refuses: %w", answer)
	}
	return fmt.Errorf("redisauth: the engine does not answer: %w", err)
}
