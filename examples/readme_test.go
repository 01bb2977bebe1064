package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme checks the README: its programs compile unchanged, its links lead
// to files, and it names every package.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	programs := strings.Split(page, "```go\n")[1:]
	if len(programs) == 0 {
		t.Error("the README has no program")
	}
	for _, program := range programs {
		program, _, _ = strings.Cut(program, "```")
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []*exec.Cmd{exec.Command("go", "vet", file), exec.Command("gofmt", "-l", file)} {
			command.Dir = ".."
			if out, err := command.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v\n%s\n%s", command, err, out, program)
			}
		}
	}
	for _, link := range regexp.MustCompile(`(?:\]\(|src(?:set)?=")([^)"#:]+)[)"]`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join("..", link[1])); err != nil {
			t.Error(err)
		}
	}
	for _, p := range packages {
		if !strings.Contains(page, "]("+p.path+")") {
			t.Errorf("the README does not name %s", p.path)
		}
	}
}
