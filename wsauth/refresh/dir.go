package refresh

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// familyExt is the end of the name of each file of a family. Other files in the
// directory are ignored.
const familyExt = ".family"

// newExt is the end of the name of a file that is being written. A crash may
// leave it behind; it is removed when it is older than maxWriting.
const (
	newExt     = ".new"
	maxWriting = time.Minute
)

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
// If dir does not exist, it is created with access for its owner only. A
// stranger who can write in it can end families and begin others. So every
// method fails if dir is a symbolic link, if everyone may write in it, or, on
// Unix, if it belongs to another user than the one of this process or root.
// Directories above dir may be links.
//
// The store contains at most maxFamilies; 0 means 10,000. If maxFamilies is
// negative, the error is a [*ConfigError]; other errors name dir and the
// reason, such as those of the file system.
func NewDirStore(dir string, maxFamilies int) (Store, error) {
	if maxFamilies < 0 {
		return nil, &ConfigError{"NewDirStore.maxFamilies", wsauth.ConfigNegative}
	}
	if maxFamilies == 0 {
		maxFamilies = 10_000
	}
	s := &dirStore{dir: filepath.Clean(dir), most: maxFamilies}
	if _, err := os.Lstat(s.dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return nil, err
		}
	}
	root, err := s.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	_, err = s.ids(root)
	return s, err
}

// open opens the directory if no one else can write in it. A path that leads
// elsewhere later has no effect on the Root.
func (s *dirStore) open() (*os.Root, error) {
	before, err := os.Lstat(s.dir)
	if err != nil {
		return nil, err
	}
	if why := unsafe(before); why != "" {
		return nil, &fs.PathError{Op: "use", Path: s.dir, Err: errors.New(why)}
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, err
	}
	after, err := root.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = &fs.PathError{Op: "use", Path: s.dir, Err: errors.New("was replaced meanwhile")}
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// unsafe returns why a directory must not be used, or an empty string.
func unsafe(dir fs.FileInfo) string {
	switch mode := dir.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return "is a symbolic link: use the directory that it names"
	case !mode.IsDir():
		return "is not a directory"
	case runtime.GOOS != "windows" && mode.Perm()&0o002 != 0: // Windows has no such bits
		return "is writable by everyone: run chmod o-w"
	}
	if owner, me := ownerOf(dir), os.Geteuid(); owner >= 0 && owner != me && owner != 0 {
		return fmt.Sprintf("belongs to user %d, and this is user %d: run chown", owner, me)
	}
	return ""
}

func (s *dirStore) Create(_ context.Context, f StoredFamily, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.open()
	if err != nil {
		return err
	}
	defer root.Close()
	ids, err := s.ids(root)
	if err != nil {
		return err
	}
	if left := len(ids); left >= s.most {
		for _, id := range ids {
			// A file that cannot be read counts until the operator removes it.
			if old, found, err := s.load(root, id); err == nil && found && !now.Before(old.ValidUntil) {
				if err := root.Remove(id + familyExt); err == nil {
					left--
				}
			}
		}
		if left >= s.most {
			return ErrTooManyFamilies
		}
	}
	committed, err := s.save(root, f)
	if committed && err != nil {
		// No one gets the tokens of this family.
		err = errors.Join(err, s.named(root.Remove(f.ID+familyExt)))
	}
	return err
}

func (s *dirStore) Load(_ context.Context, id string) (StoredFamily, bool, error) {
	root, err := s.open()
	if err != nil {
		return StoredFamily{}, false, err
	}
	defer root.Close()
	return s.load(root, id)
}

func (s *dirStore) Rotate(_ context.Context, f StoredFamily, from uint64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.open()
	if err != nil {
		return false, err
	}
	defer root.Close()
	old, found, err := s.load(root, f.ID)
	if err != nil || !found || old.Generation != from {
		return false, err
	}
	committed, err := s.save(root, f)
	if committed {
		err = late(err)
	}
	return committed, err
}

