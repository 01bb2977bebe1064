package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/server/config"
)

const module = "github.com/relayguard/relayguard/"

// TestImports holds the rule that makes the packages usable one by one: none of
// the five imports another, none imports what only a subpackage should cost, and
// none imports the examples.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}}: {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("go list does not run here: ", err)
		}
		t.Skipf("go list does not run here (%v): install Go", err)
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		path, list, _ := strings.Cut(strings.TrimSpace(line), ": ")
		imports[path] = strings.Fields(list)
	}
	var all func(path string, seen map[string]bool)
	all = func(path string, seen map[string]bool) {
		for _, p := range imports[path] {
			if !seen[p] {
				seen[p] = true
				all(p, seen)
			}
		}
	}
	// What each may import beside the standard library and its own subpackages:
	// nothing of this module, and of others only this.
	for _, row := range []struct {
		pkg    string
		others []string
	}{
		{"headers", []string{"golang.org/x/time"}}, // the rate of violation reports
		{"ratelimit", []string{"golang.org/x/time"}},
		{"ratelimit/clientip", nil},
		{"wsauth", []string{"github.com/lestrrat-go/", "github.com/goccy/", "github.com/segmentio/", "github.com/decred/", "golang.org/x/crypto", "golang.org/x/sys"}},
		{"history", nil},
		{"envcheck", nil},
	} {
		if _, ok := imports[module+row.pkg]; !ok {
			t.Errorf("there is no package %s", row.pkg)
		}
		deps := map[string]bool{}
		all(module+row.pkg, deps)
		for dep := range deps {
			own := strings.HasPrefix(dep, module+row.pkg+"/internal/")
			standard := !strings.Contains(strings.Split(dep, "/")[0], ".")
			allowed := false
			for _, o := range row.others {
				allowed = allowed || strings.HasPrefix(dep, o)
			}
			if !own && !standard && !allowed {
				t.Errorf("%s depends on %s", row.pkg, dep)
			}
		}
	}
	for _, part := range []string{"examples/server/relay", "examples/server/operate", "examples/server/watch/suspect", "examples/device", "examples/load"} {
		deps := map[string]bool{}
		all(module+part, deps)
		for dep := range deps {
			if strings.HasPrefix(dep, "github.com/prometheus/") || strings.HasPrefix(dep, "github.com/getsentry/") {
				t.Errorf("%s depends on %s", part, dep)
			}
		}
	}
	for _, sub := range []string{"wsauth/wsconn", "wsauth/refresh"} {
		deps := map[string]bool{}
		all(module+sub, deps)
		for dep := range deps {
			if strings.HasPrefix(dep, module) && dep != module+"wsauth" && !strings.HasPrefix(dep, module+"wsauth/internal/") {
				t.Errorf("%s depends on %s", sub, dep)
			}
		}
	}
}

// TestEnvironmentIsDocumented keeps .env.example and the README's table equal to
// the list that the server reads. With UPDATE_DOCS=1 it writes them.
func TestEnvironmentIsDocumented(t *testing.T) {
	const (
		example = "../deploy/.env.example"
		readme  = "../../README.md"
		begin   = "<!-- environment: made from examples/server/config/config.go; UPDATE_DOCS=1 go test ./examples/server -->\n"
		end     = "<!-- end of environment -->\n"
	)
	var c config.Config
	var env, table bytes.Buffer
	if err := c.Spec().WriteExample(&env); err != nil {
		t.Fatal(err)
	}
	if err := c.Spec().WriteMarkdown(&table); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, found2 := strings.Cut(rest, end)
	if !found || !found2 {
		t.Fatalf("%s has no place for the table", readme)
	}
	want := before + begin + table.String() + end + after
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(readme, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(example, env.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("the table in %s is not what config/config.go says: run this test with UPDATE_DOCS=1", readme)
	}
	if got, err := os.ReadFile(example); err != nil || !bytes.Equal(got, env.Bytes()) {
		t.Errorf("%s is not what config/config.go says (%v): run this test with UPDATE_DOCS=1", example, err)
	}
}

// TestSnippets holds the README's Go code to what is compiled and run: each block
// stands, line by line, in an example of a package.
func TestSnippets(t *testing.T) {
	var examples strings.Builder
	for _, pattern := range []string{"../../*/example_test.go", "../../*/*/example_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			examples.WriteString(flush(string(text)))
		}
	}
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```go\n")[1:]
	if len(blocks) < 5 {
		t.Errorf("%d snippets, want one for each package", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(examples.String(), flush(block)) {
			t.Errorf("this stands in no example:\n%s", block)
		}
	}
}

// flush is text without indentation.
func flush(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimLeft(line, "\t "))
	}
	return b.String()
}
