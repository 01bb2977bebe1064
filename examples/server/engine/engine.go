// Package engine connects the server to its engine, Redis or Valkey, over which
// several servers act as one.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
	"github.com/relayguard/relayguard/wsauth/redisauth"
)

// logName returns the name of the log of a room that all servers share.
func logName(room string) string {
	if room == "" {
		return "history"
	}
	return "room:" + room
}

const (
	bufferSize = 16 << 10

	dialWait  = 2 * time.Second
	firstWait = 100 * time.Millisecond // before the second try to reach the engine
	longWait  = 2 * time.Second        // before each of the later ones
	repeat    = time.Minute            // until the same reason for waiting is logged again
)

// Config configures an [Engine]. URL and one of Keys and Secrets are required.
type Config struct {
	URL      string   // as [Parse] reads it
	Prefix   string   // the beginning of all keys in the engine
	Keys     [][]byte // the first encrypts the history, all of them decrypt it; see [redislog.Config]
	Secrets  [][]byte // take the place of Keys for everything but the history, if there are no Keys
	Replicas int      // that must have an erasure or a rotation before it is reported as done
	Node     string   // the name of this server in logs and lists

	// Log gets a line when the engine does not answer, and when it does again.
	Log *slog.Logger
	// Check and Timeout are those of [redislog.Config].
	Check, Timeout time.Duration
}

// Engine is the connection to the engine. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	option rueidis.ClientOption
	id     string // of this process among those that count viewers

	mu     sync.Mutex
	client rueidis.Client // nil before the first answer

	shared atomic.Pointer[shared] // nil before the first answer

	// Under away: which of the parts cannot follow the engine. The outage is
	// logged as long as there are any.
	away sync.Mutex
	down map[string]bool
}

// shared are the parts of an engine, and the secret from which their keys are
// derived.
type shared struct {
	root []byte
	logs *redislog.Engine
	auth *redisauth.Authority

	connections, tokens *redislimit.Limits
}

// New returns an Engine. It does not connect.
func New(cfg Config) (*Engine, error) {
	o, err := Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL %w", err)
	}
	if len(cfg.Keys)+len(cfg.Secrets) == 0 {
		return nil, errors.New("REDIS_URL needs HISTORY_KEY")
	}
	o.Dialer = net.Dialer{Timeout: dialWait}
	o.Sentinel.Dialer = o.Dialer
	o.DisableCache = true // nothing is read twice
	// Each history has a connection of its own, and there can be a thousand of
	// them: the client's defaults take a megabyte for each.
	o.ReadBufferEachConn, o.WriteBufferEachConn, o.RingScaleEachConn = bufferSize, bufferSize, 8
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, option: o, id: rand.Text(), down: make(map[string]bool)}, nil
}

// Open opens the history of a room that all servers share, or of the only
// conversation if room is empty. While the engine does not answer, Open logs
// that, and tries again until ctx ends. It does not try again if the engine has
// data that the keys do not open.
func (e *Engine) Open(ctx context.Context, room string, keeps history.Config) (log *history.Log, err error) {
	err = e.retry(ctx, func() error {
		s, err := e.connected(ctx)
		if err == nil {
			log, err = s.logs.Open(ctx, logName(room), keeps)
		}
		return err
	})
	return log, err
}

// Authority returns what the gates of all servers share. It waits for the
// engine as [Engine.Open] does.
func (e *Engine) Authority(ctx context.Context) (auth *redisauth.Authority, err error) {
	err = e.retry(ctx, func() error {
		s, err := e.connected(ctx)
		if err == nil {
			auth = s.auth
		}
		return err
	})
	return auth, err
}

// Limits returns what the limiters of all servers share: that of connections,
// and that of wrong tokens. Both are nil before the engine has answered. Each
// is for one limiter.
func (e *Engine) Limits() (connections, tokens ratelimit.Shared) {
	if s := e.shared.Load(); s != nil {
		return s.connections, s.tokens
	}
	return nil, nil
}

func (e *Engine) retry(ctx context.Context, do func() error) error {
	var told string
	var since time.Time
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		err := do()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errSealed) && len(e.cfg.Keys) == 0:
			return fmt.Errorf("JWT_SECRET does not open what the other servers keep in the engine: set it to the same on all servers, and JWT_SECRET_PREVIOUS to the one before (%w)", err)
		case errors.Is(err, redislog.ErrSealed), errors.Is(err, errSealed):
			return fmt.Errorf("HISTORY_KEY does not open the history in the engine: set HISTORY_KEY to the key that all servers have, or set HISTORY_KEY_PREVIOUS to that key if you changed it; if that key is lost, the history is lost: set REDIS_PREFIX to a new name (%w)", err)
		case ctx.Err() != nil:
			return fmt.Errorf("the engine cannot be used (%w)", err)
		}
		if text := err.Error(); text != told || time.Since(since) > repeat {
			e.cfg.Log.Warn("the engine cannot be used yet; the server waits for it", "error", err)
			told, since = text, time.Now()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("the engine cannot be used (%w)", err)
		}
	}
}