func (s *dirStore) Remove(_ context.Context, id string) (StoredFamily, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.open()
	if err != nil {
		return StoredFamily{}, false, err
	}
	defer root.Close()
	f, found, err := s.load(root, id)
	if err != nil || !found {
		return f, false, err
	}
	if err := root.Remove(id + familyExt); err != nil {
		return StoredFamily{}, false, s.named(err)
	}
	return f, true, late(s.sync(root))
}

func (s *dirStore) List(context.Context) ([]Family, error) {
	root, err := s.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	ids, err := s.ids(root)
	if err != nil {
		return nil, err
	}
	var errs []error
	all := make([]Family, 0, len(ids))
	for _, id := range ids {
		f, found, err := s.load(root, id)
		errs = append(errs, err)
		if found {
			all = append(all, f.Family)
		}
	}
	return all, errors.Join(errs...)
}

// named adds the directory to an error of an [os.Root], which has only the name
// of the file.
func (s *dirStore) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", s.dir, err)
}

// late explains an error that came after the change was made.
func late(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the change was made, but may be lost in a power failure: %w", err)
}

// ids returns the IDs of the families, and removes what crashes have left.
func (s *dirStore) ids(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, s.named(err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, s.named(err)
	}
	var ids []string
	for _, e := range entries {
		id, rest, ok := strings.Cut(e.Name(), familyExt)
		switch {
		case !ok || !isFamilyID(id):
		case rest == "":
			ids = append(ids, id)
		case strings.HasPrefix(rest, ".") && strings.HasSuffix(rest, newExt):
			// Another process may be writing the file.
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()).Abs() > maxWriting {
				_ = root.Remove(e.Name())
			}
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
func (s *dirStore) load(root *os.Root, id string) (f StoredFamily, found bool, err error) {
	if !isFamilyID(id) {
		return f, false, nil
	}
	name := id + familyExt
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	if err != nil {
		return f, false, s.named(err)
	}
	damaged := &fs.PathError{Op: "read", Path: filepath.Join(s.dir, name), Err: errDamaged}
	if !info.Mode().IsRegular() { // a pipe would never end
		return f, false, damaged
	}
	text, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	if err != nil {
		return f, false, s.named(err)
	}
	var stored struct {
		StoredFamily
		Device string // the name of Subject in files of earlier versions
	}
	if json.Unmarshal(text, &stored) != nil || stored.ID != id {
		return StoredFamily{}, false, damaged
	}
	if f = stored.StoredFamily; f.Subject == "" {
		f.Subject = stored.Device
	}
	return f, true, nil
}

var errDamaged = errors.New("not a family of refresh tokens")

// save makes f the content of its file. After an error, the old content is
// still there unless the new one is committed.
func (s *dirStore) save(root *os.Root, f StoredFamily) (committed bool, err error) {
	text, err := json.Marshal(f)
	if err != nil {
		return false, err
	}
	// No one can prepare a link with this name. A Root never follows a link in
	// the last place of a name that must not exist yet.
	name := f.ID + familyExt
	temporary := name + "." + rand.Text() + newExt
	file, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, s.named(err)
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = root.Rename(temporary, name)
	}
	if err != nil {
		return false, s.named(errors.Join(err, root.Remove(temporary)))
	}
	return true, s.sync(root)
}

// syncDir is a variable for tests.
var syncDir = (*os.File).Sync

// sync makes renamings and removals durable. If an old generation came back
// after a power failure, the next refresh of the device would look like theft.
func (s *dirStore) sync(root *os.Root) error {
	if runtime.GOOS == "windows" {
		return nil // Windows cannot sync a directory
	}
	dir, err := root.Open(".")
	if err != nil {
		return s.named(err)
	}
	defer dir.Close()
	err = syncDir(dir)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // some file systems cannot either, such as 9p and vboxsf
	}
	return s.named(err)
}
