package refresh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// A family that is prolonged in time never ends for a device that goes on
// refreshing, and its tokens go on.
func TestProlong(t *testing.T) {
	for _, row := range []struct {
		why   string
		store func(t *testing.T) refresh.Store
	}{
		{"in memory", func(*testing.T) refresh.Store { return nil }},
		{"in a directory", func(t *testing.T) refresh.Store {
			store, err := refresh.NewDirStore(t.TempDir(), 0)
			if err != nil {
				t.Fatal(err)
			}
			return store
		}},
	} {
		t.Run(row.why, func(t *testing.T) {
			store := row.store(t)
			synctest.Test(t, func(t *testing.T) {
				const lifetime = 10 * 24 * time.Hour
				issuer, _ := newIssuer(t, func(c *refresh.Config) { c.Store, c.Lifetime, c.IdleTimeout = store, lifetime, 3*24*time.Hour })
				pair, err := issuer.Issue(t.Context(), refresh.Grant{Subject: "pi-1"})
				if err != nil {
					t.Fatal(err)
				}
				id := onlyFamily(t, issuer).ID
				token := pair.RefreshToken
				for day := range 30 {
					time.Sleep(24 * time.Hour)
					next, err := issuer.Refresh(t.Context(), token, wsauth.Peer{})
					if err != nil {
						t.Fatalf("on day %d: %v", day, err)
					}
					// The answer may be lost, and is the same after a
					// prolonging.
					if _, ok, err := issuer.Prolong(t.Context(), id); !ok || err != nil {
						t.Fatalf("on day %d: %t, %v", day, ok, err)
					}
					again, err := issuer.Refresh(t.Context(), token, wsauth.Peer{})
					if err != nil || again.RefreshToken != next.RefreshToken {
						t.Fatalf("on day %d, the answer given again: %v", day, err)
					}
					token = next.RefreshToken
				}
				if f := onlyFamily(t, issuer); !f.EndsAt.Equal(time.Unix(time.Now().Add(lifetime).Unix(), 0)) {
					t.Errorf("it ends at %v", f.EndsAt)
				}
				time.Sleep(4 * 24 * time.Hour)
				if _, ok, err := issuer.Prolong(t.Context(), id); ok || err != nil {
					t.Errorf("an idle family is prolonged: %t, %v", ok, err)
				}
				if _, ok, err := issuer.Prolong(t.Context(), "0123456789abcdef0123456789abcdef"); ok || err != nil {
					t.Errorf("no family is prolonged: %t, %v", ok, err)
				}
			})
		})
	}
}

func onlyFamily(t *testing.T, issuer *refresh.Issuer) refresh.Family {
	t.Helper()
	all, err := issuer.Families(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	return all[0]
}
