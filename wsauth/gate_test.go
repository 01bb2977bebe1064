package wsauth_test

import (
	"errors"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
)

func TestConfigProblemsAllAtOnce(t *testing.T) {
	_, err := wsauth.New(wsauth.Config{
		AnonymousLimit: -1, MessageLimit: -1, CloseTimeout: -1, OnExpiry: 2, ExpiryWarning: -1, MaxLifetime: -1, MaxSessions: -1, OverLimit: -1,
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, e := range joined.Unwrap() {
		p, typed := errors.AsType[*wsauth.ConfigError](e)
		if !typed || !errors.Is(e, p.Reason) {
			t.Errorf("untyped %v", e)
		}
		found[e.Error()] = true
	}
	negative, unknown := " must not be negative", " is not one of the choices"
	want := []string{
		"Verifier is required", "AnonymousLimit" + negative, "MessageLimit" + negative, "CloseTimeout" + negative, "OnExpiry" + unknown,
		"ExpiryWarning" + negative, "MaxLifetime" + negative, "MaxSessions" + negative, "OverLimit" + unknown,
	}
	for _, w := range want {
		if !found["wsauth: Config."+w] {
			t.Errorf("not reported: %s", w)
		}
	}
	if len(found) != len(want) {
		t.Errorf("reported: %v", found)
	}
}
