package wsauth_test

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

// everyEvent is the audit of all tests of the package, as the log has it.
var everyEvent struct {
	mu    sync.Mutex
	log   bytes.Buffer
	count int
	lines func(wsauth.Event)
}

func init() { everyEvent.lines = wsauth.AuditLog(slog.New(slog.NewJSONHandler(&everyEvent.log, nil))) }

// audited keeps e for the search that follows the tests.
func audited(e wsauth.Event) {
	everyEvent.mu.Lock()
	defer everyEvent.mu.Unlock()
	everyEvent.count++
	if everyEvent.log.Len() < 64<<20 { // a fuzzer goes on for hours
		everyEvent.lines(e)
	}
}

// secrets is what no line may hold: a JSON Web Token, a refresh token, or a key of the tests.
var secrets = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|rgrt_[A-Za-z0-9_-]+|` +
	regexp.QuoteMeta(string(secret)) + `|` + regexp.QuoteMeta(string(other)))

func TestMain(m *testing.M) {
	code := m.Run()
	everyEvent.mu.Lock()
	defer everyEvent.mu.Unlock()
	if testing.Verbose() {
		fmt.Printf("looked for tokens and keys in %d events\n", everyEvent.count)
	}
	if found := secrets.Find(everyEvent.log.Bytes()); found != nil {
		fmt.Printf("FAIL: in the audit: %s\n", found)
		code = 1
	}
	os.Exit(code)
}

// The search finds what it is for.
func TestLeaksAreFound(t *testing.T) {
	i, _ := newIssuer(t, nil)
	p := issue(t, i, "pi-1")
	for _, s := range []string{p.Token, p.RefreshToken, string(secret), string(other)} {
		var out bytes.Buffer
		wsauth.AuditLog(slog.New(slog.NewJSONHandler(&out, nil)))(wsauth.Event{Kind: wsauth.EventRefused, TokenID: s})
		if !secrets.Match(out.Bytes()) {
			t.Errorf("not found: %.12s…", s)
		}
	}
}
