package lives

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

var errForeign = errors.New("it is not an ordinary file")

// dir is the directory of a store. No method follows a link.
type dir struct {
	root *os.Root
	self *os.File
	lock *os.File
}

// openDir makes, checks and locks the directory name. Each warning is something
// that the store can do without.
func openDir(name string, warn func(error)) (*dir, error) {
	name = filepath.Clean(name)
	if err := os.MkdirAll(name, 0o700); err != nil {
		return nil, fmt.Errorf("lives: %w", err)
	}
	info, err := Usable(name)
	if err != nil {
		return nil, err
	}
	d := &dir{}
	if d.root, err = os.OpenRoot(name); err == nil {
		d.self, err = d.root.Open(".")
	}
	if err == nil {
		var opened fs.FileInfo
		if opened, err = d.self.Stat(); err == nil && !os.SameFile(info, opened) {
			err = errors.New("the directory was replaced meanwhile")
		}
	}
	if err == nil {
		err = d.takeLock()
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("lives: %w", err)
	}
	if info.Mode().Perm() != 0o700 {
		// Some volumes have no modes. The files in it are private all the same.
		if err := d.self.Chmod(0o700); err != nil {
			warn(err)
		}
	}
	return d, nil
}

// Usable returns an error that says what to do if the directory name exists and
// cannot keep lives: it is a link or no directory, or another user can change
// it. It changes nothing.
func Usable(name string) (fs.FileInfo, error) {
	info, err := os.Lstat(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("lives: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("lives: %s is a link: name the directory itself", name)
	case !info.IsDir():
		return nil, fmt.Errorf("lives: %s is no directory: name one, which need not exist", name)
	}
	if err := trusted(info); err != nil {
		return nil, fmt.Errorf("lives: %s: %w", name, err)
	}
	return info, nil
}

// takeLock locks the file lock. That file is never removed, because two
// processes could then each lock a file of that name.
func (d *dir) takeLock() (err error) {
	const name = "lock"
	if info, err := d.root.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s in the directory: %w", name, errForeign)
	}
	if d.lock, err = d.root.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	err = flock(d.lock)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

func (d *dir) names() (names []string, err error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// open opens an ordinary file for reading, and returns its size.
func (d *dir) open(name string) (*os.File, int64, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, info.Size(), errForeign
	}
	f, err := d.root.Open(name)
	return f, info.Size(), err
}

// write makes the file of a life with what content writes, and returns its
// size. It makes the file only when all of it is on the disk.
func (d *dir) write(id string, content func(io.Writer) (int64, error)) (int64, error) {
	name := fileName(id)
	f, err := d.root.OpenFile(name+temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(f, 2*maxPiece)
	size, err := content(out)
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.root.Rename(name+temporary, name)
	}
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		_ = d.root.Remove(name + temporary)
		_ = d.root.Remove(name)
		return 0, err
	}
	return size, nil
}

// destroy overwrites the salt of a file, without which nothing opens it, and
// removes the file.
func (d *dir) destroy(name string) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		noise := make([]byte, len(magic)+saltSize)
		rand.Read(noise)
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() >= int64(len(noise)) {
			_, _ = f.WriteAt(noise, 0) // the file is removed in any case
			_ = f.Sync()
		}
		f.Close()
	}
	if err := d.root.Remove(name); err != nil {
		return err
	}
	return d.sync()
}

// sync makes renames and removals survive a power failure, if the file system
// can do that.
func (d *dir) sync() error {
	if err := d.self.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// close also ends the lock.
func (d *dir) close() (err error) {
	if d.root != nil {
		err = d.root.Close()
	}
	if d.lock != nil {
		err = errors.Join(err, unlock(d.lock))
	}
	for _, f := range []*os.File{d.self, d.lock} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
