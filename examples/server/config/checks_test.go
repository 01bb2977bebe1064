package config_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/ratelimit"
)

// The reason for which an origin is refused says what to write instead.
func TestCheckOrigin(t *testing.T) {
	for _, row := range []struct{ origin, says, why string }{
		{"https://art.example", "", "as browsers send it"},
		{"https://xn--mnchen-3ya.example", "", "an international name, as browsers send it"},
		{"https://münchen.example", "xn--", "as people write it"},
		{"https://例え.テスト", "xn--", "in another script"},
		{"https://art.example/", "without a path", "copied from the address bar"},
		{"art.example", "without a path", "a host is no origin"},
		{"*", "without a path", "no wildcard"},
	} {
		err := config.CheckOrigin(row.origin)
		if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s (%s): %v, want a reason with %q", row.origin, row.why, err, row.says)
		}
	}
}

// A device must not have the name in the operator's own tokens. To revoke the
// device would lock the operator out.
func TestDeviceNames(t *testing.T) {
	for _, row := range []struct {
		devices string
		valid   bool
		why     string
	}{
		{"pi-1,pi_2", true, "as documented"},
		{"Operator,operator-1", true, "names are compared as they are"},
		{"operator", false, "the name in the operator's tokens"},
		{"pi-1, operator", false, "in a list too"},
		{"pi 1", false, "with a space"},
		{strings.Repeat("a", 65), false, "too long"},
	} {
		env := map[string]string{"JWT_SECRET": "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID": row.devices}
		_, err := config.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if (err == nil) != row.valid {
			t.Errorf("%q (%s): %v", row.devices, row.why, err)
		}
	}
}

// RATE_LIMIT_NETWORKS names a wrong item by its place, and does not quote it.
func TestNetworks(t *testing.T) {
	for _, row := range []struct{ value, says, why string }{
		{"203.0.113.0/24=500", "", "as documented"},
		{" 203.0.113.0/24 = 500 ,2001:db8::/48=none", "", "with spaces"},
		{"198.51.100.7=20", "", "a single address"},
		{"203.0.113.0/24", "item 1 has no limit", "no limit"},
		{"10.0.0.0/8=5,203.0.113.0/24=0", "item 2 has no limit from 1 to 1000000", "zero may be meant as none"},
		{"203.0.113.0/24=-1", "item 1 has no limit", "none is a word"},
		{"203.0.113.0/24=1000001", "item 1 has no limit", "more than RATE_LIMIT_CONNECTIONS may be"},
		{"500=203.0.113.0/24", "item 1 has no network", "the wrong way round"},
		{"private=500", "item 1 has no network", "a word for several"},
		{"10.0.0.0/8=5,", "item 2 has no network", "an item is missing"},
		{"0.0.0.0/0=none", "item 1 has no network", "everyone: that is no network, and switches the limit off"},
		{"192.0.2.0/24=5,2002:c000:200::/40=6", "item 2 has a network that an earlier item has", "the same in the form of a tunnel"},
		{"10.0.0.0/8=+5", "item 1 has no limit", "a sign"},
		{"10.0.0.0/8=5,10.1.0.0/8=6", "item 2 has a network that an earlier item has", "which of them would count?"},
	} {
		env := map[string]string{"JWT_SECRET": "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID": "pi-1", "RATE_LIMIT_NETWORKS": row.value}
		_, err := config.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if (err == nil) != (row.says == "") || err != nil && (!strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "203.0.113.0/24=")) {
			t.Errorf("%q (%s): %v, want %q", row.value, row.why, err, row.says)
		}
	}
}

// FuzzNetworks asserts that the limiter takes every list that is accepted.
func FuzzNetworks(f *testing.F) {
	for _, seed := range []string{"203.0.113.0/24=500,198.51.100.7=none", "=", "::/1=1", "2002:c000:200::/40=1,192.0.2.0/24=1", "fe80::1%x=1", "10.0.0.0/8 =1# ,x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		env := map[string]string{"JWT_SECRET": "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID": "pi-1", "RATE_LIMIT_NETWORKS": value}
		cfg, err := config.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if err != nil {
			return
		}
		if _, err := ratelimit.New(ratelimit.Config{Networks: cfg.RateNetworks}); err != nil {
			t.Errorf("%q: %v", value, err)
		}
	})
}

