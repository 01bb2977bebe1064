package journal

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/relayguard/relayguard/history"
)

// ForSet returns a func for [history.SetConfig.Store]. Each log gets a journal
// with the configuration cfg, in the directory [SetDir](cfg.Dir, name). The
// error joins a [*ConfigError] for each problem of cfg.
//
// A journal does not know the name of its log: a user who can write to cfg.Dir
// can exchange the directories of two logs. So cfg.Dir is refused for the
// reasons that [Config] names, as the directories in it are.
//
// With KeepGoing, the entries that a journal could not write are lost if the
// Set closes the log before the medium works again. Then
// [history.SetConfig.OnEvict] gets the error.
func ForSet(cfg Config) (func(ctx context.Context, name string, create bool) (history.Store, error), error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Keys = copies(cfg.Keys) // the caller may overwrite them before a log is opened
	return func(ctx context.Context, name string, create bool) (history.Store, error) {
		if err := checkParent(cfg.Dir); err != nil {
			return nil, err
		}
		one := cfg
		one.Dir = SetDir(cfg.Dir, name)
		if _, err := os.Lstat(one.Dir); !create && errors.Is(err, fs.ErrNotExist) {
			return nil, err // else Open would make the directory
		}
		j, err := Open(one)
		if err != nil {
			return nil, err
		}
		return j, nil
	}, nil
}

// SetDir returns the directory in dir that [ForSet] uses for the log of this
// name, which must be a name of a [history.Set]. It writes an upper-case letter
// as '!' and the lower-case letter, because many file systems take names that
// differ only in case for the same.
//
// To remove a log with its files, finish it, so that nothing more is appended.
// Then clear it, so that no one can read a copy of its files. Then remove the
// directory in [history.Set.Remove], as the example of ForSet does. Removing
// the directory alone would leave the keys in a copy of the disk.
func SetDir(dir, name string) string {
	var b []byte
	for _, c := range []byte(name) {
		if c >= 'A' && c <= 'Z' {
			b = append(b, '!')
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return filepath.Join(dir, string(b))
}
