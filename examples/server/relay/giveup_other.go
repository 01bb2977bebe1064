//go:build !linux

package relay

import (
	"syscall"
	"time"
)

// giveUpAfter is for Linux only. Other systems give up after some minutes.
func giveUpAfter(syscall.Conn, time.Duration) {}
