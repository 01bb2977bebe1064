package site

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/server/rooms"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// openHistory opens the history of every room, from the engine if REDIS_URL is
// set, or from HISTORY_DIR if that is set. An error here ends the start, but
// while the engine does not answer, openHistory waits until ctx ends. A disk
// that fails later does not end the relay: the relay goes on in memory, and
// reports the failure in the log, in /readyz and in the metrics.
func (s *Site) openHistory(ctx context.Context) (err error) {
	for _, r := range s.Rooms.All() {
		if r.Log, err = s.openLog(ctx, r); err != nil {
			return err
		}
	}
	if s.engine != nil {
		s.examine(ctx)
	}
	if !s.Rooms.Named() {
		s.History = s.Rooms.All()[0].Log
	}
	return nil
}

func (s *Site) openLog(ctx context.Context, r *rooms.Room) (*history.Log, error) {
	log := s.log
	if r.Name != "" {
		log = log.With("room", r.Name)
	}
	keeps := s.cfg.Retention()
	keeps.OnTrim = func(t history.Trim) {
		log.Info("history trimmed", "dropped", t.Dropped, "reason", t.Reason)
		r.Trimmed(t)
	}
	if s.engine != nil {
		h, err := s.engine.Open(ctx, r.Name, keeps)
		if err == nil {
			log.Info("history opened", "node", s.cfg.Node, "prefix", s.cfg.RedisPrefix, "messages", h.Stats().Entries)
		}
		return h, err
	}
	if s.cfg.HistoryDir == "" {
		return history.Open(context.Background(), keeps)
	}
	disk, err := s.cfg.OpenJournal(r.Name, journal.Config{
		Sync: s.cfg.HistorySync, KeepGoing: true, OnState: func(err error) { s.DiskState(r.Name, err) },
		OnWarning: func(err error) {
			log.Warn("the history's directory is not as it should be; the history is used all the same", "dir", s.cfg.HistoryDir, "error", err)
		},
		OnDropped: func(d journal.Dropped) {
			log.Warn("the history's end was incomplete and is dropped", "bytes", d.Bytes, "messages_missing", d.Missing)
		},
	})
	if err != nil {
		return nil, err
	}
	keeps.Store = disk
	h, err := history.Open(context.Background(), keeps)
	if err != nil {
		return nil, errors.Join(s.cfg.Advice(err), disk.Close())
	}
	if !s.cfg.HistoryPrevious.IsZero() {
		if err := disk.Rewrap(context.Background()); err != nil {
			return nil, errors.Join(s.cfg.Advice(err), h.Close())
		}
		if s.Lives == nil {
			log.Info("the history is encrypted with HISTORY_KEY: HISTORY_KEY_PREVIOUS is no longer needed")
		} else {
			log.Info("the history is encrypted with HISTORY_KEY: HISTORY_KEY_PREVIOUS is needed only for lives that it encrypted")
		}
	}
	log.Info("history opened", "dir", s.cfg.HistoryDir, "messages", h.Stats().Entries)
	return h, nil
}

// examine logs the settings of the engine, and what is wrong with them.
func (s *Site) examine(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := s.engine.Examine(ctx)
	if err != nil {
		s.log.Warn("the engine does not tell its settings", "error", err)
		return
	}
	s.log.Info("engine connected", "name", r.Name, "version", r.Version, "policy", r.Policy, "replicas", r.Replicas)
	for _, w := range r.Warnings {
		s.log.Warn("the engine is not set as it should be", "reason", w)
	}
}

// degraded are the rooms whose disk fails.
type degraded struct{ rooms sync.Map }

func (d *degraded) any() (found bool) {
	d.rooms.Range(func(_, _ any) bool {
		found = true
		return false
	})
	return found
}

// DiskState records and logs that the disk of a room fails, or, if err is nil,
// that the room's whole history is on disk again. The room's journal calls it.
// The name of the only conversation is empty.
func (s *Site) DiskState(room string, err error) {
	log := s.log
	if room != "" {
		log = log.With("room", room)
	}
	if err != nil {
		s.degraded.rooms.Store(room, true)
		log.Error("the history is in memory only, since the disk fails; it is written anew when the disk recovers", "error", err)
		return
	}
	s.degraded.rooms.Delete(room)
	log.Info("the history is on disk again")
}
