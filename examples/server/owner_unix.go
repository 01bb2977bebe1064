//go:build unix

package main

import (
	"os"
	"syscall"
)

// ownedByOther reports whether a directory that is there belongs to another
// user, and to which.
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
