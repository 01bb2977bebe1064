//go:build !unix

package wsconn

// socketsTakeBytes is false where a socket is no descriptor that write takes: there, every frame may wait.
const socketsTakeBytes = false

func writeSocket(uintptr, []byte) (int, error) { return 0, nil }
