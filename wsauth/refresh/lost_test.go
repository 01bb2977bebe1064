package refresh_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

var tokenKey = bytes.Repeat([]byte{7}, 32)

// A store that has lost rotations, as after a failover, does not make the
// newest token look like one of a thief; an older token still does.
func TestIssuerLostRotation(t *testing.T) {
	const grace = 20 * time.Second
	for _, row := range []struct {
		why  string
		key  []byte
		lost int   // the last rotations that the store loses, of three
		use  []int // the tokens that are used after that, from 1; negative: after the grace
		want []wsauth.Reason
	}{
		{"without a key, the owner is locked out", nil, 1, []int{4}, []wsauth.Reason{wsauth.ReasonReused}},
		{"the owner goes on", tokenKey, 1, []int{4}, []wsauth.Reason{""}},
		{"several rotations are lost", tokenKey, 3, []int{4}, []wsauth.Reason{""}},
		{"nothing is lost", tokenKey, 0, []int{4}, []wsauth.Reason{""}},
		{"its answer is lost: it comes again", tokenKey, 1, []int{4, 4}, []wsauth.Reason{"", ""}},
		{"but not after the grace", tokenKey, 1, []int{4, -4}, []wsauth.Reason{"", wsauth.ReasonReused}},
		{"a thief has an older one", tokenKey, 1, []int{4, 3}, []wsauth.Reason{"", wsauth.ReasonReused}},
		{"a thief has a much older one", tokenKey, 1, []int{-2}, []wsauth.Reason{wsauth.ReasonReused}},
		{"a thief comes first: the owner reveals it", tokenKey, 1, []int{3, 4}, []wsauth.Reason{"", wsauth.ReasonReused}},
		{"of two lost ones, the older first", tokenKey, 2, []int{3, 4}, []wsauth.Reason{"", wsauth.ReasonReused}},
		{"of two lost ones, the older last", tokenKey, 2, []int{4, -3}, []wsauth.Reason{"", wsauth.ReasonReused}},
	} {
		store := &faultyStore{}
		i, r := newIssuer(t, func(c *refresh.Config) { c.Store, c.Key = store, row.key })
		tokens := []string{issue(t, i, "pi-1").RefreshToken}
		saved := [][]refresh.StoredFamily{slices.Clone(store.families)}
		for range 3 {
			p, err := i.RefreshAt(t.Context(), tokens[len(tokens)-1], wsauth.Peer{}, now)
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, p.RefreshToken)
			saved = append(saved, slices.Clone(store.families))
		}
		store.families = saved[3-row.lost]
		var answers []string
		for n, use := range row.use {
			at := now
			if use < 0 {
				use, at = -use, now.Add(grace)
			}
			p, err := i.RefreshAt(t.Context(), tokens[use-1], wsauth.Peer{}, at)
			if got := reasonOf(t, err); got != row.want[n] {
				t.Errorf("%s: token %d: got %q, want %q", row.why, use, got, row.want[n])
			}
			answers = append(answers, p.RefreshToken+p.TokenID)
		}
		if row.want[0] == "" && len(row.use) == 2 && row.use[0] == row.use[1] && answers[0] != answers[1] {
			t.Errorf("%s: another answer", row.why)
		}
		revoked := 0
		if slices.Contains(row.want, wsauth.ReasonReused) {
			revoked = 1
		}
		if len(r.revoked) != revoked {
			t.Errorf("%s: %d families were revoked", row.why, len(r.revoked))
		}
	}
}

// The numbers of pairs do not repeat after a loss, and the next rotations work.
func TestIssuerGoesOnAfterLoss(t *testing.T) {
	store := &faultyStore{}
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store, c.Key = store, tokenKey })
	p := issue(t, i, "pi-1")
	old := slices.Clone(store.families)
	for n := 2; n <= 9; n++ {
		var err error
		if p, err = i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil || !strings.HasSuffix(p.TokenID, fmt.Sprint(".", n)) {
			t.Fatal(n, p, err)
		}
		if n == 5 {
			store.families = slices.Clone(old)
		}
		if n == 7 { // the operator's change is a generation too
			if f, ok, err := i.ProlongAt(t.Context(), store.families[0].ID, now); !ok || err != nil || f.Generation != 8 {
				t.Fatal(f, ok, err)
			}
			n++
		}
	}
}

