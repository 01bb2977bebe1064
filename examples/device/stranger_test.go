package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// evil has characters that control a terminal, change the direction of text or
// pose as the end of a line.
const evil = "\x1b]52;c;eA\x07\x1b[2J\r\u009b2J\x7f\u202e\u2066\u200b\u2028\ufeff"

// TestStrangers gives the device hostile values, files, relays and models. It
// prints no character that controls a terminal.
func TestStrangers(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("token", "a.b.c")
	asked := make(chan struct{}, 100)
	hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 418 \x1b[2J\u009b\u202e\r\nContent-Type: text/plain\r\nX-A: \u009b\r\nContent-Length: %d\r\n\r\n%s", len(evil), evil)
		select {
		case asked <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(hostile.Close)
	relay := "ws" + strings.TrimPrefix(hostile.URL, "http") + "/ws"
	for _, row := range []struct {
		why   string
		args  []string
		env   map[string]string
		calls int // how often the hostile server is called before the device is stopped
	}{
		{why: "an unknown flag", args: []string{"-" + evil}},
		{why: "an argument", args: []string{evil}},
		{why: "flags", args: []string{"-token-file", evil, "-relay", evil, "-refresh", evil, "-llm", evil, "-model", evil, "-memory-mark", evil, "-log-level", evil}},
		{why: "a URL with a control character", args: []string{"-token-file", token, "-relay", "ws://a" + evil}},
		{why: "variables", env: map[string]string{"DEVICE_TOKEN_FILE": evil, "RELAY_URL": evil, "LLM_WINDOW": evil, "SIMULATE_MEMORY": evil}},
		{why: "a token file that is not there", args: []string{"-token-file", filepath.Join(dir, evil)}},
		{why: "the name and the text of a token file", args: []string{"-token-file", write(evil, "{"+evil)}},
		{why: "a state file", args: []string{"-token-file", token, "-state", write("state", evil), "-relay", relay}, calls: 1},
		{why: "a relay's refusal", args: []string{"-token-file", token, "-relay", relay}, calls: 1},
		{why: "a model's refusal", args: []string{"-token-file", token, "-relay", relay, "-llm", hostile.URL + "/v1", "-model", "m", "-simulate-memory", "64"}, calls: 2},
	} {
		t.Run(row.why, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			log, ended := new(testkit.Log), make(chan struct{})
			var env envcheck.Lookup = func(name string) (string, bool) { v, ok := row.env[name]; return v, ok }
			for len(asked) > 0 {
				<-asked
			}
			go func() { defer close(ended); run(ctx, row.args, env, log) }()
			for range row.calls {
				<-asked
			}
			if row.calls > 0 {
				testkit.Eventually(t, "a line about the refusal", func() bool { return strings.Contains(log.String(), "418") })
				cancel()
			}
			<-ended
			if log.String() == "" {
				t.Error("nothing is printed")
			}
			for _, r := range log.String() {
				if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
					t.Fatalf("%q is printed in:\n%q", r, log.String())
				}
			}
			if !utf8.ValidString(log.String()) {
				t.Errorf("broken UTF-8: %q", log.String())
			}
		})
	}
}
