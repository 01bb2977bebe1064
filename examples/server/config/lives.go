package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/relayguard/relayguard/examples/server/lives"
)

// The bounds of LIVES_MAX_BYTES. A life is at least as large as the largest
// message.
const (
	leastLife = 256 << 10
	mostLife  = 256 << 20
)

// livesApart reports whether LIVES_DIR is no other directory of the server, nor
// in one: HISTORY_DIR may hold those of rooms.
func (c *Config) livesApart() bool {
	for _, other := range []string{c.HistoryDir, c.AuthDir} {
		if c.LivesDir == "" || other == "" {
			continue
		}
		if in, err := filepath.Rel(filepath.Clean(other), filepath.Clean(c.LivesDir)); err == nil && filepath.IsLocal(in) {
			return false
		}
	}
	return true
}

// OpenLives opens the store in LIVES_DIR, or returns nil without it.
func (c *Config) OpenLives(log *slog.Logger) (*lives.Store, error) {
	if c.LivesDir == "" {
		return nil, nil
	}
	keys, err := c.historyKeys()
	if err == nil {
		err = ownDirectory("LIVES_DIR", c.LivesDir)
	}
	if err != nil {
		return nil, err
	}
	s, err := lives.Open(lives.Config{Dir: c.LivesDir, Keys: keys, Keep: c.LivesKeep, MaxAge: c.LivesMaxAge, Log: log})
	return s, c.livesAdvice(err)
}

// CheckLives returns an error if LIVES_DIR cannot be used. It makes nothing but
// a file that it removes, so the directory need not exist. The superuser may
// check the directory of another user, who runs the server.
func (c *Config) CheckLives() error {
	if c.LivesDir == "" {
		return nil
	}
	if err := ownDirectory("LIVES_DIR", c.LivesDir); err != nil {
		return err
	}
	_, err := lives.Usable(c.LivesDir)
	switch {
	case errors.Is(err, fs.ErrNotExist): // the server makes it
		return nil
	case errors.Is(err, lives.ErrOwner) && os.Geteuid() == 0:
		return nil
	case err == nil:
		if f, tried := os.CreateTemp(c.LivesDir, ".check-*"); tried == nil {
			f.Close()
			err = os.Remove(f.Name())
		} else {
			err = tried
		}
	}
	return c.livesAdvice(err)
}

// livesAdvice adds to an error of the store what the operator can do about it.
func (c *Config) livesAdvice(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lives.ErrLocked):
		return fmt.Errorf("another process uses LIVES_DIR %s: stop it, or name another directory (%w)", c.LivesDir, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("LIVES_DIR %s cannot be written: give it to the user that the server runs as, or name another directory (%w)", c.LivesDir, err)
	}
	return fmt.Errorf("LIVES_DIR %s cannot be used: %w", c.LivesDir, err)
}
