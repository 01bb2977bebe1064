// Package leaktest fails the tests of a package if an event that they audit
// contains a token or a key.
package leaktest

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
)

// everyEvent is the log of the audit of all tests of the package.
var everyEvent struct {
	mu    sync.Mutex
	log   bytes.Buffer
	count int
	lines func(wsauth.Event)
}

func init() { everyEvent.lines = wsauth.AuditLog(slog.New(slog.NewJSONHandler(&everyEvent.log, nil))) }

// Audited records e for the search after the tests.
func Audited(e wsauth.Event) {
	everyEvent.mu.Lock()
	defer everyEvent.mu.Unlock()
	everyEvent.count++
	if everyEvent.log.Len() < 64<<20 { // a fuzzer goes on for hours
		everyEvent.lines(e)
	}
}

// Main is the body of a TestMain: it runs the tests, and fails if an event held
// a token or one of keys.
func Main(m *testing.M, keys ...[]byte) {
	code := m.Run()
	everyEvent.mu.Lock()
	defer everyEvent.mu.Unlock()
	if testing.Verbose() {
		fmt.Printf("looked for tokens and keys in %d events\n", everyEvent.count)
	}
	if found := secrets(keys).Find(everyEvent.log.Bytes()); found != nil {
		fmt.Printf("FAIL: in the audit: %s\n", found)
		code = 1
	}
	os.Exit(code)
}

// Finds reports whether the search would find text in an event.
func Finds(text string, keys ...[]byte) bool {
	var out bytes.Buffer
	wsauth.AuditLog(slog.New(slog.NewJSONHandler(&out, nil)))(wsauth.Event{Kind: wsauth.EventRefused, TokenID: text})
	return secrets(keys).Match(out.Bytes())
}

// secrets matches a JSON Web Token, a refresh token, and each of keys.
func secrets(keys [][]byte) *regexp.Regexp {
	expr := `eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|rgrt_[A-Za-z0-9_-]+`
	for _, k := range keys {
		expr += `|` + regexp.QuoteMeta(string(k))
	}
	return regexp.MustCompile(expr)
}
