package site

import (
	"context"
	"errors"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// openHistory opens the history, from HISTORY_DIR if that is set. An error here
// ends the start. A disk that fails later does not end the relay: the relay
// goes on in memory, and reports the failure in the log, in /readyz and in the
// metrics.
func (s *Site) openHistory() error {
	keeps := s.cfg.Retention()
	keeps.OnTrim = func(t history.Trim) {
		s.log.Info("history trimmed", "dropped", t.Dropped, "reason", t.Reason)
		if r := s.trims.Load(); r != nil { // a relay that does not exist yet has delivered nothing
			r.Trimmed(t)
		}
	}
	if s.cfg.HistoryDir == "" {
		var err error
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
