//go:build unix

package config_test

import (
	"maps"
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
	env := make(map[string]string)
	load := func() config.Config {
		t.Helper()
		c, err := config.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const key = "2mZs7LhYc4NwKe9UbPfGa3Ddtq8xJ2vR0mZs7LhYc4M"
	const rooms = "pi-1,pi-2,pi-3,pi-4,pi-5,pi-6,pi-7,pi-8,pi-9,pi-10"
	for _, row := range []struct {
		files uint64
		more  map[string]string
		want  int
		why   string
	}{
		{100, nil, 50, "half, if there are few"},
		{256, nil, 192, "macOS: all but 64"},
		{1024, nil, 922, "Linux: nine tenths"},
		{4096, nil, 3687, "more: nine tenths"},
		{1024, map[string]string{"ROOMS": rooms}, 922, "rooms in memory take no files"},
		{1024, map[string]string{"HISTORY_DIR": "/var/lib/relay", "HISTORY_KEY": key}, 922, "one journal is among the others"},
		{1024, map[string]string{"ROOMS": rooms, "HISTORY_DIR": "/var/lib/relay", "HISTORY_KEY": key}, 850, "ten journals of eight files: nine tenths of 944"},
		{1024, map[string]string{"ROOMS": rooms, "REDIS_URL": "redis://localhost", "HISTORY_KEY": key}, 913, "ten connections: nine tenths of 1014"},
		{64, map[string]string{"ROOMS": rooms, "HISTORY_DIR": "/var/lib/relay", "HISTORY_KEY": key}, 1, "fewer than the rooms take"},
	} {
		clear(env)
		maps.Copy(env, map[string]string{"JWT_SECRET": "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID": "pi-1"})
		maps.Copy(env, row.more)
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
