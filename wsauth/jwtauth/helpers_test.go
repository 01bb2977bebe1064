package jwtauth_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

var (
	now    = time.Unix(1_800_000_000, 0)
	secret = []byte("a secret of the tests, long enough to be one")
	other  = []byte("another secret of the tests, as long as that")
)

const common = forge.Header

func good(extra string) string {
	return fmt.Sprintf(`{"device":"pi-1","exp":%d%s}`, now.Unix()+3600, extra)
}

func newHS256(t testing.TB, change func(*jwtauth.Config)) *jwtauth.Verifier {
	t.Helper()
	cfg := jwtauth.Config{
		Keys: []jwtauth.Key{{Secret: secret}}, Subjects: []string{"pi-1", "pi-2"}, SubjectClaim: "device",
		Roles:       map[string][]string{"publisher": {wsauth.Publish}, "admin": {wsauth.Publish, wsauth.Admin}},
		DefaultRole: "publisher",
	}
	if change != nil {
		change(&cfg)
	}
	v, err := jwtauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// reasonOf returns why err refuses a token, and "" if err is nil.
func reasonOf(t testing.TB, err error) wsauth.Reason {
	t.Helper()
	if err == nil {
		return ""
	}
	refused, ok := errors.AsType[*wsauth.Error](err)
	if !ok {
		t.Fatalf("untyped error %v", err)
	}
	return refused.Reason
}

func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
