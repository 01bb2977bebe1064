package jwtauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// problems returns the problems in a joined error, as "Struct.Field reason".
func problems(err error) map[string]bool {
	found := make(map[string]bool)
	var walk func(error)
	walk = func(err error) {
		if e, ok := err.(*jwtauth.ConfigError); ok {
			found[strings.TrimPrefix(e.Error(), "jwtauth: ")] = errors.Is(e, e.Reason)
		}
		if list, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range list.Unwrap() {
				walk(e)
			}
		}
	}
	walk(err)
	return found
}

func TestConfigProblemsAllAtOnce(t *testing.T) {
	_, err := jwtauth.New(jwtauth.Config{
		Keys: []jwtauth.Key{
			{ID: "a\"b", Secret: secret[:31], Until: now},
			{ID: "x", Secret: secret},
			{ID: "x", Secret: secret},
		},
		Subjects:    []string{"pi\n1", "pi-1", "pi-1", ""},
		Issuers:     []string{strings.Repeat("x", 256)},
		Audience:    strings.Repeat("x", 256),
		Leeway:      time.Hour,
		DefaultRole: "none",
	})
	want := []string{
		"Keys[0].Secret is too short: HS256 needs 32 bytes", "Keys[0].ID is malformed", "Keys[0].Until must be zero",
		"Keys[2].Secret is a duplicate", "Keys[2].ID is a duplicate",
		"Subjects[0] is malformed", "Subjects[2] is a duplicate", "Subjects[3] is malformed",
		"Issuers[0] is malformed", "Audience is malformed", "Leeway is too long", "DefaultRole is not one of the choices",
	}
	found := problems(err)
	for _, w := range want {
		if !found["Config."+w] {
			t.Errorf("not reported: %s", w)
		}
	}
	if len(found) != len(want) {
		t.Errorf("reported: %v", found)
	}
	if strings.Contains(err.Error(), string(secret[:8])) {
		t.Error("the error holds a secret")
	}
	_, err = jwtauth.New(jwtauth.Config{})
	if found := problems(err); !found["Config.Keys is required"] || !found["Config.Subjects is required: or SubjectAllowed, or AnySubject"] {
		t.Errorf("the zero value: %v", found)
	}
	v := newHS256(t, nil)
	if _, err := v.SignAt(wsauth.ClaimSet{Subject: "pi-1"}, now); !problems(err)["ClaimSet.ExpiresAt is required"] {
		t.Error(err)
	}
	if found := problems(v.Rotate(make([]jwtauth.Key, 9)...)); !found["Config.Keys is too long"] {
		t.Errorf("nine keys: %v", found)
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	k := jwtauth.Key{ID: "k1", Secret: secret}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		for _, value := range []any{k, &k, jwtauth.Config{Keys: []jwtauth.Key{k}}} {
			out := fmt.Sprintf(verb, value)
			if strings.Contains(out, string(secret)) || strings.Contains(out, fmt.Sprintf("%x", secret)) || strings.Contains(out, "97 32 115") {
				t.Errorf("%s prints %s", verb, out)
			}
		}
	}
}

func TestRing(t *testing.T) {
	third := []byte("a third secret of the tests, long enough too")
	until := now.Add(time.Minute)
	v := newHS256(t, func(c *jwtauth.Config) {
		c.Keys = []jwtauth.Key{{ID: "new", Secret: secret}, {ID: "old", Secret: other, Until: until}, {Secret: third}}
	})
	kid := func(id string) string { return `{"alg":"HS256","kid":"` + id + `"}` }
	for _, row := range []struct {
		name, header string
		key          []byte
		at           time.Time
		want         wsauth.Reason
		keyID        string
	}{
		{"the first", kid("new"), secret, now, "", "new"},
		{"the first, not named", common, secret, now, "", "new"},
		{"an older one in its time", kid("old"), other, now, "", "old"},
		{"an older one, not named", common, other, now, "", "old"},
		{"an older one in its last instant", kid("old"), other, until.Add(-1), "", "old"},
		{"an older one after its time", kid("old"), other, until, wsauth.ReasonKey, ""},
		{"an older one after its time, not named", common, other, until, wsauth.ReasonSignature, ""},
		{"one under the name of another", kid("new"), other, now, wsauth.ReasonSignature, ""},
		{"one without a name, under a foreign one", kid("x"), third, now, "", ""},
		{"one with a name, under a foreign one", kid("x"), secret, now, wsauth.ReasonSignature, ""},
	} {
		id, err := v.Verify(t.Context(), []byte(forge.HS256(row.header, good(""), row.key)), row.at)
		if got := reasonOf(t, err); got != row.want || id.KeyID != row.keyID {
			t.Errorf("%s: %q by %q", row.name, got, id.KeyID)
		}
	}
}

