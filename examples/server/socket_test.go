//go:build unix

package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
)

// through returns a client that connects to a Unix socket, as a proxy does.
func through(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
}

// On a Unix socket, the server takes each client's address from the proxy's
// headers: it serves, limits and names the right one.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir := testkit.ShortDir(t)
	path := filepath.Join(dir, "relay.sock")
	env := []string{"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "HOST=unix:" + path, "SOCKET_GROUP=" + strconv.Itoa(os.Getgid()),
		"RATE_LIMIT_CONNECTIONS=2", "RATE_LIMIT_WINDOW=1h", "NODE_ENV=production"}
	if out, _ := runVerb(t, exitOK, env, "check"); !strings.Contains(out, "The Unix socket "+path+" gets the mode 0660") {
		t.Errorf("check: %s", out)
	}
	p := launch(t, true, t.TempDir(), env)
	if p.addr != path {
		t.Errorf("it listens on %s", p.addr)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if out, _ := runVerb(t, exitOK, env, "health"); out != "ready\n" {
		t.Errorf("health: %q", out)
	}

	open := func(header ...string) int {
		t.Helper()
		header = append(header, "Host", "art.example", "X-Forwarded-Proto", "https", "Origin", "https://art.example")
		_, res := connectWith(t, through(path), "ws://art.example/ws", header...)
		return res.StatusCode
	}
	const greedy, neighbour = "192.0.2.7", "192.0.2.8"
	for _, row := range []struct {
		why    string
		header []string
		want   int
	}{
		{"the first", []string{"X-Forwarded-For", greedy}, 101},
		{"after forged addresses, which a proxy has appended to", []string{"X-Forwarded-For", "203.0.113.1, " + greedy}, 101},
		{"over the limit", []string{"X-Forwarded-For", greedy}, 429},
		{"over the limit, with other forged addresses", []string{"X-Forwarded-For", "203.0.113.2, " + greedy, "X-Real-Ip", neighbour}, 429},
		{"the neighbour", []string{"X-Forwarded-For", neighbour}, 101},
		{"the neighbour by the other header", []string{"X-Real-Ip", neighbour}, 101},
		{"who is then over the limit", []string{"X-Real-Ip", neighbour}, 429},
		{"without an address", nil, 101},
		{"with one that cannot be read", []string{"X-Forwarded-For", "unknown"}, 101},
		{"which count as one client", nil, 429},
	} {
		if got := open(row.header...); got != row.want {
			t.Errorf("%s: %d, want %d", row.why, got, row.want)
		}
	}
	for what, seen := range map[string]func() bool{
		"the refusal has the client's address": func() bool {
			for _, e := range p.stderr.Events("connection refused") {
				if client, _ := e["client"].(string); strings.HasPrefix(client, greedy) {
					return true
				}
			}
			return false
		},
		"missing addresses are reported": func() bool {
			return strings.Contains(p.stderr.String(), "so all clients that it sends so count as one")
		},
		"a refusal of the proxy is reported": func() bool {
			return strings.Contains(p.stderr.String(), "a trusted proxy itself was refused")
		},
	} {
		testkit.Eventually(t, what, seen)
	}
	// Without a proxy's X-Forwarded-Proto, a page of https is foreign.
	if _, res := connectWith(t, through(path), "ws://art.example/ws", "X-Forwarded-For", "192.0.2.9", "Origin", "https://art.example"); res.StatusCode != 403 {
		t.Errorf("without X-Forwarded-Proto: %s", res.Status)
	}

	second := launch(t, false, t.TempDir(), env)
	if code := second.wait(); code != exitFailed || !strings.Contains(second.stderr.String(), "another server listens") {
		t.Errorf("a second server: exit code %d: %s", code, second.stderr)
	}
	if code := p.terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if _, told := runVerb(t, exitFailed, env, "health"); !strings.Contains(told, "no such file") {
		t.Errorf("health: %s", told)
	}
	for says, more := range map[string][]string{
		"the directory of the socket":  {"HOST=unix:" + filepath.Join(dir, "none", "s")},
		`has no group "no-such-group"`: {"SOCKET_GROUP=no-such-group"},
	} {
		bad := append(env[:len(env):len(env)], more...)
		third := launch(t, false, t.TempDir(), bad)
		if code := third.wait(); code != exitFailed || !strings.Contains(third.stderr.String(), says) {
			t.Errorf("%q: exit code %d: %s", more, code, third.stderr)
		}
		if out, _ := runVerb(t, exitFailed, bad, "check"); !strings.Contains(out, says) {
			t.Errorf("check, %q: %s", more, out)
		}
	}
}

// The variables of a Unix socket are checked before the start.
func TestSocketVariables(t *testing.T) {
	const path = "unix:/run/relay-proxy/relay.sock"
	for _, row := range []struct {
		why  string
		env  map[string]string
		says string
	}{
		{"as documented", map[string]string{"HOST": path, "SOCKET_GROUP": "www-data"}, ""},
		{"a group by its number", map[string]string{"HOST": path, "SOCKET_GROUP": "33"}, ""},
		{"for the owner alone", map[string]string{"HOST": path, "SOCKET_MODE": "0600"}, ""},
		{"without other proxies", map[string]string{"HOST": path, "TRUSTED_PROXIES": "none"}, ""},
		{"a path that depends on the directory", map[string]string{"HOST": "unix:relay.sock"}, "HOST must name a Unix socket by its whole path"},
		{"a path with a detour", map[string]string{"HOST": "unix:/run/../etc/relay.sock"}, "HOST must name a Unix socket"},
		{"no path", map[string]string{"HOST": "unix:"}, "HOST must name a Unix socket"},
		{"a path that is too long", map[string]string{"HOST": "unix:/" + strings.Repeat("n", 80)}, "at most 80 bytes"},
		{"a URL", map[string]string{"HOST": "unix:///run/relay.sock"}, "HOST must name a Unix socket"},
		{"a mode for everyone", map[string]string{"HOST": path, "SOCKET_MODE": "0666"}, "SOCKET_MODE must not admit all users"},
		{"a mode that locks the server's user out", map[string]string{"HOST": path, "SOCKET_MODE": "0060"}, "SOCKET_MODE must be an octal mode"},
		{"a decimal mode", map[string]string{"HOST": path, "SOCKET_MODE": "0680"}, "SOCKET_MODE must be an octal mode"},
		{"a mode with setuid", map[string]string{"HOST": path, "SOCKET_MODE": "4660"}, "SOCKET_MODE must be an octal mode"},
		{"a malformed group", map[string]string{"HOST": path, "SOCKET_GROUP": "a b"}, "SOCKET_GROUP must be the name or the number of a group"},
		{"a group of no socket", map[string]string{"SOCKET_GROUP": "www-data"}, "SOCKET_GROUP is for a Unix socket in HOST"},
		{"TLS on the socket", map[string]string{"HOST": path, "TLS_CERT_FILE": "/c", "TLS_KEY_FILE": "/k"}, "TLS_CERT_FILE cannot be set together with a Unix socket"},
	} {
		cfg, err := config.Load(environment(row.env))
		if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want %q", row.why, err, row.says)
		}
		if err == nil && cfg.Addr() != path {
			t.Errorf("%s: %s", row.why, cfg.Addr())
		}
	}
}
