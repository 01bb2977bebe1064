//go:build !unix

package wsconn

// socketsTakeBytes is false if a socket is not a descriptor for the system call
// write. Every frame may then wait.
const socketsTakeBytes = false

func writeSocket(uintptr, []byte) (int, error) { return 0, nil }
