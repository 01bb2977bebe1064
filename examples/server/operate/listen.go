package operate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// socketPrefix begins an address that is the path of a Unix socket.
const socketPrefix = "unix:"

// Listen listens at addr: host:port, or unix:PATH. A Unix socket is created for
// its owner alone, in the place of one that no server listens on any more. Its
// directory must exist.
func Listen(ctx context.Context, config net.ListenConfig, addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, socketPrefix)
	if !ok {
		return config.Listen(ctx, "tcp", addr)
	}
	ln, err := listenSocket(ctx, config, path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ln, err
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s exists and is not a socket", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another server listens on %s", path)
	} else if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return listenSocket(ctx, config, path)
}

// listenSocket creates the socket in a directory that no one else can enter,
// and moves it to path when its mode is final, so that no other user can
// connect in between.
func listenSocket(ctx context.Context, config net.ListenConfig, path string) (net.Listener, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s: %w", path, syscall.EADDRINUSE)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	ln, err := config.Listen(ctx, "unix", made)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &socketListener{ln, path}, nil
}

// socketListener removes its socket when it is closed.
type socketListener struct {
	net.Listener
	path string
}

func (l *socketListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: l.path} }

func (l *socketListener) Close() error {
	err := l.Listener.Close()
	if err == nil {
		err = os.Remove(l.path)
	}
	return err
}
