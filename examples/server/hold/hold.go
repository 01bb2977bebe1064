// Package hold is the operator's brake: while it is on, viewers see nothing that
// was published since, or for which the delay has not passed.
package hold

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/internal/files"
)

// Shared keeps the brake for several servers.
type Shared interface {
	// Held returns since when the brake is on, or the zero time.
	Held(ctx context.Context) (time.Time, error)
	// Hold puts the brake on, unless it is, and returns since when it is.
	Hold(ctx context.Context, at time.Time) (since time.Time, err error)
	// Release takes the brake off.
	Release(ctx context.Context) error
}

// Config configures a [Brake]. Now and Log are required.
type Config struct {
	Now    func() time.Time // the clock that dates messages
	Dir    string           // keeps the brake over a restart of the server; if empty, a restart takes it off
	Shared Shared           // takes the place of Dir
	Every  time.Duration    // how often Shared is asked; default a second
	Log    *slog.Logger
}

// Brake is the brake of this server, or of all that share an engine. It is safe
// for concurrent use.
type Brake struct {
	cfg  Config
	path string // "": in memory only

	change sync.Mutex // one call at a time

	mu    sync.Mutex
	since time.Time // zero: it is off
	known time.Time // with Shared: as of when since is known
}

// New returns a Brake, which is on if its file says so. With Shared, its state
// is not known before [Brake.Run].
func New(cfg Config) (*Brake, error) {
	if cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("hold: Config.Now and Config.Log are required")
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	b := &Brake{cfg: cfg}
	if cfg.Dir == "" || cfg.Shared != nil {
		return b, nil
	}
	b.path = filepath.Join(cfg.Dir, "hold.json")
	text, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	var saved struct{ Since time.Time }
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	if err == nil && saved.Since.IsZero() {
		err = errors.New("no time in it")
	}
	if err != nil {
		return nil, fmt.Errorf("whether viewers are held cannot be read: %w (fix or remove %s)", err, b.path)
	}
	b.set(saved.Since, time.Time{})
	return b, nil
}

// Held returns since when the brake is on, or the zero time if it is off, and
// as of when that is known.
func (b *Brake) Held() (since, known time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cfg.Shared == nil {
		return b.since, b.cfg.Now()
	}
	return b.since, b.known
}

// Shared reports whether other servers have the same brake.
func (b *Brake) Shared() bool { return b.cfg.Shared != nil }

// set notes the state, and logs a change of it.
func (b *Brake) set(since, known time.Time) {
	b.mu.Lock()
	changed := b.since.IsZero() != since.IsZero()
	b.since, b.known = since, known
	b.mu.Unlock()
	switch {
	case !changed:
	case since.IsZero():
		b.cfg.Log.Warn("viewers are released")
	default:
		b.cfg.Log.Warn("viewers are held: they see nothing that is published from now on, until `server release`", "since", since)
	}
}

// Hold puts the brake on, unless it is, and returns since when it is. With
// Shared, the other servers know it within twice Config.Every. After an error
// of Dir, the brake is on, but a restart of the server takes it off.
func (b *Brake) Hold(ctx context.Context) (since time.Time, err error) {
	b.change.Lock()
	defer b.change.Unlock()
	now := b.cfg.Now()
	if b.cfg.Shared != nil {
		if since, err = b.cfg.Shared.Hold(ctx, now); err == nil {
			b.set(since, now)
		}
		return since, err
	}
	if since, _ = b.Held(); !since.IsZero() {
		return since, nil
	}
	b.set(now, time.Time{})
	if b.path != "" {
		text, _ := json.Marshal(struct { // a time: cannot fail
			Since time.Time `json:"since"`
		}{now})
		err = files.Replace(b.path, append(text, '\n'))
	}
	return now, err
}

// Release takes the brake off. After an error it is still on.
func (b *Brake) Release(ctx context.Context) error {
	b.change.Lock()
	defer b.change.Unlock()
	now := b.cfg.Now()
	if b.cfg.Shared != nil {
		if err := b.cfg.Shared.Release(ctx); err != nil {
			return err
		}
	} else if b.path != "" {
		if err := os.Remove(b.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	b.set(time.Time{}, now)
	return nil
}

// Run asks Shared again and again until ctx ends. Without Shared it returns at
// once.
func (b *Brake) Run(ctx context.Context) {
	if b.cfg.Shared == nil {
		return
	}
	tick := time.NewTicker(b.cfg.Every)
	defer tick.Stop()
	for {
		b.ask(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Brake) ask(ctx context.Context) {
	b.change.Lock() // else an answer from before a change could be the last
	defer b.change.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	now := b.cfg.Now()
	if since, err := b.cfg.Shared.Held(ctx); err == nil { // else the engine is away, which is logged
		b.set(since, now)
	}
}
