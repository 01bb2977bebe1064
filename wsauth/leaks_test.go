package wsauth_test

import (
	"testing"

	"github.com/relayguard/relayguard/wsauth/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, secret, other) }

// The search finds tokens and keys.
func TestLeaksAreFound(t *testing.T) {
	for _, s := range []string{live("pi-1"), string(secret), string(other)} {
		if !leaktest.Finds(s, secret, other) {
			t.Errorf("not found: %.12s…", s)
		}
	}
}
