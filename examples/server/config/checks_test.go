package config_test

import (
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/server/config"
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
