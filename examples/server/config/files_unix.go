//go:build unix

package config

import "syscall"

// openFiles returns how many files the process may open, or 0 if that is not
// known.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return uint64(limit.Cur)
}
