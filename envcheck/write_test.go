package envcheck_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/internal/machine"
)

func TestWriteExample(t *testing.T) {
	var s string
	var n int
	spec := envcheck.Spec{Vars: []envcheck.Var{
		{Name: "KEY", Doc: "Signs tokens.\nMake one with: openssl rand -base64 32", Required: true, Secret: true, Into: envcheck.Text(&s)},
		{Name: "PORT", Doc: "A doc that is longer than a line may be, so that it has to go on in a second one, which it does.", Default: "3000"},
		{Name: "TITLE", Required: true, Example: "it's $HOME"},
		{Name: "NOTHING"},
		{Name: "MODE", Default: "fast", Into: envcheck.Choice(&n, envcheck.As("slow", 1), envcheck.As("fast", 2))},
	}}
	const want = `# Signs tokens. Make one with: openssl rand -base64 32
# Required: text. A secret. Or KEY_FILE: the path of a file with it.
KEY=

# A doc that is longer than a line may be, so that it has to go on in a second
# one, which it does.
# Optional: text.
#PORT=3000

# Required: text.
TITLE="it's \$HOME"

# Optional: text.
#NOTHING=

# Optional: slow or fast.
#MODE=fast
`
	var b strings.Builder
	if err := spec.WriteExample(&b); err != nil || b.String() != want {
		t.Errorf("%v, got:\n%s\nwant:\n%s", err, b.String(), want)
	}
}

// A shell that reads the example, with comment signs removed, gets the intended
// values.
func TestExampleIsReadByShells(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		machine.Missing(t, "no shell: install one named sh")
	}
	values := map[string]string{
		"PLAIN": "a-b_c.d,e:f/g@h%i+j=k", "SPACE": "a b", "QUOTES": `'"'`, "DOLLAR": "$HOME `id` $(id)", "HASH": "a # b",
		"BACKSLASH": `a\nb\`, "GLOB": "*?[a]~", "PIPE": "a|b&c;d<e>f", "LINES": "a\nb", "BANG": "!x", "UNICODE": "é",
	}
	var spec envcheck.Spec
	for name, value := range values {
		spec.Vars = append(spec.Vars, envcheck.Var{Name: name, Required: true, Example: value})
	}
	var b strings.Builder
	if err := spec.WriteExample(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range values {
		out, err := exec.Command(sh, "-c", `. "$1"; eval "printf %s \"\$$2\""`, "sh", path, name).Output()
		if err != nil || string(out) != value {
			t.Errorf("%s: got %q, %v, want %q", name, out, err, value)
		}
	}
}

// A reader of .env files for another language gets the intended values, in
// every form but those that WriteExample documents as different.
func TestExampleIsReadByNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		machine.Missing(t, "no node: install Node.js 20.12 or newer")
	}
	values := map[string]string{
		"PLAIN": "a-b_c.d,e:f/g@h%i+j=k", "SPACE": "a b", "DOUBLE": `say "no"`, "DOLLAR": "$HOME `id` $(id)", "HASH": "a # b",
		"BACKSLASH": `a\nb\c`, "LINES": "a\nb", "APOSTROPHE": "it's", "AND_MORE": "it's # 5 o'clock", "UNICODE": "é",
	}
	var spec envcheck.Spec
	for name, value := range values {
		spec.Vars = append(spec.Vars, envcheck.Var{Name: name, Required: true, Example: value},
			envcheck.Var{Name: "NO_" + name, Default: value})
	}
	// The values with no common form must not spoil the lines after them.
	spec.Vars = append(spec.Vars, envcheck.Var{Name: "ALL", Required: true, Example: "'\"$`"}, envcheck.Var{Name: "END", Required: true, Example: `C:\x\`}, envcheck.Var{Name: "LAST", Required: true, Example: "x"})
	var b strings.Builder
	if err := spec.WriteExample(&b); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "-e", `process.stdout.write(JSON.stringify(require("node:util").parseEnv(require("node:fs").readFileSync(0, "utf8"))))`)
	cmd.Stdin = strings.NewReader(b.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]string{}
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatal(err)
	}
	for name, value := range values {
		if read[name] != value {
			t.Errorf("%s: got %q, want %q", name, read[name], value)
		}
	}
	if read["LAST"] != "x" || len(read) != len(values)+3 {
		t.Errorf("got %d variables, want %d: %q", len(read), len(values)+3, read)
	}
}

