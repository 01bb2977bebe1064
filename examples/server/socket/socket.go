// Package socket listens on TCP addresses and on Unix sockets.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// prefix begins an address that is the path of a Unix socket.
const prefix = "unix:"

// MaxPath is the length of the longest path of a socket in bytes. The kernel's
// bound is 104 or 108 bytes, of which the name beside the path takes some while
// [Listen] makes the socket.
const MaxPath = 80

// Path returns the path in unix:PATH. It returns false for any other address.
func Path(addr string) (path string, ok bool) { return strings.CutPrefix(addr, prefix) }

// Access says which users may connect to a Unix socket.
type Access struct {
	Mode  fs.FileMode // permissions, of which the ones to write count
	Group string      // a name or a number; if empty, the group of a new file
}

// Owner admits the processes of the server's own user, and of root.
var Owner = Access{Mode: 0o600}

// Listen listens at addr: host:port, or unix:PATH. It creates a Unix socket
// with the given access, in the place of a socket on which no process listens
// any more. The directory must exist. The socket is removed when the listener
// is closed.
func Listen(ctx context.Context, config net.ListenConfig, addr string, access Access) (net.Listener, error) {
	path, ok := Path(addr)
	if !ok {
		return config.Listen(ctx, "tcp", addr)
	}
	gid, err := access.gid()
	if err != nil {
		return nil, err
	}
	if err := Free(path); err != nil {
		return nil, err
	}
	ln, err := listen(ctx, config, path, access, gid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("the directory of the socket %s does not exist: create it (%w)", path, err)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("this user may not create the socket %s: let it write to the directory (%w)", path, err)
	}
	return ln, err
}

// Free returns an error if no socket can be made at path, because a process
// listens there or another file is there. It removes nothing.
func Free(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("another server listens on %s", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err // it is not known whether one listens
	}
	return nil
}

// Check returns an error if a server of this user cannot listen on the Unix
// socket at path because of the directory or the group.
func (a Access) Check(path string) error {
	if _, err := a.gid(); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Dir(path))
	switch {
	case err != nil:
		return fmt.Errorf("the directory of the socket: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", filepath.Dir(path))
	}
	return nil
}

// gid returns the number of the group, or -1 for none.
func (a Access) gid() (int, error) {
	if a.Group == "" {
		return -1, nil
	}
	number := a.Group
	if group, err := user.LookupGroup(a.Group); err == nil {
		number = group.Gid
	}
	gid, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("this machine has no group %q", a.Group)
	}
	return int(gid), nil
}

// listen creates the socket in a directory that no other user can enter, and
// moves it to path when its group and mode are final, so that no other user can
// connect in between. The move replaces a socket that is no longer used.
func listen(ctx context.Context, config net.ListenConfig, path string, access Access, gid int) (net.Listener, error) {
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
	if gid >= 0 {
		if err = os.Chown(made, -1, gid); err != nil {
			err = fmt.Errorf("the socket cannot have the group %s: this user must be a member of it (%w)", access.Group, withoutPath(err))
		}
	}
	if err == nil {
		err = os.Chmod(made, access.Mode.Perm())
	}
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(made)
	}
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &listener{ln, path, info}, nil
}

// withoutPath returns the cause of err, whose path is that of a moment, and
// which does not count as an error of the directory.
func withoutPath(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return errors.New(at.Err.Error())
	}
	return err
}

// listener removes its socket when it is closed.
type listener struct {
	net.Listener
	path string
	info fs.FileInfo // of the socket
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: l.path} }

// Close leaves a socket alone that another process has put in the place.
func (l *listener) Close() error {
	err := l.Listener.Close()
	if err != nil {
		return err
	}
	if now, err := os.Lstat(l.path); err != nil || !os.SameFile(now, l.info) {
		return nil
	}
	return os.Remove(l.path)
}
