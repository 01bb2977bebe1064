package wsauth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
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

func forged(claims string) string { return forge.HS256(common, claims, secret) }

func good(extra string) string {
	return fmt.Sprintf(`{"device":"pi-1","exp":%d%s}`, now.Unix()+3600, extra)
}

func newHS256(t testing.TB, change func(*jwtauth.Config)) *jwtauth.Verifier {
	t.Helper()
	cfg := jwtauth.Config{
		Keys: []jwtauth.Key{{Secret: secret}}, Subjects: []string{"pi-1", "pi-2"}, SubjectClaim: "device",
		Roles: map[string][]string{"publisher": {wsauth.Publish}, "admin": {wsauth.Publish, wsauth.Admin}}, DefaultRole: "publisher",
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

// script is a Conn whose client sends the given messages and then waits.
type script struct {
	mu     sync.Mutex // guards wrote and the fields below
	in     []any      // string: a message; error: a result of Read; func(): called before the next
	wrote  []string
	code   int
	reason string
	closes int
	limits []int64
	over   chan struct{}
}

func newScript(in ...any) *script { return &script{in: in, over: make(chan struct{})} }

func (c *script) Read(ctx context.Context) ([]byte, error) {
	if len(c.in) == 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.over:
			return nil, errors.New("over")
		}
	}
	next := c.in[0]
	c.in = c.in[1:]
	switch next := next.(type) {
	case error:
		return nil, next
	case func():
		next()
		return c.Read(ctx)
	}
	return []byte(next.(string)), nil
}

func (c *script) Write(_ context.Context, text []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrote = append(c.wrote, string(text))
	return nil
}

func (c *script) Close(code int, reason string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closes++; c.closes == 1 {
		c.code, c.reason = code, reason
		close(c.over)
	}
	return nil
}

func (c *script) Abort() error         { return c.Close(0, "") }
func (c *script) SetReadLimit(n int64) { c.limits = append(c.limits, n) }

func tokenMessage(token string) string { return `{"token":"` + token + `"}` }

func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func keyOf(secret []byte) jwtauth.Key { return jwtauth.Key{Secret: secret} }
