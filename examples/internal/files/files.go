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
)

// Slot is reserved space on the disk for the next content of a file. With a
// slot, a caller knows that it can keep the content before it does anything
// irrevocable.
type Slot struct {
	path string // of the file
	f    *os.File
}

// Reserve makes a slot of size bytes for the file at path, which need not
// exist. If path is a link, the slot is for the target of the link. The slot is
// itself a file in the same directory, so that directory must be writable. The
// caller ends the slot with Commit or Discard.
func Reserve(path string, size int) (*Slot, error) {
	switch target, err := filepath.EvalSymlinks(path); {
	case err == nil:
		path = target
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	name := path + ".new" // always the same name, so that crashes leave at most one such file
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w (the file's directory must be writable)", err)
	}
	s := &Slot{path, f}
	_, err = f.Write(bytes.Repeat([]byte{' '}, size))
	if err = errors.Join(err, f.Sync()); err != nil { // a full disk
		s.Discard()
		return nil, err
	}
	return s, nil
}

// Commit replaces the content of the file with data, in one step: after a
// crash, the file has the old content or the new. If Commit returns nil, the
// new content is on the disk. It ends the slot, even if it returns an error.
func (s *Slot) Commit(data []byte) error {
	_, err := s.f.WriteAt(data, 0)
	if err == nil {
		err = s.f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = s.f.Sync()
	}
	if err = errors.Join(err, s.f.Close()); err == nil {
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
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Discard ends a slot without a change of the file. It does nothing if the slot
// has already ended.
func (s *Slot) Discard() {
	if s.f.Close() == nil {
		_ = os.Remove(s.f.Name())
	}
}

// Replace replaces the content of the file at path with data, in one step. If
// it returns nil, the new content is on the disk.
func Replace(path string, data []byte) error {
	s, err := Reserve(path, len(data))
	if err != nil {
		return err
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
