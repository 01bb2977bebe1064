//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package journal

import (
	"errors"
	"os"
)

// lockFile fails, because without a lock two processes would destroy each
// other's keys.
func lockFile(string) (*os.File, error) { return nil, errors.ErrUnsupported }
