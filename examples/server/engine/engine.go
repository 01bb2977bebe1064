// Package engine connects the server to its engine, Redis or Valkey, over which
// several servers act as one.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
)

// room is the name of the log that all servers share.
const room = "history"

const (
	dialWait  = 2 * time.Second
	firstWait = 100 * time.Millisecond // before the second try to reach the engine
	longWait  = 2 * time.Second        // before each of the later ones
	repeat    = time.Minute            // until the same reason for waiting is logged again
)

// Config configures an [Engine]. URL is required.
type Config struct {
	URL      string   // as [Parse] reads it
	Prefix   string   // the beginning of all keys in the engine
	Keys     [][]byte // the first encrypts the history, all of them decrypt it; see [redislog.Config]
	Replicas int      // that must have an erasure before it is reported as done
	Node     string   // the name of this server in logs

	// Log gets a line when the engine does not answer, and when it does again.
	Log *slog.Logger
	// Check and Timeout are those of [redislog.Config].
	Check, Timeout time.Duration
}

// Engine is the connection to the engine. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	option rueidis.ClientOption

	mu     sync.Mutex
	client rueidis.Client // nil before the first answer

	logs atomic.Pointer[redislog.Engine] // nil before the first answer
	away atomic.Bool                     // the outage is logged
}

// New returns an Engine. It does not connect.
func New(cfg Config) (*Engine, error) {
	o, err := Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL %w", err)
	}
	o.Dialer = net.Dialer{Timeout: dialWait}
	o.Sentinel.Dialer = o.Dialer
	o.DisableCache = true // nothing is read twice
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, option: o}, nil
}

// Open opens the history that all servers share. While the engine does not
// answer, Open logs that, and tries again until ctx ends. It does not try again
// if the history is encrypted with another key.
func (e *Engine) Open(ctx context.Context, keeps history.Config) (*history.Log, error) {
	var told string
	var since time.Time
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		log, err := e.open(ctx, keeps)
		switch {
		case err == nil:
			return log, nil
		case errors.Is(err, redislog.ErrSealed):
			return nil, fmt.Errorf("HISTORY_KEY does not open the history in the engine: set HISTORY_KEY to the key that all servers have, or set HISTORY_KEY_PREVIOUS to that key if you changed it; if that key is lost, the history is lost: set REDIS_PREFIX to a new name (%w)", err)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the engine cannot be used (%w)", err)
		}
		if text := err.Error(); text != told || time.Since(since) > repeat {
			e.cfg.Log.Warn("the engine cannot be used yet; the server waits for it", "error", err)
			told, since = text, time.Now()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("the engine cannot be used (%w)", err)
		}
	}
}

// open tries to open the history once.
func (e *Engine) open(ctx context.Context, keeps history.Config) (*history.Log, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	logs := e.logs.Load()
	if logs == nil {
		logs, err = redislog.New(redislog.Config{
			Client: client, Prefix: e.cfg.Prefix, Keys: e.cfg.Keys, Replicas: e.cfg.Replicas,
			Check: e.cfg.Check, Timeout: e.cfg.Timeout, OnState: e.state,
		})
		if err != nil {
			return nil, err
		}
		e.logs.Store(logs)
	}
	return logs.Open(ctx, room, keeps)
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

// state logs that the history cannot follow the engine, or that it can again.
func (e *Engine) state(err error) {
	switch {
	case errors.Is(err, redislog.ErrLost):
		e.cfg.Log.Error("the engine has lost the history; a new one begins, and viewers get what is published from now on", "node", e.cfg.Node)
	case err != nil:
		if !e.away.Swap(true) {
			e.cfg.Log.Error("the engine is away; viewers are served from memory, and publishers wait", "node", e.cfg.Node, "error", err)
		}
	default:
		if e.away.Swap(false) {
			e.cfg.Log.Info("the engine is back", "node", e.cfg.Node)
		}
	}
}

// Away reports whether the server cannot follow the engine.
func (e *Engine) Away() bool { return e.away.Load() }

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

// Stats returns the figures of the history in the engine.
func (e *Engine) Stats() redislog.Stats {
	if logs := e.logs.Load(); logs != nil {
		return logs.Stats()
	}
	return redislog.Stats{}
}

// Close closes the connections. The history must be closed before.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil {
		e.client.Close()
	}
}
