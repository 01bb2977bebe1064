package jwtauth_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// Two issuers may publish the same keys: the tenants of a provider, or its old
// and its new name. A token belongs to the one that it names.
func TestProvidersThatShareKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, alone := newPair(t, jwtauth.ES256, "k1", 0), newPair(t, jwtauth.ES256, "alone", 0)
		first, second := &provider{}, &provider{}
		first.publish(k.jwk)
		second.publish(k.jwk, alone.jwk)
		sets := map[string]*provider{"a.example": first, "b.example": second}
		v := trusting(t, nil, func(c *jwtauth.Config) {
			c.Providers = []jwtauth.Provider{
				{Issuer: "https://id.example/a", JWKS: "https://a.example/"}, {Issuer: "https://id.example/b", JWKS: "https://b.example/"},
			}
			c.Transport = transport(func(r *http.Request) (*http.Response, error) { return sets[r.URL.Host].RoundTrip(r) })
		})
		for _, row := range []struct {
			why   string
			token []byte
			want  wsauth.Reason
		}{
			{"before any fetch", tokenOf(t, k, "https://id.example/a"), ""},
			{"the keys of the other were fetched", tokenOf(t, k, "https://id.example/b"), ""},
			{"again", tokenOf(t, k, "https://id.example/a"), ""},
			{"a key of b alone for b", tokenOf(t, alone, "https://id.example/b"), ""},
			{"a key of b alone for a", tokenOf(t, alone, "https://id.example/a"), wsauth.ReasonKey},
			{"for a third", tokenOf(t, k, "https://id.example/c"), wsauth.ReasonIssuer},
		} {
			id, err := v.Verify(t.Context(), row.token, now)
			if got := reasonOf(t, err); got != row.want {
				t.Errorf("%s: %q, want %q", row.why, got, row.want)
			}
			if _, ok := v.ValidAt(id, now); ok != (row.want == "") {
				t.Errorf("%s: valid later: %t", row.why, ok)
			}
		}
		// b withdraws the key. That ends no session of a.
		ofA, err := v.Verify(t.Context(), tokenOf(t, k, "https://id.example/a"), now)
		if err != nil {
			t.Fatal(err)
		}
		ofB, err := v.Verify(t.Context(), tokenOf(t, k, "https://id.example/b"), now)
		if err != nil {
			t.Fatal(err)
		}
		second.publish(alone.jwk)
		time.Sleep(time.Minute)
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := v.ValidAt(ofA, now); !ok {
			t.Error("a session of a has ended")
		}
		if _, ok := v.ValidAt(ofB, now); ok {
			t.Error("a session of b has not ended")
		}
	})
}

// A provider may replace a key without a new ID. Without Run, too, the new key
// is found: at once if tokens have no ID, and otherwise by the first token
// after RefreshInterval.
func TestKeyReplacedUnderItsID(t *testing.T) {
	for _, kid := range []any{nil, "k1"} {
		synctest.Test(t, func(t *testing.T) {
			old, fresh := newPair(t, jwtauth.ES256, "", 0), newPair(t, jwtauth.ES256, "", 0)
			old.jwk, fresh.jwk = old.with(map[string]any{"kid": kid}), fresh.with(map[string]any{"kid": kid})
			p := &provider{}
			p.publish(old.jwk)
			v := trusting(t, p, nil)
			if got := outcome(t, v, tokenOf(t, old, issuer)); got != "" {
				t.Fatal(got)
			}
			p.publish(fresh.jwk)
			time.Sleep(time.Hour)
			if got := outcome(t, v, tokenOf(t, fresh, issuer)); kid == nil && got != "" {
				t.Errorf("without an ID: %q after %d fetches", got, p.fetches())
			}
			time.Sleep(time.Second)
			if got := outcome(t, v, tokenOf(t, fresh, issuer)); got != "" || p.fetches() != 2 {
				t.Errorf("%v: %q after %d fetches", kid, got, p.fetches())
			}
			// Forgeries cause no more than one fetch in each interval.
			for range 1000 {
				if got := outcome(t, v, tokenOf(t, old, issuer)); got != wsauth.ReasonSignature {
					t.Fatalf("%v: the old key: %q", kid, got)
				}
			}
			if p.fetches() != 2 {
				t.Errorf("%v: %d fetches", kid, p.fetches())
			}
		})
	}
}
