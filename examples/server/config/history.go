package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// Retention is what the history keeps, on disk and in memory.
func (c *Config) Retention() history.Config {
	return history.Config{Keep: c.HistoryKeep, TrimAt: c.HistoryTrimAt, MaxAge: c.HistoryMaxAge, MaxBytes: c.HistoryMaxBytes}
}

func decodeKey(s string) ([]byte, error) {
	key, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err == nil && len(key) != journal.KeySize {
		err = errors.New("not 32 bytes")
	}
	return key, err
}

// OpenJournal opens HISTORY_DIR; j says what else the journal does.
func (c *Config) OpenJournal(j journal.Config) (*journal.Journal, error) {
	if err := ownDirectory(c.HistoryDir); err != nil {
		return nil, err
	}
	j.Dir = c.HistoryDir
	for _, text := range []string{c.HistoryKey.Reveal(), c.HistoryPrevious.Reveal()} {
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
	return disk, c.Advice(err)
}

// ownDirectory refuses a directory in which others keep things: the journal
// makes its directory private, which for /var/lib would be a disaster.
func ownDirectory(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "lock")); err == nil {
		return nil // it was a journal's before
	}
	found, err := os.ReadDir(dir)
	if err == nil && slices.ContainsFunc(found, func(e os.DirEntry) bool { return e.Name() == "lost+found" }) {
		return fmt.Errorf("HISTORY_DIR %s is the top of a volume, which holds lost+found: name a directory in it, such as %s, which need not exist", dir, filepath.Join(dir, "history"))
	}
	if err == nil && len(found) > 0 {
		return fmt.Errorf("HISTORY_DIR %s holds other things: name a directory of its own, which need not exist", dir)
	}
	return nil // what else is wrong, opening finds out
}

// Advice adds to an error of the journal what can be done about it.
func (c *Config) Advice(err error) error {
	var failed *journal.Error
	if !errors.As(err, &failed) {
		return err
	}
	todo := map[journal.Reason]string{
		journal.ReasonLocked:   "another process uses HISTORY_DIR %s: stop it, or name another directory",
		journal.ReasonReadOnly: "HISTORY_DIR %s cannot be written: give it to the user that the server runs as, or name another directory",
		journal.ReasonUnsafe:   "HISTORY_DIR %s must be a directory, no link, that belongs to the user that the server runs as and that no other user can write to",
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
	return fmt.Errorf(todo+" (%w)", c.HistoryDir, err)
}
