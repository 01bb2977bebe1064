//go:build !linux

package operate

import "net"

func socketCaller(*net.UnixConn) string { return "unix socket" }
