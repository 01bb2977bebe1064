package operate

import (
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// socketCaller names the process at the other end, as the kernel knows it.
func socketCaller(conn *net.UnixConn) string {
	caller := "unix socket"
	raw, err := conn.SyscallConn()
	if err != nil {
		return caller
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			caller = "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
		}
	})
	return caller
}
