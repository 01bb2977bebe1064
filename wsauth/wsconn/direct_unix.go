//go:build unix

package wsconn

import "syscall"

const socketsTakeBytes = true

// writeSocket writes to a descriptor in non-blocking mode, which all
// descriptors of the runtime have.
func writeSocket(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), p)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}
