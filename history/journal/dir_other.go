//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package journal

import (
	"errors"
	"io/fs"
	"os"
)

// flock fails, because without a lock two processes would destroy each other's
// keys.
func flock(*os.File) error { return errors.ErrUnsupported }

func unlock(*os.File) error { return nil }

func trusted(fs.FileInfo) error { return nil }

func cannotSync(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
