//go:build unix

package refresh

import (
	"io/fs"
	"syscall"
)

// ownerOf returns the ID of the user that owns a file, or -1.
func ownerOf(file fs.FileInfo) int {
	if stat, ok := file.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}