func TestWriteMarkdown(t *testing.T) {
	var cfg config
	const want = "| Variable | Default | Meaning |\n|---|---|---|\n" +
		"| `JWT_SECRET` | required | Key of tokens. Or `JWT_SECRET_FILE`. |\n" +
		"| `DEVICES` | required | Who may publish. |\n" +
		"| `MODE` | `development` | Where it runs: a\\|b. One of `development`, `production`, `test`. |\n" +
		"| `PORT` | `3000` | TCP port. |\n" +
		"| `WINDOW` | `1m` | Rate window. |\n" +
		"| `MAX_BYTES` |  | Bound of the history. |\n" +
		"| `LIMIT` | `10` | Connections a window. |\n" +
		"| `DEMO` |  | Try it out. Or `DEMO_FILE`. |\n" +
		"| `TRUSTED` |  | Proxies. |\n" +
		"| `ADMIN_ADDR` | `127.0.0.1:3001` | Operator's address; empty for none. |\n"
	var b strings.Builder
	if err := spec(&cfg).WriteMarkdown(&b); err != nil || b.String() != want {
		t.Errorf("%v, got:\n%s\nwant:\n%s", err, b.String(), want)
	}
}

// The report names every variable and shows no value.
func TestWriteReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "true")
	if err := os.WriteFile(path, []byte("true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg config
	s := spec(&cfg)
	lookup := env("JWT_SECRET", key, "JWT_SECRET_FILE", path, "MODE", "moon", "PORT", "8080", "DEMO_FILE", path, "WINDWO", "1s", "ADMIN_ADDR", "")
	const want = `VARIABLE    SOURCE       STATE
JWT_SECRET  environment  PROBLEM: is set together with JWT_SECRET_FILE; unset one of them
DEVICES     -            PROBLEM: is required
MODE        environment  PROBLEM: must be development, production or test
PORT        environment  ok
WINDOW      default      ok
MAX_BYTES   -            not set
LIMIT       default      ok
DEMO        file         ok
TRUSTED     -            not set
ADMIN_ADDR  environment  ok
WINDWO      environment  UNKNOWN: misspelt WINDOW?
`
	var b strings.Builder
	if err := s.WriteReport(&b, lookup); err != nil || b.String() != want {
		t.Errorf("%v, got:\n%s\nwant:\n%s", err, b.String(), want)
	}
	if cfg.Port != 0 {
		t.Error("a report sets nothing")
	}

	b.Reset()
	s.WriteReport(&b, env("JWT_SECRET_FILE", key))
	if line := "JWT_SECRET  file     PROBLEM: JWT_SECRET_FILE names a file that does not exist\n"; !strings.Contains(b.String(), line) {
		t.Errorf("%s\nwant %s", b.String(), line)
	}
	if strings.Contains(b.String(), key) {
		t.Error("a secret in the report")
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }

var errBroken = errors.New("broken pipe")

func TestWritersReportErrors(t *testing.T) {
	var cfg config
	s := spec(&cfg)
	for i, err := range []error{s.WriteExample(brokenPipe{}), s.WriteMarkdown(brokenPipe{}), s.WriteReport(brokenPipe{}, env())} {
		if !errors.Is(err, errBroken) {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	bad := envcheck.Spec{Vars: []envcheck.Var{{Name: "a"}}}
	if err := bad.WriteReport(&strings.Builder{}, env()); err == nil {
		t.Error("a report of a bad spec")
	}
}
