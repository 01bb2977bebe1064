package site

import (
	"context"
	"errors"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// openHistory opens the history, from the engine if REDIS_URL is set, or from
// HISTORY_DIR if that is set. An error here ends the start, but while the
// engine does not answer, openHistory waits until ctx ends. A disk that fails
// later does not end the relay: the relay goes on in memory, and reports the
// failure in the log, in /readyz and in the metrics.
func (s *Site) openHistory(ctx context.Context) (err error) {
	keeps := s.cfg.Retention()
	keeps.OnTrim = func(t history.Trim) {
		s.log.Info("history trimmed", "dropped", t.Dropped, "reason", t.Reason)
		if r := s.trims.Load(); r != nil { // a relay that does not exist yet has delivered nothing
			r.Trimmed(t)
		}
	}
	if s.engine != nil {
		if s.History, err = s.engine.Open(ctx, keeps); err != nil {
			return err
		}
		s.log.Info("history opened", "node", s.cfg.Node, "prefix", s.cfg.RedisPrefix, "messages", s.History.Stats().Entries)
		s.examine(ctx)
		return nil
	}
	if s.cfg.HistoryDir == "" {
		s.History, err = history.Open(context.Background(), keeps)
		return err
	}
	disk, err := s.cfg.OpenJournal(journal.Config{
		Sync: s.cfg.HistorySync, KeepGoing: true, OnState: s.DiskState,
		OnWarning: func(err error) {
			s.log.Warn("the history's directory is not as it should be; the history is used all the same", "dir", s.cfg.HistoryDir, "error", err)
		},
		OnDropped: func(d journal.Dropped) {
			s.log.Warn("the history's end was incomplete and is dropped", "bytes", d.Bytes, "messages_missing", d.Missing)
		},
	})
	if err != nil {
		return err
	}
	keeps.Store = disk
	if s.History, err = history.Open(context.Background(), keeps); err != nil {
		return errors.Join(s.cfg.Advice(err), disk.Close())
	}
	if !s.cfg.HistoryPrevious.IsZero() {
		if err := disk.Rewrap(context.Background()); err != nil {
			return errors.Join(s.cfg.Advice(err), s.History.Close())
		}
		s.log.Info("the history is encrypted with HISTORY_KEY: HISTORY_KEY_PREVIOUS is no longer needed")
	}
	s.log.Info("history opened", "dir", s.cfg.HistoryDir, "messages", s.History.Stats().Entries)
	return nil
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

// DiskState records and logs that the history's disk fails, or, if err is nil,
// that the whole history is on disk again. The journal calls it.
func (s *Site) DiskState(err error) {
	s.degraded.Store(err != nil)
	if err != nil {
		s.log.Error("the history is in memory only, since the disk fails; it is written anew when the disk recovers", "error", err)
		return
	}
	s.log.Info("the history is on disk again")
}
