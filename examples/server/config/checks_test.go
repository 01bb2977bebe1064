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
