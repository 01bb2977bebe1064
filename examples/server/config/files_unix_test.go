//go:build unix

package config_test

import (
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/server/config"
)

// The default of MAX_CONNECTIONS leaves files for everything else, whatever the
// process may open.
func TestConnectionsFitTheFiles(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
	env := map[string]string{"JWT_SECRET": "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID": "pi-1"}
	load := func() config.Config {
		t.Helper()
		c, err := config.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, row := range []struct {
		files uint64
		want  int
		why   string
	}{
		{100, 50, "half, if there are few"},
		{256, 192, "macOS: all but 64"},
		{1024, 922, "Linux: nine tenths"},
		{4096, 3687, "more: nine tenths"},
	} {
		limit := before
		limit.Cur = row.files
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Logf("%s: %v", row.why, err) // more than this machine allows
			continue
		}
		if c := load(); c.MaxConnections != row.want {
			t.Errorf("%d files: %d connections, want %d: %s", row.files, c.MaxConnections, row.want, row.why)
		}
	}
	env["MAX_CONNECTIONS"] = "7"
	if c := load(); c.MaxConnections != 7 {
		t.Errorf("the variable is ignored: %d", c.MaxConnections)
	}
}
