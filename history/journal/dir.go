package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

// directory is the directory of a journal. Names have no slash. No method
// follows a link.
type directory interface {
	Names() ([]string, error)
	Open(name string) (file, error)   // for reading and writing
	Create(name string) (file, error) // fails if name exists
	Rename(from, to string) error     // replaces the file to
	Remove(name string) error
	Sync() error
	Close() error
}

// file is a file of a journal.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// content returns all that f holds.
func content(f file) ([]byte, error) { return io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64)) }

// disk is a directory on disk. It keeps the directory open, so that renaming
// and syncing need no file descriptor.
type disk struct {
	root *os.Root
	dir  *os.File
	lock *os.File
}

// openDisk makes, checks and locks the directory name. Each warning is
// something that the journal can do without.
func openDisk(name string, warn func(error)) (directory, error) {
	name = filepath.Clean(name)
	if err := os.MkdirAll(name, 0o700); err != nil {
		return nil, failure("open", err)
	}
	before, err := os.Lstat(name)
	if err == nil {
		err = noLink(before)
	}
	if err != nil {
		return nil, failure("open", err)
	}
	d := &disk{}
	if d.root, err = os.OpenRoot(name); err == nil {
		d.dir, err = d.root.Open(".")
	}
	var info fs.FileInfo
	if err == nil {
		info, err = d.dir.Stat()
	}
	if err != nil {
		d.Close()
		return nil, failure("open", err)
	}
	if err = trusted(info); err == nil && !os.SameFile(before, info) {
		err = errors.New("it was replaced meanwhile")
	}
	if err != nil {
		d.Close()
		return nil, &Error{"open", ReasonUnsafe, err}
	}
	if err := d.takeLock(); err != nil {
		d.Close()
		return nil, failure("lock", err)
	}
	if info.Mode().Perm() != 0o700 {
		// A volume often belongs to root, and some file systems have no modes.
		// The files in it are private all the same.
		if err := d.dir.Chmod(0o700); err != nil {
			warn(failure("chmod", err))
		}
	}
	return d, nil
}

func noLink(info fs.FileInfo) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		return &Error{"open", ReasonUnsafe, errors.New("it is a link: name the directory itself")}
	}
	return nil
}

// checkParent returns an error if name exists and another user could exchange
// the journals in it.
func checkParent(name string) error {
	info, err := os.Lstat(filepath.Clean(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = noLink(info)
	}
	if err != nil {
		return failure("open", err)
	}
	if err := trusted(info); err != nil {
		return &Error{"open", ReasonUnsafe, err}
	}
	return nil
}

// takeLock locks the file lock. That file is never removed, because two
// processes could then each lock a file of that name.
func (d *disk) takeLock() (err error) {
	const name = "lock"
	if err := d.regular(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if d.lock, err = d.root.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	return flock(d.lock)
}

// regular returns an error unless name is an ordinary file.
func (d *disk) regular(name string) error {
	info, err := d.root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = &Error{"open", ReasonUnsafe, fmt.Errorf("%s in it is not an ordinary file", name)}
	}
	return err
}

func (d *disk) Names() (names []string, err error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (d *disk) Open(name string) (file, error) {
	if err := d.regular(name); err != nil {
		return nil, err
	}
	return asFile(d.root.OpenFile(name, os.O_RDWR, 0))
}

func (d *disk) Create(name string) (file, error) {
	// O_EXCL does not follow a link either (open, POSIX.1-2017).
	return asFile(d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600))
}

// asFile makes an interface of f that is nil if f is.
func asFile(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *disk) Rename(from, to string) error { return d.root.Rename(from, to) }

func (d *disk) Remove(name string) error { return d.root.Remove(name) }

// Sync makes renames survive a power failure, if the file system can do that.
func (d *disk) Sync() error {
	if err := d.dir.Sync(); err != nil && !cannotSync(err) {
		return err
	}
	return nil
}

// Close also ends the lock.
func (d *disk) Close() (err error) {
	if d.root != nil {
		d.root.Close()
	}
	if d.lock != nil {
		err = unlock(d.lock)
	}
	for _, f := range []*os.File{d.dir, d.lock} {
		if f != nil {
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}
	}
	return err
}
