package deploy_test

import (
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestSocketDirectory lets systemd-tmpfiles make the directory of the socket,
// and runs the relay with the identity that its unit gives it: a user who is in
// no group of the proxy, in a namespace that knows only this user
// (PrivateUsers). The socket has the group of the proxy.
func TestSocketDirectory(t *testing.T) {
	tmpfiles := program(t, "systemd-tmpfiles", "systemd")
	if os.Geteuid() != 0 {
		testkit.Missing(t, "a directory of another user takes root: run this test as root")
	}
	for _, line := range []string{"\nPrivateUsers=yes\n", "\nReadWritePaths=-/run/relay-proxy\n"} {
		if !strings.Contains(shipped(t, "relay.service"), line) {
			t.Errorf("relay.service has no line %q", line)
		}
	}
	proxys, err := user.LookupGroup("www-data")
	if err != nil {
		testkit.Missing(t, "no group www-data: make one")
	}
	base := testkit.ShortDir(t)
	if err := os.Chmod(base, 0o755); err != nil { // so that other users can enter
		t.Fatal(err)
	}
	dir := filepath.Join(base, "relay-proxy")
	text := strings.NewReplacer("/run/relay-proxy", dir, " relay ", " "+strconv.Itoa(nobody)+" ").Replace(shipped(t, "relay-tmpfiles.conf"))
	if out, err := exec.Command(tmpfiles, "--create", put(t, base, "relay.conf", text)).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("systemd-tmpfiles: %v\n%s", err, out)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o750 {
		t.Fatalf("%v, %v", info, err)
	}

	server := relay.New(t, "HOST=unix:"+filepath.Join(dir, "relay.sock"))
	for _, path := range []string{server.Binary(), filepath.Dir(server.Binary()), filepath.Dir(filepath.Dir(server.Binary()))} {
		if err := os.Chmod(path, 0o755); err != nil { // so that the user can run it
			t.Fatal(err)
		}
	}
	server.As = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: nobody, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: nobody, Size: 1}},
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true},
	}
	server.Start()
	info, err := os.Lstat(filepath.Join(dir, "relay.sock"))
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if info.Mode() != fs.ModeSocket|0o660 || strconv.Itoa(int(owner.Gid)) != proxys.Gid || owner.Uid != nobody {
		t.Errorf("the socket is %v of %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
	res, err := server.Client().Get("http://art.example/readyz")
	if err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
	server.Stop()
	if _, err := os.Lstat(filepath.Join(dir, "relay.sock")); !os.IsNotExist(err) {
		t.Errorf("after the end: %v", err)
	}
}