// Tokens that were issued without a key, or with another one, stay valid, and
// are replaced by the new kind. What they say is believed only with proof.
func TestIssuerKeyChanges(t *testing.T) {
	store := &faultyStore{}
	with := func(key []byte) *refresh.Issuer {
		i, _ := newIssuer(t, func(c *refresh.Config) { c.Store, c.Key = store, key })
		return i
	}
	p := issue(t, with(nil), "pi-1")
	for n, row := range []struct {
		key  []byte
		size int // of the successor
	}{{tokenKey, 72}, {bytes.Repeat([]byte{8}, 32), 72}, {nil, 48}, {nil, 48}, {tokenKey, 72}} {
		var err error
		if p, err = with(row.key).RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
			t.Fatal(n, err)
		}
		if got := base64.RawURLEncoding.DecodedLen(len(p.RefreshToken) - len("rgrt_")); got != row.size {
			t.Errorf("%d: a token of %d bytes", n, got)
		}
	}
	i := with(tokenKey)
	raw, err := base64.RawURLEncoding.DecodeString(p.RefreshToken[len("rgrt_"):])
	if err != nil {
		t.Fatal(err)
	}
	raw[16] ^= 1 // another secret
	for _, row := range []struct {
		why    string
		change func(raw []byte) []byte
		want   wsauth.Reason
	}{
		{"no generation is 0", func(b []byte) []byte { copy(b[48:], make([]byte, 8)); return b }, wsauth.ReasonMalformed},
		{"cut between", func(b []byte) []byte { return b[:60] }, wsauth.ReasonMalformed},
		{"more", func(b []byte) []byte { return append(b, 1, 2, 3) }, wsauth.ReasonMalformed},
		{"a later generation without proof", func(b []byte) []byte { b[55]++; return b }, wsauth.ReasonReused},
	} {
		forged := "rgrt_" + base64.RawURLEncoding.EncodeToString(row.change(slices.Clone(raw)))
		if _, err := i.RefreshAt(t.Context(), forged, wsauth.Peer{}, now); reasonOf(t, err) != row.want {
			t.Errorf("%s: %v", row.why, err)
		}
	}
}

// No text changes a family, unless it contains the family's handle.
func FuzzIssuerToken(f *testing.F) {
	i, err := refresh.New(refresh.Config{Signer: newHS256(f), Key: tokenKey})
	if err != nil {
		f.Fatal(err)
	}
	p, err := i.IssueAt(context.Background(), refresh.Grant{Subject: "pi-1"}, now)
	if err != nil {
		f.Fatal(err)
	}
	handle := p.RefreshToken[:len("rgrt_")+20]
	f.Add("rgrt_")
	f.Add("rgrt_" + strings.Repeat("A", 64))
	f.Add("rgrt_" + strings.Repeat("A", 96))
	f.Add("rgrt_" + strings.Repeat("_", 96))
	f.Add("rgrt_" + strings.Repeat("A", 80))
	f.Fuzz(func(t *testing.T, token string) {
		if strings.HasPrefix(token, handle) {
			t.Skip()
		}
		_, err := i.RefreshAt(context.Background(), token, wsauth.Peer{}, now)
		if got := reasonOf(t, err); got != wsauth.ReasonMalformed && got != wsauth.ReasonUnknown {
			t.Fatalf("%q: %v", token, err)
		}
		if all, err := i.FamiliesAt(context.Background(), now); len(all) != 1 || all[0].Generation != 1 || err != nil {
			t.Fatal(all, err)
		}
	})
}
