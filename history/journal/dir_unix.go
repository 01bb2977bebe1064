//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// flock takes an advisory lock on f. The lock ends with unlock, or with the
// process.
func flock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// unlock ends the lock of flock. Closing f alone does not end it while a process
// that this one starts has a copy of f, which is until its program begins.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// trusted returns an error if another user can change a directory. The
// superuser, who can change everything, may own it: a volume in a container
// often belongs to root.
func trusted(info fs.FileInfo) error {
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("any user may write to it (mode %04o)", info.Mode().Perm())
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, and this process runs as user %d", stat.Uid, os.Geteuid())
	}
	return nil
}

// cannotSync reports whether err of a directory's fsync means that the file
// system has no such operation (9p, vboxsf and some of FUSE).
func cannotSync(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported)
}
