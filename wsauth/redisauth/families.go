package redisauth

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/wsauth/refresh"
)

// Families returns the store of the families of refresh tokens, for
// [refresh.Config].Store. Set the Key of that Config too. All nodes, and other
// programs with the same Prefix and Key, may use it at the same time.
func (a *Authority) Families() refresh.Store { return families{a} }

// families is the [refresh.Store] of an Authority.
type families struct{ a *Authority }

// sealed returns f as the scripts take it.
func (s families) sealed(f *refresh.StoredFamily) ([]string, error) {
	text, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return []string{
		f.ID, strconv.FormatUint(f.Generation, 10), s.a.seal.close(kindFamily, f.ID, text),
		strconv.FormatInt(f.ValidUntil.UnixMilli(), 10),
	}, nil
}

// opened returns the family that the engine keeps.
func (s families) opened(id, sealed string) (f refresh.StoredFamily, err error) {
	if err := s.a.seal.open(kindFamily, id, sealed, &f); err != nil {
		return refresh.StoredFamily{}, err
	}
	return f, nil
}

// isFamilyID reports whether id can be the ID of a family. Any other text must
// not become part of a key.
func isFamilyID(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

func (s families) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.a.cfg.Timeout)
}

// Create implements [refresh.Store]. The engine's clock says which families
// have expired.
func (s families) Create(ctx context.Context, f refresh.StoredFamily, _ time.Time) error {
	args, err := s.sealed(&f)
	if err != nil {
		return err
	}
	if err := s.a.ready(); err != nil {
		return err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	k := &s.a.keys
	reply, err := createScript.exec(ctx, s.a.cfg.Client, []string{k.family(f.ID), k.families},
		append(args, strconv.Itoa(s.a.cfg.MaxFamilies))...).ToString()
	switch {
	case err != nil:
		return failed(err)
	case reply == "FULL":
		return refresh.ErrTooManyFamilies
	}
	return nil
}

// Load implements [refresh.Store].
func (s families) Load(ctx context.Context, id string) (f refresh.StoredFamily, found bool, err error) {
	if !isFamilyID(id) {
		return f, false, nil
	}
	if err := s.a.ready(); err != nil {
		return f, false, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	r, err := s.a.ask(ctx, loadScript, []string{s.a.keys.family(id)})
	if err != nil {
		return f, false, err
	}
	sealed, err := r.ToString()
	if err != nil || sealed == "" {
		return f, false, err
	}
	if f, err = s.opened(id, sealed); err != nil {
		return f, false, err
	}
	return f, true, nil
}

// Rotate implements [refresh.Store].
func (s families) Rotate(ctx context.Context, f refresh.StoredFamily, from uint64) (bool, error) {
	args, err := s.sealed(&f)
	if err != nil {
		return false, err
	}
	k := &s.a.keys
	done, err := s.durably(ctx, rotateScript, []string{k.family(f.ID), k.families}, append(args, strconv.FormatUint(from, 10))...)
	if err != nil || done.reply != "OK" {
		// If the first try was made, the Issuer finds its result.
		return false, err
	}
	return true, done.missing
}

// Remove implements [refresh.Store].
func (s families) Remove(ctx context.Context, id string) (f refresh.StoredFamily, found bool, err error) {
	if !isFamilyID(id) {
		return f, false, nil
	}
	// If the answer is lost, the caller still needs the family.
	if f, found, err = s.Load(ctx, id); err != nil || !found {
		return f, false, err
	}
	k := &s.a.keys
	s.a.removed.add(id)
	done, err := s.durably(ctx, removeScript, []string{k.head, k.events, k.family(id), k.families}, rand.Text(), id)
	if err != nil && done.unsure {
		s.a.removed.due(id) // Follow makes sure that it is removed
	} else if err != nil || done.reply == "" && !done.unsure {
		return f, false, err
	}
	return f, true, errors.Join(err, done.missing)
}

// outcome is the result of a script that changes a family.
type outcome struct {
	reply   string
	unsure  bool  // an earlier try may have had an effect
	missing error // if too few replicas have the change
}

// durably runs a script until it is answered, and waits until replicas have
// what it has changed.
func (s families) durably(ctx context.Context, script *script, keys []string, args ...string) (done outcome, err error) {
	if err := s.a.ready(); err != nil {
		return done, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	want := int64(s.a.cfg.Replicas)
	done.unsure, err = s.a.again(ctx, func() (err error) {
		if want == 0 {
			done.reply, err = script.exec(ctx, s.a.cfg.Client, keys, args...).ToString()
			return err
		}
		// WAIT counts the replicas that have the last write of its connection.
		conn, release := s.a.cfg.Client.Dedicate()
		defer release()
		if done.reply, err = script.exec(ctx, conn, keys, args...).ToString(); err != nil {
			return err
		}
		n, err := conn.Do(ctx, conn.B().Wait().Numreplicas(want).Timeout(500).Build()).AsInt64()
		if err != nil || n < want {
			done.missing = fmt.Errorf("redisauth: the change was made, but only %d of %d replicas have it, and a failover may lose it", n, want)
		}
		return nil
	})
	return done, err
}

// List implements [refresh.Store].
func (s families) List(ctx context.Context) ([]refresh.Family, error) {
	if err := s.a.ready(); err != nil {
		return nil, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	c, k := s.a.cfg.Client, &s.a.keys
	ids, err := c.Do(ctx, c.B().Zrange().Key(k.families).Min("0").Max("-1").Build()).AsStrSlice()
	if err != nil {
		return nil, failed(err)
	}
	all := make([]refresh.Family, 0, len(ids))
	var errs []error
	for len(ids) > 0 {
		page := ids[:min(len(ids), atOnce)]
		ids = ids[len(page):]
		commands := make([]rueidis.Completed, len(page))
		for i, id := range page {
			commands[i] = c.B().Hget().Key(k.family(id)).Field("v").Build()
		}
		for i, r := range c.DoMulti(ctx, commands...) {
			sealed, err := r.ToString()
			if rueidis.IsRedisNil(err) {
				continue // it was removed meanwhile
			}
			if err != nil {
				return all, failed(err)
			}
			f, err := s.opened(page[i], sealed)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			all = append(all, f.Family)
		}
	}
	return all, errors.Join(errs...)
}

// mostRemoved bounds how many families a node remembers to remove again.
const mostRemoved = 10_000

// removed are families that were removed.
type removed struct {
	mu      sync.Mutex
	ids     []string // the oldest first
	pending []string // those that the engine may have
}

// add notes that a family was removed.
func (r *removed) add(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids = append(r.ids, id); len(r.ids) > mostRemoved {
		r.ids = slices.Clone(r.ids[mostRemoved/2:])
	}
}

// due notes that the engine may have families that were removed.
func (r *removed) due(ids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = append(r.pending, ids...)
}

// again notes that the engine may have any of them: a failover may have brought
// them back.
func (r *removed) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = slices.Clone(r.ids)
}

// take returns those that must be removed again.
func (r *removed) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := r.pending
	r.pending = nil
	return ids
}
