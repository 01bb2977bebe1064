// Package files writes small files that must survive a crash: state, tokens and
// secrets. Only the owner of such a file can read it.
package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
)

// Slot is reserved space on the disk for the next content of a file. With a
// slot, a caller knows that it can keep the content before it does anything
// irrevocable.
type Slot struct {
	path  string   // of the file
	f     *os.File // a file beside it that will be renamed, or the file itself
	place bool     // f is the file itself, which is written in place
	old   []byte   // its content then
}

// Reserve makes a slot of size bytes for the file at path, which need not
// exist. If path is a link, the file is what it links to. The caller ends the
// slot with Commit or Discard.
//
// The slot is a file beside the one at path, with the name of that one and
// ".new". Reserve renames a copy of the content over the file, as Commit does
// later, because that can be impossible in a directory that is writable: a
// single file that is mounted, or one of another user in a directory with the
// sticky bit. The slot is then the file itself, if it can be written in place.
// A crash within Commit can damage such a file.
func Reserve(path string, size int) (*Slot, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	if err := rehearse(path); err != nil {
		return reserveInPlace(path, size, err)
	}
	s, err := reserveBeside(path, size)
	if err != nil {
		return reserveInPlace(path, size, err)
	}
	return s, nil
}

// resolve returns the path of the file to which path leads.
func resolve(path string) (string, error) {
	switch target, err := filepath.EvalSymlinks(path); {
	case err == nil:
		return target, nil
	case errors.Is(err, fs.ErrNotExist):
		return path, nil
	default:
		return "", err
	}
}

// rehearse replaces the file at path, if there is one, by a copy of itself.
func rehearse(path string) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := reserveBeside(path, len(old))
	if err != nil {
		return err
	}
	return s.rename(old)
}

// reserveBeside makes a slot that will be renamed.
func reserveBeside(path string, size int) (*Slot, error) {
	name := path + ".new" // always the same, so that crashes leave one behind at most
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	s := &Slot{path: path, f: f}
	if err = fill(f, nil, size); err != nil { // a full disk
		s.Discard()
		return nil, err
	}
	return s, nil
}

// reserveInPlace makes a slot of the file itself, if cause says that it cannot
// be replaced.
func reserveInPlace(path string, size int, cause error) (*Slot, error) {
	if !irreplaceable(cause) {
		return nil, explain(path, cause)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, explain(path, cause)
	}
	old, err := io.ReadAll(f)
	if err == nil {
		// The same bytes again, which show that the file can be written and
		// that a crash harms nothing, and spaces behind them for more.
		err = fill(f, old, size)
	}
	if err != nil {
		return nil, explain(path, errors.Join(cause, err, f.Close()))
	}
	return &Slot{path: path, f: f, place: true, old: old}, nil
}

// fill makes data the beginning of f, adds spaces up to size bytes, and waits
// until the disk has them.
func fill(f *os.File, data []byte, size int) error {
	padded := append(slices.Clip(data), bytes.Repeat([]byte{' '}, max(size-len(data), 0))...)
	_, err := f.WriteAt(padded, 0)
	return errors.Join(err, f.Sync())
}

// irreplaceable reports whether err says that a file cannot be replaced though
// it might be written.
func irreplaceable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EXDEV)
}

func explain(path string, err error) error {
	return fmt.Errorf("%w (the directory %s must be writable for this user, or the file itself)", err, filepath.Dir(path))
}

// Commit makes data the file's content. When it returns nil, the new content is
// on the disk. A crash leaves the old content or the new, unless the file is
// written in place. Commit ends the slot in every case.
func (s *Slot) Commit(data []byte) error {
	if s.place {
		err := errors.Join(overwrite(s.f, data), s.f.Close())
		if err != nil {
			return explain(s.path, err)
		}
		return nil
	}
	err := s.rename(data)
	if err == nil || !irreplaceable(err) {
		return err
	}
	// It can have become irreplaceable since Reserve, or Replace has not tried.
	f, openErr := os.OpenFile(s.path, os.O_RDWR, 0)
	if openErr != nil {
		return explain(s.path, err)
	}
	if again := errors.Join(overwrite(f, data), f.Close()); again != nil {
		return explain(s.path, errors.Join(err, again))
	}
	return nil
}

// overwrite makes data the content of f.
func overwrite(f *os.File, data []byte) error {
	_, err := f.WriteAt(data, 0)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = f.Sync()
	}
	return err
}

// rename makes data the content of the file beside, and renames it.
func (s *Slot) rename(data []byte) error {
	err := errors.Join(overwrite(s.f, data), s.f.Close())
	if err == nil {
		err = os.Rename(s.f.Name(), s.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(s.f.Name()))
	}
	if runtime.GOOS == "windows" {
		return nil // Windows cannot sync a directory
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return committed(err)
	}
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // some file systems have no such call either: 9p, vboxsf, some of FUSE
	}
	return committed(errors.Join(err, dir.Close()))
}

// committed returns err, which happened after the file was replaced.
func committed(err error) error {
	if err != nil {
		return fmt.Errorf("the new content is in its place, but a loss of power may undo that: %v", err)
	}
	return nil
}

// Discard ends a slot without a change of the file. It does nothing if the slot
// has already ended.
func (s *Slot) Discard() {
	if s.place {
		_ = s.f.Truncate(int64(len(s.old)))
		_ = s.f.Close()
		return
	}
	if s.f.Close() == nil {
		_ = os.Remove(s.f.Name())
	}
}

// Replace makes data the content of the file at path, on the disk, and in one
// step if the file can be replaced; see [Reserve].
func Replace(path string, data []byte) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	s, err := reserveBeside(path, len(data))
	if err != nil {
		// Nothing is rehearsed: the caller has done nothing irrevocable.
		if s, err = reserveInPlace(path, len(data), err); err != nil {
			return err
		}
	}
	return s.Commit(data)
}

// Create writes data to a new file at path. Its error wraps [fs.ErrExist] if
// the file already exists.
func Create(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// Read returns the content of the file at path. It returns an error if that is
// larger than most bytes.
func Read(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("%s: larger than %d bytes", path, most)
	}
	return data, err
}