func TestRotate(t *testing.T) {
	v := newHS256(t, nil)
	token := []byte(forge.HS256(common, good(""), secret))
	id, err := v.Verify(t.Context(), token, now)
	if err != nil {
		t.Fatal(err)
	}
	valid := func(at time.Time) bool { _, ok := v.ValidAt(id, at); return ok }
	if err := v.Rotate(jwtauth.Key{Secret: []byte("short")}); err == nil || !valid(now) {
		t.Error("an invalid ring was accepted, or changed the old one:", err)
	}
	until := now.Add(time.Hour)
	if err := v.Rotate(jwtauth.Key{Secret: other}, jwtauth.Key{Secret: secret, Until: until}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), token, now); err != nil || !valid(now) {
		t.Error("a rotation with an Until ends an authentication:", err)
	}
	if valid(until) {
		t.Error("the old key is valid after its Until")
	}
	if err := v.Rotate(jwtauth.Key{Secret: other}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), token, now); reasonOf(t, err) != wsauth.ReasonSignature || valid(now) {
		t.Error("a rotation without the old key does not end its authentications:", err)
	}
	if _, ok := v.ValidAt(wsauth.Identity{Subject: "pi-1", ExpiresAt: until}, now); ok {
		t.Error("an identity that was not verified is valid")
	}
}

func TestKeyUsage(t *testing.T) {
	until := now.Add(time.Hour)
	keys := []jwtauth.Key{{ID: "new", Secret: secret}, {ID: "old", Secret: other, Until: until}}
	v := newHS256(t, func(c *jwtauth.Config) { c.Keys = keys })
	show := func(token string, at time.Time) { _, _ = v.Verify(t.Context(), []byte(token), at) }
	mine, old := forge.HS256(common, good(""), secret), forge.HS256(common, good(""), other)
	show(old, now.Add(2*time.Second))
	show(old, now.Add(time.Second)) // a little late, from another goroutine
	// None of these tokens is accepted.
	show(mine+"x", now)
	show(forge.HS256(common, `{"device":"pi-9","exp":9999999999}`, secret), now)
	show(mine, now.Add(2*time.Hour))
	if _, err := v.SignAt(wsauth.ClaimSet{Subject: "pi-1", ExpiresAt: until}, now); err != nil {
		t.Fatal(err)
	}
	expect := func(name string, want ...jwtauth.KeyUsage) {
		t.Helper()
		if got := v.KeyUsage(); !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	usedOld := jwtauth.KeyUsage{ID: "old", Until: until, Count: 2, Last: now.Add(2 * time.Second)}
	expect("at first", jwtauth.KeyUsage{ID: "new"}, usedOld)
	// A rotation keeps the counts of the keys that stay in the ring.
	if err := v.Rotate(jwtauth.Key{ID: "newer", Secret: bytes.Repeat([]byte("n"), 32)}, keys[1]); err != nil {
		t.Fatal(err)
	}
	expect("rotated", jwtauth.KeyUsage{ID: "newer"}, usedOld)
}

func TestSign(t *testing.T) {
	v := newHS256(t, func(c *jwtauth.Config) {
		c.Keys[0].ID, c.Issuers, c.Audience = "k1", []string{"me"}, "relay"
	})
	in := now.Add(time.Minute)
	token, err := v.SignAt(wsauth.ClaimSet{
		Subject: "pi-2", ExpiresAt: now.Add(time.Hour), NotBefore: in, Role: "admin", Scope: []string{wsauth.Admin},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := v.Verify(t.Context(), []byte(token), in)
	if err != nil || id.Subject != "pi-2" || id.KeyID != "k1" || id.Issuer != "me" || id.TokenID == "" || id.Role != "admin" ||
		!id.IssuedAt.Equal(now) || !id.ExpiresAt.Equal(now.Add(time.Hour)) || id.Can(wsauth.Publish) || !id.Can(wsauth.Admin) {
		t.Errorf("%+v %v", id, err)
	}
	if _, err := v.Verify(t.Context(), []byte(token), now); reasonOf(t, err) != wsauth.ReasonNotYetValid {
		t.Error(err)
	}
	for name, c := range map[string]wsauth.ClaimSet{
		"no expiry":      {Subject: "pi-1"},
		"already over":   {Subject: "pi-1", ExpiresAt: now},
		"unknown device": {Subject: "pi-3", ExpiresAt: in},
		"unknown role":   {Subject: "pi-1", ExpiresAt: in, Role: "god"},
		"control in jti": {Subject: "pi-1", ExpiresAt: in, TokenID: "a\nb"},
		"two words":      {Subject: "pi-1", ExpiresAt: in, Scope: []string{"read:x publish"}}, // of a room that is named "x publish"
		"empty word":     {Subject: "pi-1", ExpiresAt: in, Scope: []string{""}},
	} {
		if token, err := v.SignAt(c, now); err == nil {
			t.Errorf("%s: signed %s", name, token)
		} else if _, config := errors.AsType[*jwtauth.ConfigError](err); !config && reasonOf(t, err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
