package refresh_test

import (
	"testing"

	"github.com/relayguard/relayguard/wsauth/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, secret) }

// The search finds tokens and keys.
func TestLeaksAreFound(t *testing.T) {
	i, _ := newIssuer(t, nil)
	p := issue(t, i, "pi-1")
	for _, s := range []string{p.Token, p.RefreshToken, string(secret)} {
		if !leaktest.Finds(s, secret) {
			t.Errorf("not found: %.12s…", s)
		}
	}
}
