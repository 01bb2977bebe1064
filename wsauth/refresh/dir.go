package refresh

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// familyExt is the end of the name of each file of a family. Other files in the
// directory are ignored.
const familyExt = ".family"

// dirStore is a [Store] in a directory.
type dirStore struct {
	dir  string
	most int
	mu   sync.Mutex // held by every method that writes
}

// NewDirStore returns a [Store] that keeps each family in a file in dir, so
// that devices can refresh after a restart. A file is replaced as a whole, and
// is on the disk before the Issuer gives the answer that depends on it.
//
// Only one process at a time may refresh and revoke. Other processes may issue
// in the same directory meanwhile: a command can issue the first pair for a
// device while the server runs.
//
// The store contains at most maxFamilies; 0 means 10,000. If dir does not
// exist, it is created with access for its owner only. If maxFamilies is
// negative, the error is a [*ConfigError]; other errors are those of the file
// system.
func NewDirStore(dir string, maxFamilies int) (Store, error) {
	if maxFamilies < 0 {
		return nil, &ConfigError{"NewDirStore.maxFamilies", wsauth.ConfigNegative}
	}
	if maxFamilies == 0 {
		maxFamilies = 10_000
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &dirStore{dir: dir, most: maxFamilies}, nil
}

func (s *dirStore) Create(_ context.Context, f StoredFamily, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := s.ids()
	if err != nil {
		return err
	}
	if left := len(ids); left >= s.most {
		for _, id := range ids {
			// A file that cannot be read counts until the operator removes it.
			if old, found, err := s.load(id); err == nil && found && !now.Before(old.ValidUntil) {
				if err := os.Remove(s.path(id)); err == nil {
					left--
				}
			}
		}
		if left >= s.most {
			return ErrTooManyFamilies
		}
	}
	return s.save(f)
}

func (s *dirStore) Load(_ context.Context, id string) (StoredFamily, bool, error) { return s.load(id) }

func (s *dirStore) Rotate(_ context.Context, f StoredFamily) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, found, err := s.load(f.ID)
	if err != nil || !found || old.Generation+1 != f.Generation {
		return false, err
	}
	if err := s.save(f); err != nil {
		return false, err
	}
	return true, nil
}

func (s *dirStore) Remove(_ context.Context, id string) (StoredFamily, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, found, err := s.load(id)
	if err != nil || !found {
		return f, false, err
	}
	if err := os.Remove(s.path(id)); err != nil {
		return StoredFamily{}, false, err
	}
	return f, true, s.sync()
}

func (s *dirStore) List(context.Context) ([]Family, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var errs []error
	all := make([]Family, 0, len(ids))
	for _, id := range ids {
		f, found, err := s.load(id)
		errs = append(errs, err)
		if found {
			all = append(all, f.Family)
		}
	}
	return all, errors.Join(errs...)
}

func (s *dirStore) path(id string) string { return filepath.Join(s.dir, id+familyExt) }

func (s *dirStore) ids() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), familyExt); ok && isFamilyID(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// isFamilyID reports whether id can be the ID of a family. Any other text must
// not become part of a path, since a stranger may have written it.
func isFamilyID(id string) bool {
	return len(id) == 2*handleLen && strings.Trim(id, "0123456789abcdef") == ""
}

// load needs no lock, because a file always has its whole content.
func (s *dirStore) load(id string) (f StoredFamily, found bool, err error) {
	if !isFamilyID(id) {
		return f, false, nil
	}
	text, err := os.ReadFile(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	if err != nil {
		return f, false, err
	}
	if json.Unmarshal(text, &f) != nil || f.ID != id {
		return StoredFamily{}, false, &fs.PathError{Op: "read", Path: s.path(id), Err: errDamaged}
	}
	return f, true, nil
}

var errDamaged = errors.New("not a family of refresh tokens")

func (s *dirStore) save(f StoredFamily) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	// The name is always the same, so that crashes leave at most one file for
	// each family.
	temporary := s.path(f.ID) + ".new"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary, s.path(f.ID))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return s.sync()
}

// sync makes renamings and removals durable. If an old generation came back
// after a power failure, the next refresh of the device would look like theft.
func (s *dirStore) sync() error {
	if runtime.GOOS == "windows" {
		return nil // Windows cannot sync a directory
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
