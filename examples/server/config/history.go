package config

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/relayguard/relayguard/examples/server/engine"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// Retention returns the limits of the history, which hold on disk and in
// memory. The caller adds a Store.
func (c *Config) Retention() history.Config {
	return history.Config{
		Keep: c.HistoryKeep, TrimAt: c.HistoryTrimAt, MaxAge: c.HistoryMaxAge, MaxBytes: c.HistoryMaxBytes,
		KeepWeight: c.HistoryKeepText, Weigh: relay.Weight, Pins: relay.Pins,
	}
}

func decodeKey(s string) ([]byte, error) {
	key, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err == nil && len(key) != journal.KeySize {
		err = errors.New("not 32 bytes")
	}
	return key, err
}

// RoomDir returns the directory of the history of a room, or HISTORY_DIR if
// room is empty.
func (c *Config) RoomDir(room string) string {
	if room == "" {
		return c.HistoryDir
	}
	return journal.SetDir(c.HistoryDir, room)
}

// OpenJournal opens the journal of a room, or of the only conversation if room
// is empty, in HISTORY_DIR with the keys of c. j holds the journal's other
// settings.
func (c *Config) OpenJournal(room string, j journal.Config) (*journal.Journal, error) {
	var err error
	if j.Keys, err = c.historyKeys(); err != nil {
		return nil, err
	}
	j.Dir = c.HistoryDir
	if room != "" {
		return c.openRoom(room, j)
	}
	if err := ownDirectory("HISTORY_DIR", c.HistoryDir); err != nil {
		return nil, err
	}
	disk, err := journal.Open(j)
	return disk, c.Advice(err)
}

// openRoom opens a room's journal in the directory of all.
func (c *Config) openRoom(room string, j journal.Config) (*journal.Journal, error) {
	if _, err := os.Stat(filepath.Join(j.Dir, "lock")); err == nil {
		return nil, fmt.Errorf("HISTORY_DIR %s holds the history of one conversation, and ROOMS needs a directory of its own: name another one, and to take the history along, export it without ROOMS and import it with -room", j.Dir)
	}
	open, err := journal.ForSet(j)
	if err != nil {
		return nil, err
	}
	store, err := open(context.Background(), room, true)
	if err != nil {
		return nil, c.Advice(err)
	}
	return store.(*journal.Journal), nil
}

// historyKeys returns the ring of HISTORY_KEY and HISTORY_KEY_PREVIOUS.
func (c *Config) historyKeys() (keys [][]byte, err error) {
	for _, text := range []string{c.HistoryKey.Reveal(), c.HistoryPrevious.Reveal()} {
		if text == "" {
			continue
		}
		key, err := decodeKey(text)
		if err != nil {
			return nil, errors.New("HISTORY_KEY is malformed")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// NewEngine returns the engine of REDIS_URL with the keys of c, which is nil
// without REDIS_URL. It does not connect.
func (c *Config) NewEngine(log *slog.Logger) (*engine.Engine, error) {
	if c.RedisURL.IsZero() {
		return nil, nil
	}
	keys, err := c.historyKeys()
	if err != nil {
		return nil, err
	}
	var secrets [][]byte
	for _, key := range c.Keys() {
		secrets = append(secrets, key.Secret)
	}
	return engine.New(engine.Config{
		URL: c.RedisURL.Reveal(), Prefix: c.RedisPrefix, Keys: keys, Secrets: secrets, Replicas: c.RedisReplicas, Node: c.Node, Log: log,
		Check: c.EngineCheck, Timeout: c.EngineTimeout,
	})
}

// ownDirectory refuses a directory that holds files of other programs. The
// server makes the directory that the variable names private. In a directory
// such as /var/lib, other programs could then no longer read their files.
func ownDirectory(variable, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "lock")); err == nil {
		return nil // it is the server's already
	}
	found, err := os.ReadDir(dir)
	if err == nil && slices.ContainsFunc(found, func(e os.DirEntry) bool { return e.Name() == "lost+found" }) {
		return fmt.Errorf("%s %s is the top of a volume, which holds lost+found: name a directory in it, such as %s, which need not exist", variable, dir, filepath.Join(dir, strings.ToLower(strings.TrimSuffix(variable, "_DIR"))))
	}
	if err == nil && len(found) > 0 {
		return fmt.Errorf("%s %s holds other files: name a directory of its own, which need not exist", variable, dir)
	}
	return nil // opening the journal reports other errors
}

// Advice adds to an error of the journal what the operator can do about it. It
// returns any other error, or nil, unchanged.
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
		journal.ReasonWrongKey: "HISTORY_KEY does not open HISTORY_DIR %s: set HISTORY_KEY to the key that encrypted the history, or set HISTORY_KEY_PREVIOUS to that key if you changed it; if that key is lost, the history is lost: move the directory away",
		journal.ReasonCorrupt:  "HISTORY_DIR %s was damaged or changed: move it away to start with an empty history, and `server import` an export if you have one",
	}[failed.Reason]
	if errors.Is(err, errors.ErrUnsupported) {
		todo = "HISTORY_DIR %s cannot be used on this operating system"
	}
	if todo == "" {
		todo = "HISTORY_DIR %s cannot be used"
	}
	return fmt.Errorf(todo+" (%w)", c.HistoryDir, err)
}
