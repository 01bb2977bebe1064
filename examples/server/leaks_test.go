package main

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// After all tests of this package, the logs of all their servers are searched
// for leaks, so that no test has to do it.
var everyLog struct {
	mu   sync.Mutex
	logs []*testkit.Log
}

// newLog returns a buffer for a server's log.
func newLog() *testkit.Log {
	b := new(testkit.Log)
	everyLog.mu.Lock()
	defer everyLog.mu.Unlock()
	everyLog.logs = append(everyLog.logs, b)
	return b
}

// leak matches the values that no log may hold: a JSON Web Token, which begins
// with the base64url of {" and continues after a dot; a refresh token; or a
// secret of a test.
var leak = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|rgrt_[A-Za-z0-9_-]+|` + testSecret + `|Zk3vQ8wB1nXy6MrT0uHc5LdJ2sGpFa7E`)

// leaks returns each line of the logs that holds a leak.
func leaks(logs []*testkit.Log) (found []string, lines int) {
	for _, b := range logs {
		for line := range strings.Lines(b.String()) {
			lines++
			if leak.MatchString(line) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found, lines
}

// checkEveryLog is for TestMain. It fails the run if there is a leak.
func checkEveryLog(code int) int {
	everyLog.mu.Lock()
	defer everyLog.mu.Unlock()
	found, lines := leaks(everyLog.logs)
	if testing.Verbose() {
		fmt.Printf("looked for tokens and secrets in %d logs of %d lines\n", len(everyLog.logs), lines)
	}
	for _, line := range found {
		fmt.Printf("FAIL: a token or a secret in a log: %s\n", line)
		code = 1
	}
	return code
}

// The search finds a token and a secret.
func TestLeaksAreFound(t *testing.T) {
	s := start(t, withAuth(t.TempDir()))
	pair := s.pair(testDevice)
	for _, secret := range []string{pair.Token, pair.RefreshToken, s.token(testDevice, 1e12), testSecret} {
		b := new(testkit.Log)
		fmt.Fprintf(b, "{\"msg\":\"auth\"}\n{\"msg\":\"auth\",\"token_id\":\"%s\"}\n", secret)
		if found, lines := leaks([]*testkit.Log{b}); len(found) != 1 || lines != 2 {
			t.Errorf("not found: %.12s…", secret)
		}
	}
}
