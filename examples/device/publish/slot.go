package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// slot is a place beside a file for the file's next content, with room for it.
type slot struct {
	path string // of the file
	f    *os.File
}

// reserve makes a slot, and so finds out whether the file can be replaced at all.
func reserve(path string) (*slot, error) {
	// Where the path is a link, what it links to is the file.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w (the file's directory must be writable)", err)
	}
	s := &slot{path, f}
	_, err = f.Write(bytes.Repeat([]byte{' '}, maxTokenFile/4))
	if err = errors.Join(err, f.Sync()); err != nil { // a full disk
		s.discard()
		return nil, err
	}
	return s, nil
}

// commit replaces the file. A crash leaves the old content or the new.
func (s *slot) commit(data []byte) error {
	_, err := s.f.WriteAt(data, 0)
	if err == nil {
		err = s.f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = s.f.Sync()
	}
	if err = errors.Join(err, s.f.Close()); err != nil {
		return err
	}
	if err := os.Rename(s.f.Name(), s.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// discard takes away what was not committed.
func (s *slot) discard() {
	if s.f.Close() == nil {
		_ = os.Remove(s.f.Name())
	}
}

// readFile is os.ReadFile with a bound.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err == nil && len(data) > maxTokenFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxTokenFile)
	}
	return data, err
}
