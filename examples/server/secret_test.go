package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/server/config"
)

// otherRecipes matches ways to make a secret that are not this program's own.
// Some of them make secrets that HISTORY_KEY refuses.
var otherRecipes = regexp.MustCompile(`(?i)openssl +rand|/dev/u?random|pwgen|uuidgen|head -c`)

// onCommandLine matches a token or a secret as an argument of a program, which
// every user of the machine can read.
var onCommandLine = regexp.MustCompile("-(token|secret|passphrase|key)[ =]\"?(\\$|`|eyJ)|-H +[\"']Authorization")

// The messages and the documentation name one way to make a secret.
func TestOneWayToMakeASecret(t *testing.T) {
	for _, name := range []string{"JWT_SECRET", "JWT_SECRET_PREVIOUS", "HISTORY_KEY", "HISTORY_KEY_PREVIOUS"} {
		for _, bad := range []string{"short", strings.Repeat("a", 43), "abcdefghijklmnopqrstuvwxyz0123456789abcdefg", "change-me-change-me-change-me-change-me-now", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U="} {
			_, err := config.Load(environment(map[string]string{name: bad, "HISTORY_DIR": t.TempDir()}))
			if err == nil && strings.HasPrefix(name, "JWT") {
				continue // it is strong enough for a signature
			}
			if err == nil || !strings.Contains(err.Error(), "`server secret`") || otherRecipes.MatchString(err.Error()) {
				t.Errorf("%s of %d characters: %v", name, len(bad), err)
			}
		}
	}
	kinds := []string{".md", ".yaml", ".conf", ".service", ".example", ".go", ""}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "node_modules") || !slices.Contains(kinds, filepath.Ext(path)) {
			return err
		}
		text, err := os.ReadFile(path)
		if found := otherRecipes.Find(text); found != nil {
			t.Errorf("%s names %q: `server secret` makes a secret", path, found)
		}
		if found := onCommandLine.Find(text); found != nil {
			t.Errorf("%s shows a secret on a command line: %q", path, found)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
