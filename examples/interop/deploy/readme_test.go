package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme checks the operator's page: it links all files, its commands
// exist, and the server accepts the environment in it.
func TestReadme(t *testing.T) {
	text := shipped(t, "README.md")
	files, err := filepath.Glob("../../deploy/*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "Dockerfile") {
		if name := filepath.Base(file); name != "README.md" && name != "Dockerfile.dockerignore" && !strings.Contains(text, "]("+name+")") {
			t.Errorf("it does not link %s", name)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("../../deploy", link[1])); err != nil {
			t.Error(err)
		}
	}

	server, dir := build(t, "./examples/server"), t.TempDir()
	for _, verb := range regexp.MustCompile(`\brelay ([a-z]+)(?: |\n|$|`+"`"+`)`).FindAllStringSubmatch(codeOf(text), -1) {
		if out, _ := exec.Command(server, verb[1], "-h").CombinedOutput(); strings.Contains(string(out), "unknown verb") {
			t.Errorf("there is no %q", "relay "+verb[1])
		}
	}
	for _, name := range []string{"jwt-secret", "history-key"} {
		secret, err := exec.Command(server, "secret").Output()
		if err != nil {
			t.Fatal(err)
		}
		put(t, dir, name, string(secret))
	}
	put(t, dir, "jwt-secret-previous", "")
	put(t, dir, "history-key-previous", "")
	_, env, _ := strings.Cut(text, "relay.env <<'END'\n")
	env, _, found := strings.Cut(env, "END\n")
	if !found {
		t.Fatal("it has no environment for relay.env")
	}
	check := exec.Command(server, "check")
	check.Env = append(strings.Fields(strings.NewReplacer("/etc/relay", dir, "/var/lib/relay", dir, "/run/relay-proxy", dir).Replace(env)), "NODE_ENV=production")
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// codeOf returns the code of a page, in blocks and in lines, without comments.
func codeOf(text string) string {
	code := strings.Join(regexp.MustCompile("(?s)```.*?```|`[^`\n]+`").FindAllString(text, -1), "\n")
	return regexp.MustCompile(`#.*`).ReplaceAllString(code, "")
}
