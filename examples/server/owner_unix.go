//go:build unix

package main

import (
	"os"
	"syscall"
)

// ownedByOther reports whether dir exists and belongs to another user, and
// returns that user's ID.
func ownedByOther(dir string) (owner int, other bool) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), int(stat.Uid) != os.Geteuid()
}