// Servers on one engine keep nothing in directories, and what they keep in the
// engine is encrypted. The errors hold no password.
func TestEngine(t *testing.T) {
	const key, password = "kq3LrV0pN8xWc5ZtYb1mJd7HsGf2QaEu9iToR4CvXyM", "pKx4vWq9LmZr2TbN"
	const url = "redis://relay:" + password + "@engine.example"
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		env  map[string]string
		says string
		why  string
	}{
		{map[string]string{"REDIS_URL": url, "HISTORY_KEY": key, "NODE_ENV": "production"}, "", "as documented"},
		{map[string]string{"REDIS_URL_FILE": file, "HISTORY_KEY": key}, "", "from a file"},
		{map[string]string{"REDIS_URL": url}, "", "while developing, with JWT_SECRET"},
		{map[string]string{"REDIS_URL": url, "NODE_ENV": "production"}, "HISTORY_KEY is required together with REDIS_URL in production", "in production"},
		{map[string]string{"REDIS_URL": url, "JWT_SECRET": "", "JWT_ISSUER": "https://id.example"}, "HISTORY_KEY is required together with REDIS_URL", "there is no secret to derive keys from"},
		{map[string]string{"REDIS_URL": url, "HISTORY_KEY": key, "HISTORY_DIR": "/var/lib/relay"}, "export it with HISTORY_DIR, and import it with REDIS_URL", "the history is in one place"},
		{map[string]string{"REDIS_URL": url, "HISTORY_KEY": key, "AUTH_DIR": "/var/lib/relay"}, "remove AUTH_DIR", "so are the families"},
		{map[string]string{"REDIS_URL": "http://relay:" + password + "@h", "HISTORY_KEY": key}, "REDIS_URL must be like redis://", "another protocol"},
		{map[string]string{"REDIS_URL": url, "HISTORY_KEY": key, "REDIS_PREFIX": "{relay}"}, "REDIS_PREFIX must be made of letters", "braces place keys in a cluster"},
		{map[string]string{"REDIS_URL": url, "HISTORY_KEY": key, "REDIS_REPLICAS": "-1"}, "REDIS_REPLICAS", "no number of replicas"},
		{map[string]string{"REDIS_URL": url, "HISTORY_KEY": key, "NODE_NAME": "a b"}, "NODE_NAME must be made of letters", "a name for logs"},
		{map[string]string{"HISTORY_KEY": key}, "HISTORY_KEY encrypts nothing without HISTORY_DIR, LIVES_DIR or REDIS_URL", "a forgotten variable"},
	} {
		env := map[string]string{"JWT_SECRET": "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID": "pi-1"}
		maps.Copy(env, row.env)
		cfg, err := config.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want %q", row.why, err, row.says)
		}
		if err != nil && strings.Contains(err.Error(), password) || strings.Contains(fmt.Sprintf("%+v", cfg), password) {
			t.Errorf("%s: the password is shown", row.why)
		}
		if err == nil {
			if e, err := cfg.NewEngine(nil); e == nil || err != nil || cfg.Node == "" || !slices.Contains(cfg.Secrets(), password) {
				t.Errorf("%s: engine %v, %v, node %q", row.why, e, err, cfg.Node)
			}
		}
	}
}

// ROOMS names rooms, or those of all devices.
func TestRooms(t *testing.T) {
	many := func(n int) string {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("r%d", i))
		}
		return strings.Join(names, ",")
	}
	for _, row := range []struct {
		rooms, devices string
		want           string // the rooms, or the end of the error
		ok             bool
		why            string
	}{
		{"", "pi-1", "", true, "one conversation"},
		{"pi-1,Stage_2", "pi-1", "pi-1,Stage_2", true, "a room that no device has the name of"},
		{" pi-1 , pi-2 ", "pi-1,pi-2", "pi-1,pi-2", true, "spaces"},
		{"*", "pi-1,pi-2", "pi-1,pi-2", true, "a room for each device"},
		{"*,pi-1", "pi-1", "or * alone", false, "* and a name"},
		{"*", "pi-1,-pi", "begin with a letter or a digit", false, "a device whose name is no name of a room"},
		{"*", "pi-1,pi-1", "ALLOWED_DEVICE_ID item 2 repeats item 1", false, "a device twice"},
		{"pi-1,pi-1", "pi-1", "ROOMS item 2 repeats item 1", false, "twice"},
		{"../x", "pi-1", "ROOMS must be made of letters", false, "a path"},
		{"-a", "pi-1", "begin with a letter or a digit", false, "no name of a log"},
		{strings.Repeat("a", 65), "pi-1", "64 at most", false, "too long"},
		{many(1000), "pi-1", many(1000), true, "as many as may be"},
		{many(1001), "pi-1", "1000 names at most", false, "too many"},
	} {
		env := map[string]string{"JWT_SECRET": "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID": row.devices, "ROOMS": row.rooms}
		cfg, err := config.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok && v != "" })
		switch {
		case row.ok != (err == nil):
			t.Errorf("%s: %v", row.why, err)
		case err != nil && !strings.Contains(err.Error(), row.want):
			t.Errorf("%s: %v, want %q", row.why, err, row.want)
		case err == nil && strings.Join(cfg.Rooms, ",") != row.want:
			t.Errorf("%s: %q", row.why, cfg.Rooms)
		}
	}
}

func TestRoomWarnings(t *testing.T) {
	for _, row := range []struct {
		rooms, devices []string
		want           int
		why            string
	}{
		{nil, []string{"pi-1"}, 0, "one device, one conversation"},
		{nil, []string{"pi-1", "pi-2"}, 1, "two devices in one conversation"},
		{[]string{"pi-1", "pi-2", "stage"}, []string{"pi-1", "pi-2"}, 0, "a room for each"},
		{[]string{"pi-1"}, []string{"pi-1", "pi-2", "pi-3"}, 2, "devices without a room"},
	} {
		cfg := config.Config{Rooms: row.rooms, Devices: row.devices}
		if got := cfg.RoomWarnings(); len(got) != row.want {
			t.Errorf("%s: %q", row.why, got)
		}
	}
}
