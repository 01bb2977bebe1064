package refresh_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

var (
	now    = time.Unix(1_800_000_000, 0)
	secret = []byte("a secret of the tests, long enough to be one")
)

func newHS256(t testing.TB) *jwtauth.Verifier {
	t.Helper()
	v, err := jwtauth.New(jwtauth.Config{
		Keys: []jwtauth.Key{{Secret: secret}}, Subjects: []string{"pi-1", "pi-2"},
		Roles: map[string][]string{"publisher": {wsauth.Publish}, "admin": {wsauth.Publish, wsauth.Admin}}, DefaultRole: "publisher",
	})
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

// script is a Conn whose client sends the given messages and then waits.
type script struct{ messages []string }

func (c *script) Read(ctx context.Context) ([]byte, error) {
	if len(c.messages) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	next := c.messages[0]
	c.messages = c.messages[1:]
	return []byte(next), nil
}

func (*script) Write(context.Context, []byte) error { return nil }
func (*script) Close(int, string) error             { return nil }
func (*script) Abort() error                        { return nil }
