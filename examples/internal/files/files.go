// Package files writes small files that must survive a crash: state, tokens and
// secrets. A file that it writes is readable by its owner alone.
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

// Slot is room on the disk for the next content of a file. It shows, before
// anything irrevocable is done, that the content can be kept.
type Slot struct {
	path string // of the file
	f    *os.File
}

// Reserve makes a slot of size bytes for the file at path, which need not
// exist. If path is a link, the file is what it links to. The slot is a file
// beside it, so its directory must be writable. The caller ends the slot with
// Commit or Discard.
func Reserve(path string, size int) (*Slot, error) {
	switch target, err := filepath.EvalSymlinks(path); {
	case err == nil:
		path = target
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	name := path + ".new" // always the same, so that crashes leave one behind at most
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

// Commit makes data the file's content, in one step: a crash leaves the old
// content or the new. When it returns nil, the new content is on the disk. It
// ends the slot in every case.
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
		return nil // it has no such call for directories
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Discard ends a slot that is not committed. It does nothing to one that has
// ended.
func (s *Slot) Discard() {
	if s.f.Close() == nil {
		_ = os.Remove(s.f.Name())
	}
}

// Replace makes data the content of the file at path, in one step and on the
// disk.
func Replace(path string, data []byte) error {
	s, err := Reserve(path, len(data))
	if err != nil {
		return err
	}
	return s.Commit(data)
}

// Create writes data to a new file at path. Its error is [fs.ErrExist] if there
// is one already.
func Create(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// Read returns the content of the file at path, of most bytes at most.
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
