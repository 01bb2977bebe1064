package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/server/config"
)

// documented requires that the part of a file between two lines is want, which
// the program generates. With UPDATE_DOCS=1 it writes that part.
func documented(t *testing.T, name, begin, end, want string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	got, after, found2 := strings.Cut(rest, end)
	if !found || !found2 {
		t.Fatalf("%s has no place between %q and %q", name, begin, end)
	}
	if got == want {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Errorf("%s is not what the program generates: run this test with UPDATE_DOCS=1", name)
	} else if err := os.WriteFile(name, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The README's table and .env.example are generated from the list of variables.
func TestEnvironmentIsDocumented(t *testing.T) {
	const example = "../deploy/.env.example"
	var cfg config.Config
	var env, table bytes.Buffer
	if err := cfg.Spec().WriteExample(&env); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Spec().WriteMarkdown(&table); err != nil {
		t.Fatal(err)
	}
	documented(t, "README.md", "<!-- environment: made from config/config.go; UPDATE_DOCS=1 go test ./examples/server -->\n", "<!-- end of environment -->\n", table.String())
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(example, env.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(example); err != nil || !bytes.Equal(got, env.Bytes()) {
		t.Errorf("%s is not what config/config.go generates (%v): run this test with UPDATE_DOCS=1", example, err)
	}
}

// The README's list and the package comment are generated from the table of
// verbs.
func TestVerbsAreDocumented(t *testing.T) {
	var list, comment strings.Builder
	group := groupHere
	fmt.Fprint(&list, "| Command | |\n|---|---|\n")
	for _, v := range verbs() {
		if v.group != group {
			group = v.group
			fmt.Fprintf(&list, "| *%s* | |\n", group)
		}
		fmt.Fprintf(&list, "| `%s` | %s |\n", strings.ReplaceAll(v.usage(), "|", "\\|"), v.about)
		fmt.Fprintf(&comment, "//\tserver %-14s%s\n", v.name, v.about)
	}
	documented(t, "README.md", "<!-- verbs: made from verbs.go; UPDATE_DOCS=1 go test ./examples/server -->\n", "<!-- end of verbs -->\n", list.String())
	documented(t, "main.go", "//\tserver -demo         serve without any environment, with a built-in device\n", "package main\n", comment.String())
}
