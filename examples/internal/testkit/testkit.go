// Package testkit holds helpers for the tests of the examples: waiting, a log
// that can be read while it is written, and tokens made by hand.
package testkit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/machine"
)

// Patience is how long a test waits for an event that must happen. It is not a
// bound that a program promises.
const Patience = time.Minute

// Eventually waits until ok returns true, and fails the test if it does not
// within [Patience]. what names the condition in the failure.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for: %s", what)
		}
	}
}

// Missing is [machine.Missing].
func Missing(t testing.TB, how string) {
	t.Helper()
	machine.Missing(t, how)
}

// ShortDir returns a new directory for a Unix socket: a socket's path may have
// about 100 bytes, and that of [testing.T.TempDir] has the test's name. The
// directory is removed with the test.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Folder returns a new directory with files, given as name and text.
func Folder(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i+1 < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Log collects the output of a program, for a test that reads it while the
// program runs. Its zero value is ready. It is safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements [io.Writer].
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns the output so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Events returns the JSON records of log/slog whose message is msg.
func (l *Log) Events(msg string) (found []map[string]any) {
	for line := range strings.Lines(l.String()) {
		var e map[string]any
		if json.Unmarshal([]byte(line), &e) == nil && e["msg"] == msg {
			found = append(found, e)
		}
	}
	return found
}

// Forge makes a compact JWS by hand: header and claims can be any text, and the
// signature is HMAC-SHA256 with secret.
func Forge(secret, header, claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	signed := part([]byte(header)) + "." + part([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + part(mac.Sum(nil))
}