// connected returns the parts, and makes them if the engine answers.
func (e *Engine) connected(ctx context.Context) (*shared, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.shared.Load(); s != nil {
		return s, nil
	}
	var s shared
	if s.root, err = e.rootKey(ctx, client); err != nil {
		return nil, err
	}
	s.logs, err = redislog.New(redislog.Config{
		Client: client, Prefix: e.cfg.Prefix, Keys: e.cfg.Keys, Replicas: e.cfg.Replicas,
		Check: e.cfg.Check, Timeout: e.cfg.Timeout, OnState: func(err error) { e.state("history", err) },
	})
	if err != nil {
		return nil, err
	}
	s.auth, err = redisauth.New(redisauth.Config{
		Client: client, Prefix: e.cfg.Prefix + ":auth", Key: s.key(labelAuth), Replicas: e.cfg.Replicas,
		Node: e.cfg.Node, Timeout: e.cfg.Timeout, OnState: func(err error) { e.state("sessions", err) },
	})
	if err != nil {
		return nil, err
	}
	for _, l := range []struct {
		into        **redislimit.Limits
		name, label string
	}{{&s.connections, "connections", labelConnections}, {&s.tokens, "tokens", labelTokens}} {
		*l.into, err = redislimit.New(redislimit.Config{
			Client: client, Prefix: e.cfg.Prefix + ":" + l.name, Key: s.key(l.label), OnState: func(err error) { e.alone(l.name, err) },
		})
		if err != nil {
			return nil, err
		}
	}
	e.shared.Store(&s)
	return &s, nil
}

// connect returns the client, and makes it if the engine answers.
func (e *Engine) connect(ctx context.Context) (rueidis.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil {
		return e.client, nil
	}
	type result struct {
		client rueidis.Client
		err    error
	}
	// NewClient takes no context, and returns within a few times dialWait.
	made := make(chan result, 1)
	go func() {
		client, err := rueidis.NewClient(e.option)
		made <- result{client, err}
	}()
	select {
	case r := <-made:
		if r.err != nil {
			return nil, r.err
		}
		e.client = r.client
		return e.client, nil
	case <-ctx.Done():
		go func() {
			if r := <-made; r.err == nil {
				r.client.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// state logs that a part cannot follow the engine, or that all can again.
func (e *Engine) state(part string, err error) {
	e.away.Lock()
	defer e.away.Unlock()
	before := len(e.down) > 0
	switch {
	case errors.Is(err, redislog.ErrLost):
		e.cfg.Log.Error("the engine has lost the history; a new one begins, and viewers get what is published from now on", "node", e.cfg.Node)
		go e.putBack()
	case errors.Is(err, redisauth.ErrLost):
		e.cfg.Log.Error("the engine has lost all refresh tokens: make new pairs for the devices; the revocations that this server knows are given back", "node", e.cfg.Node)
		go e.putBack()
	case err != nil:
		e.down[part] = true
		if !before {
			what := "the engine is away; viewers are served from memory, and publishers wait"
			if errors.Is(err, redislog.ErrSealed) {
				what = "another server has encrypted the history with a key that this one lacks; viewers are served from memory, and publishers wait"
			}
			e.cfg.Log.Error(what, "node", e.cfg.Node, "error", err)
		}
	default:
		delete(e.down, part)
		if before && len(e.down) == 0 {
			e.cfg.Log.Info("the engine is back", "node", e.cfg.Node)
		}
	}
}

// alone logs that this server alone counts clients, or that all do again. A
// decision waits for the engine so shortly that this is no outage yet.
func (e *Engine) alone(what string, err error) {
	switch {
	case errors.Is(err, redislimit.ErrLost): // the history tells it
	case err != nil:
		e.cfg.Log.Warn("limits are counted by this server alone, since the engine does not answer at once", "of", what, "node", e.cfg.Node, "error", err)
	default:
		e.cfg.Log.Info("limits are counted by all servers together", "of", what, "node", e.cfg.Node)
	}
}

// Stats are the figures of an [Engine].
type Stats struct {
	Away    bool          // this server cannot follow the engine
	Lag     time.Duration // the age of the newest message when it came from the engine
	Reloads uint64        // of the history as a whole, after the first time
	Retries uint64        // changes of the history that were asked again
	Nodes   int           // servers that share the engine, this one included
	Alone   uint64        // connections that this server alone has counted
}

// Stats returns the figures.
func (e *Engine) Stats() Stats {
	stats := Stats{Away: e.Away()}
	if s := e.shared.Load(); s != nil {
		l := s.logs.Stats()
		stats.Lag, stats.Reloads, stats.Retries = l.Lag, l.Reloads, l.Retries
		stats.Nodes, stats.Alone = s.auth.Stats().Nodes, s.connections.Stats().Alone
	}
	return stats
}

// Away reports whether the server cannot follow the engine.
func (e *Engine) Away() bool {
	e.away.Lock()
	defer e.away.Unlock()
	return len(e.down) > 0
}

// Close gives up what this server holds in the engine, and closes the
// connections. The history must be closed before.
func (e *Engine) Close() {
	if s := e.shared.Load(); s != nil {
		// Each takes a second at most. If one fails, its lease ends by itself.
		var all sync.WaitGroup
		for _, part := range []io.Closer{s.auth, s.connections, s.tokens} {
			all.Go(func() { _ = part.Close() })
		}
		all.Wait()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil {
		e.client.Close()
	}
}

// Encrypted reports whether the connections use TLS, or do not leave the
// machine.
func (e *Engine) Encrypted() bool {
	if e.option.TLSConfig != nil {
		return true
	}
	for _, addr := range e.option.InitAddress {
		host, _, _ := net.SplitHostPort(addr)
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}
