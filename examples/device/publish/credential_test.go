package publish_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/testkit"
)

func TestRefreshURL(t *testing.T) {
	for relay, want := range map[string]string{
		"ws://localhost:3000/ws":         "http://localhost:3000/auth/refresh",
		"wss://relay.example/ws":         "https://relay.example/auth/refresh",
		"wss://relay.example/stage/ws":   "https://relay.example/stage/auth/refresh",
		"wss://u:p@relay.example/ws?x=1": "https://relay.example/auth/refresh", // a password is only for /ws
		"wss://[::1]:8443":               "https://[::1]:8443/auth/refresh",
		"https://relay.example/ws":       "",
		"relay.example/ws":               "",
		"ws:///ws":                       "",
		"ws://a b/":                      "",
	} {
		got, err := publish.RefreshURL(relay)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", relay, got, err, want)
		}
	}
}

func TestTokenFiles(t *testing.T) {
	const canary = "canary7731"
	for _, tc := range []struct {
		name, content string
		good          bool
		refreshes     bool
		why           string
	}{
		{"pair", `{"token":"a.b.c","expires_at":1,"refresh_token":"r"}`, true, true, "as `server token -pair` prints it"},
		{"spaces", "\n {\"token\":\"a.b.c\",\"refresh_token\":\"r\"}\n\n", true, true, "editors add lines"},
		{"no refresh", `{"token":"a.b.c"}`, true, false, "it expires some day"},
		{"bare", "a.b.c\n", true, false, "as `server token` prints it"},
		{"unknown", `{"token":"a.b.c","refresh_token":"r","device":"pi-1"}`, true, true, "a later version may say more"},
		{"empty", "", false, false, "not filled in yet"},
		{"blank", " \n", false, false, "nor is this"},
		{"no token", `{"refresh_token":"` + canary + `"}`, false, false, "there is nothing to show"},
		{"cut", `{"token":"` + canary, false, false, "half written"},
		{"wrong type", `{"token":["` + canary + `"]}`, false, false, "not a token"},
		{"two words", "token " + canary, false, false, "a line of a manual"},
		{"control", `{"token":"` + canary + `\u0000"}`, false, false, "no token has one"},
		{"large", strings.Repeat("a", 20_000), false, false, "some other file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := publish.NewCredential(publish.CredentialConfig{File: file, RefreshURL: "https://relay.example/auth/refresh"})
			if (err == nil) != tc.good {
				t.Fatalf("%v (%s)", err, tc.why)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Error("the error quotes the file:", err)
			}
			if err == nil && c.Refreshes() != tc.refreshes {
				t.Errorf("refreshes: %v (%s)", c.Refreshes(), tc.why)
			}
		})
	}
	if _, err := publish.NewCredential(publish.CredentialConfig{File: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a file that is not there")
	}
}

// Refresh tokens are not sent over a network in the clear, unless the
// configuration allows it.
func TestRefreshOnlyOverTLS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(`{"token":"a.b.c","refresh_token":"r"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		url            string
		insecure, good bool
	}{
		{"https://relay.example/auth/refresh", false, true},
		{"http://127.0.0.1:3000/auth/refresh", false, true},
		{"http://[::1]:3000/auth/refresh", false, true},
		{"http://LOCALHOST./auth/refresh", false, true},
		{"http://relay.example/auth/refresh", false, false},
		{"http://relay.example/auth/refresh", true, true},
		{"http://192.168.1.5/auth/refresh", false, false},
		{"http://localhost.example/auth/refresh", false, false},
		{"http://127.0.0.1.example/auth/refresh", false, false},
		{"ftp://localhost/auth/refresh", true, false},
		{"/auth/refresh", true, false},
	} {
		_, err := publish.NewCredential(publish.CredentialConfig{File: file, RefreshURL: tc.url, InsecureRefreshOverHTTP: tc.insecure})
		if (err == nil) != tc.good {
			t.Errorf("%s, insecure %v: %v", tc.url, tc.insecure, err)
		}
	}
	// A file without a refresh token needs no safe URL.
	if err := os.WriteFile(file, []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := publish.NewCredential(publish.CredentialConfig{File: file, RefreshURL: "http://relay.example/auth/refresh"}); err != nil {
		t.Error(err)
	}
}

// No way to print a Token or a Credential shows the token.
func TestTokensDoNotPrint(t *testing.T) {
	const canary = "canary7731"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(canary), 0o644); err != nil {
		t.Fatal(err)
	}
	logs := new(testkit.Log)
	log := slog.New(slog.NewJSONHandler(logs, nil))
	c, err := publish.NewCredential(publish.CredentialConfig{File: file, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.Token(t.Context())
	if err != nil || token.Value != canary {
		t.Fatal(err)
	}
	log.Info("x", "token", token, "credential", c)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		_, _ = fmt.Fprintf(logs, verb+verb, token, c)
	}
	if strings.Contains(logs.String(), canary) {
		t.Error(logs)
	}
	if !strings.Contains(logs.String(), "chmod 600") {
		t.Error("the log does not warn that others can read the file")
	}
}
