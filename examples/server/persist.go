package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// retention is what the history keeps, on disk and in memory.
func (c *config) retention() history.Config {
	return history.Config{Keep: c.historyKeep, TrimAt: c.historyTrimAt, MaxAge: c.historyMaxAge, MaxBytes: c.historyMaxBytes}
}

func decodeKey(s string) ([]byte, error) {
	key, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err == nil && len(key) != journal.KeySize {
		err = errors.New("not 32 bytes")
	}
	return key, err
}

// openHistory opens the log, from HISTORY_DIR where that is set. What fails here
// ends the start; what fails later does not end the relay: it goes on in memory,
// and says so in the log, in /readyz and in the metrics.
func (s *server) openHistory(cfg config) error {
	keeps := cfg.retention()
	keeps.OnTrim = func(t history.Trim) {
		s.log.Info("history trimmed", "dropped", t.Dropped, "reason", t.Reason)
		if r := s.trims.Load(); r != nil { // nothing has been delivered before there is one
			r.Trimmed(t)
		}
	}
	if cfg.historyDir == "" {
		var err error
		s.history, err = history.Open(context.Background(), keeps)
		return err
	}
	disk, err := cfg.openJournal(journal.Config{
		Sync: cfg.historySync, KeepGoing: true, OnState: s.diskState,
		OnDropped: func(d journal.Dropped) {
			s.log.Warn("the history's end was not all there, and is dropped", "bytes", d.Bytes, "messages_missing", d.Missing)
		},
	})
	if err != nil {
		return err
	}
	keeps.Store = disk
	if s.history, err = history.Open(context.Background(), keeps); err != nil {
		return errors.Join(cfg.advice(err), disk.Close())
	}
	if !cfg.historyPrevious.IsZero() {
		if err := disk.Rewrap(context.Background()); err != nil {
			return errors.Join(cfg.advice(err), s.history.Close())
		}
		s.log.Info("the history is sealed with HISTORY_KEY: HISTORY_KEY_PREVIOUS is not needed any more")
	}
	s.log.Info("history opened", "dir", cfg.historyDir, "messages", s.history.Stats().Entries)
	return nil
}

// diskState is told when the disk begins to fail, and when all is written again.
func (s *server) diskState(err error) {
	s.degraded.Store(err != nil)
	if err != nil {
		s.log.Error("the history is in memory only, since the disk fails; it is written anew when the disk recovers", "error", err)
		return
	}
	s.log.Info("the history is on disk again")
}

// openJournal opens the directory; c says what beside the place and the keys.
func (c *config) openJournal(j journal.Config) (*journal.Journal, error) {
	if err := ownDirectory(c.historyDir); err != nil {
		return nil, err
	}
	j.Dir = c.historyDir
	for _, text := range []string{c.historyKey.Reveal(), c.historyPrevious.Reveal()} {
		if text == "" {
			continue
		}
		key, err := decodeKey(text)
		if err != nil {
			return nil, errors.New("HISTORY_KEY is malformed")
		}
		j.Keys = append(j.Keys, key)
	}
	disk, err := journal.Open(j)
	return disk, c.advice(err)
}

// ownDirectory refuses a directory in which others keep things: the journal makes
// its directory private, which for /var/lib would be a disaster.
func ownDirectory(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "lock")); err == nil {
		return nil // it was a journal's before
	}
	found, err := os.ReadDir(dir)
	if err == nil && len(found) > 0 {
		return fmt.Errorf("HISTORY_DIR %s holds other things: name a directory of its own, which need not exist", dir)
	}
	return nil // what else is wrong, opening finds out
}

// advice adds to an error of the journal what can be done about it.
func (c *config) advice(err error) error {
	var failed *journal.Error
	if !errors.As(err, &failed) {
		return err
	}
	todo := map[journal.Reason]string{
		journal.ReasonLocked:   "another process uses HISTORY_DIR %s: stop it, or name another directory",
		journal.ReasonReadOnly: "HISTORY_DIR %s cannot be written: give it to the user that the server runs as, or name another directory",
		journal.ReasonFull:     "the disk of HISTORY_DIR %s is full: make room, or name another directory",
		journal.ReasonWrongKey: "HISTORY_KEY does not open HISTORY_DIR %s: put the key that it was written with into HISTORY_KEY, or into HISTORY_KEY_PREVIOUS where the key was changed; if it is lost, so is the history: move the directory away",
		journal.ReasonCorrupt:  "HISTORY_DIR %s was damaged or changed: to begin anew, move it away, and `server import` an export if there is one",
	}[failed.Reason]
	if errors.Is(err, errors.ErrUnsupported) {
		todo = "HISTORY_DIR %s cannot be used on this operating system"
	}
	if todo == "" {
		todo = "HISTORY_DIR %s cannot be used"
	}
	return fmt.Errorf(todo+" (%w)", c.historyDir, err)
}
