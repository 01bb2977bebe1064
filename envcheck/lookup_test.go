package envcheck_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/internal/machine"
)

func TestChain(t *testing.T) {
	vars := map[string]string{"A": "1", "EMPTY": ""}
	chain := envcheck.Chain(nil, envcheck.FromMap(vars), envcheck.FromMap(map[string]string{"A": "2", "B": "2", "EMPTY": "2"}),
		func(name string) (string, bool) { return "3", name == "C" })
	vars["B"] = "changed later"
	for _, row := range []struct {
		name, want string
		set        bool
		why        string
	}{
		{"A", "1", true, "the first wins"},
		{"B", "2", true, "then the second; the first is a copy"},
		{"C", "3", true, "then any func"},
		{"EMPTY", "", true, "an empty value overrides"},
		{"D", "", false, "set nowhere"},
		{"", "", false, "no variable has the empty name"},
	} {
		got, set := chain(row.name)
		if row.name == "" {
			got = "" // how the names are told is not part of the API
		}
		if got != row.want || set != row.set {
			t.Errorf("%s: %s is %q, %v, want %q, %v", row.why, row.name, got, set, row.want, row.set)
		}
	}
}

// A name in a source that only one link of a chain reads is found if misspelt.
func TestMisspeltNamesOfSources(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte("JWT_SECRTE=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := envcheck.Dotenv(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("JWT_SECERT", "x")
	s := envcheck.Spec{Vars: []envcheck.Var{{Name: "JWT_SECRET", Required: true}}}
	err = s.Load(envcheck.Chain(os.LookupEnv, envcheck.Chain(file, envcheck.FromMap(map[string]string{"JWT_SECERT": "x"}))))
	if err == nil || err.Error() != "envcheck: JWT_SECRET is required (is JWT_SECRTE or JWT_SECERT a misspelling?)" {
		t.Error(err)
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"JWT_SECRET": key + "\n", "EMPTY": "\n", "tls.key": "x", "PORT": "80"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	lookup, err := envcheck.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"JWT_SECRET": key, "EMPTY": "", "PORT": "80"} {
		if got, set := lookup(name); got != want || !set {
			t.Errorf("%s: %q, %v", name, got, set)
		}
	}
	if _, set := lookup("tls.key"); set {
		t.Error("a name that no variable can have")
	}
	if _, set := lookup("../" + filepath.Base(dir) + "/PORT"); set {
		t.Error("a path")
	}
	var secret envcheck.Secret[string]
	s := envcheck.Spec{Vars: []envcheck.Var{{Name: "JWT_SECRET", Required: true, Into: envcheck.SecretOf(&secret, envcheck.Text)}}}
	if err := s.Load(envcheck.Chain(os.LookupEnv, lookup)); err != nil || secret.Reveal() != key {
		t.Errorf("a secret from systemd: %v", err)
	}

	if err := os.Mkdir(filepath.Join(dir, "BAD"), 0o700); err != nil {
		t.Fatal(err)
	}
	lookup, err = envcheck.Credentials()
	if e, ok := errors.AsType[*envcheck.Error](err); !ok || e.Reason != envcheck.ReasonUnreadable || err.Error() != "envcheck: BAD is a credential of systemd that names a directory, not a file" {
		t.Errorf("what cannot be read is not taken for unset: %v", err)
	}
	if _, set := lookup("PORT"); set {
		t.Error("a part of the credentials")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Join(dir, "none"))
	if _, err := envcheck.Credentials(); err == nil || strings.Contains(err.Error(), dir) {
		t.Errorf("a directory that does not exist: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	lookup, err = envcheck.Credentials()
	if _, set := lookup("PORT"); set || err != nil {
		t.Errorf("a process without credentials: %v", err)
	}
}

// Load unsets the secrets that it has read from the Lookup, so that a child
// does not inherit them, and nothing else.
func TestUnset(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TEST_SECRET", key)
	t.Setenv("TEST_OTHER_FILE", file)
	t.Setenv("TEST_PORT", "80")
	spec := envcheck.Spec{Unset: os.Unsetenv, Vars: []envcheck.Var{{Name: "TEST_SECRET", Secret: true}, {Name: "TEST_OTHER", Secret: true}, {Name: "TEST_PORT"}, {Name: "TEST_NONE", Secret: true}}}
	bad := spec
	bad.Vars = append(bad.Vars[:len(bad.Vars):len(bad.Vars)], envcheck.Var{Name: "TEST_NEEDED", Required: true})
	if bad.Load(os.LookupEnv) == nil || spec.Check(os.LookupEnv) != nil || os.Getenv("TEST_SECRET") != key {
		t.Fatal("a check or a failed Load unset a variable")
	}
	if err := spec.Load(os.LookupEnv); err != nil {
		t.Fatal(err)
	}
	if _, set := os.LookupEnv("TEST_SECRET"); set || os.Getenv("TEST_PORT") != "80" || os.Getenv("TEST_OTHER_FILE") != file {
		t.Error("the environment after Load:", os.Environ())
	}
	if sh, err := exec.LookPath("sh"); err == nil {
		if out, _ := exec.Command(sh, "-c", "env").Output(); strings.Contains(string(out), key) {
			t.Error("a child has the secret")
		}
	}

	var n int
	spec.Unset = func(name string) error { return fs.ErrPermission }
	spec.Vars = append(spec.Vars, envcheck.Var{Name: "TEST_PORT_TOO", Into: envcheck.Port(&n)})
	err := spec.Load(env("TEST_SECRET", key, "TEST_PORT_TOO", "80"))
	if !errors.Is(err, fs.ErrPermission) || err.Error() != "envcheck: TEST_SECRET cannot be unset: permission denied" || n != 80 {
		t.Errorf("%v, %d", err, n)
	}
}

func TestDotenv(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lookup, err := envcheck.Dotenv(write("good", "A=1\n"))
	if v, set := lookup("A"); err != nil || v != "1" || !set {
		t.Errorf("%q, %v", v, err)
	}
	for _, row := range []struct{ path, says, why string }{
		{filepath.Join(dir, "none"), "envcheck: the .env file is not read: its path names a file that does not exist", "it is often optional"},
		{dir, "envcheck: the .env file is not read: its path names a directory, not a file", "a directory"},
		{write("bad", "A\n"), "envcheck: line 1 of the .env file has no = after a name", "a bad line"},
		{write("large", strings.Repeat("#", 256<<10+1)), "envcheck: the .env file has more than 256 KiB", "a log by mistake"},
	} {
		lookup, err := envcheck.Dotenv(row.path)
		if err == nil || err.Error() != row.says {
			t.Errorf("%s: got %v, want %s", row.why, err, row.says)
		}
		if _, ok := errors.AsType[*envcheck.DotenvError](err); !ok {
			t.Errorf("%s: %T", row.why, err)
		}
		if errors.Is(err, fs.ErrNotExist) != strings.HasSuffix(row.path, "none") {
			t.Errorf("%s: ErrNotExist %v", row.why, err)
		}
		if _, set := lookup("A"); set {
			t.Errorf("%s: the lookup has variables", row.why)
		}
	}
	if _, err := envcheck.ParseDotenv(brokenReader{}); !errors.Is(err, errBroken) {
		t.Errorf("an error of the reader: %v", err)
	}
	if vars, err := envcheck.ParseDotenv(strings.NewReader("A=" + strings.Repeat("x", 256<<10-2))); err != nil || len(vars["A"]) != 256<<10-2 {
		t.Errorf("the largest file: %v", err)
	}
	_, err = envcheck.ParseDotenv(strings.NewReader(strings.Repeat("x\n", 1000)))
	if n := strings.Count(err.Error(), "\n") + 1; n != 20 {
		t.Errorf("%d problems of 1,000 are reported, want the first 20", n)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

// Each text is read as it says, or refused with a reason that has its line.
func TestParseDotenv(t *testing.T) {
	const (
		quote  = "line 1 has a quote or a backslash in a value without quotes; put the whole value in single quotes"
		dollar = "line 1 has a $ or a backtick that some readers replace; put the whole value in single quotes"
		hash   = "line 1 has a # that only some readers take for a comment; put the value in single quotes, or a space before the #"
		slash  = "line 1 has a backslash in double quotes that readers take differently; write it twice, or use single quotes"
		open   = "line 1 opens a quote that is not closed"
		behind = "line 1 has text behind the closing quote"
		tab    = "line 1 has a tab at its end that only some readers remove; remove it"
		before = "line 1 has a backslash before the closing quote, which some readers take for a part of the value; put the value in double quotes, with each backslash written twice"
		letter = "line 1 has a name that is not made of letters, digits and underscores"
	)
	type vars = map[string]string
	for _, row := range []struct {
		why, text string
		want      vars   // nil if the text is refused
		says      string // the problems, without what is the same in all
	}{
		{"nothing", "", vars{}, ""},
		{"comments and empty lines", "# a\n\n \t\n  # b=c\n#", vars{}, ""},
		{"a variable", "A=1", vars{"A": "1"}, ""},
		{"several", "A=1\nB=2\n", vars{"A": "1", "B": "2"}, ""},
		{"an empty value", "A=\nB= # none\nC=''\nD=\"\"", vars{"A": "", "B": "", "C": "", "D": ""}, ""},
		{"a = in the value", "A=b=c==", vars{"A": "b=c=="}, ""},
		{"spaces in the value", "A=b c  ", vars{"A": "b c"}, ""},
		{"a comment behind it", "A=b # c # d\nC=b #\tc", vars{"A": "b", "C": "b"}, ""},
		{"as in a shell", "export A=1\n  export  B=2", vars{"A": "1", "B": "2"}, ""},
		{"lower case", "http_proxy=x", vars{"http_proxy": "x"}, ""},
		{"single quotes", `A='a "b" \n $HOME # c'` + " # d", vars{"A": `a "b" \n $HOME # c`}, ""},
		{"double quotes", `A="a 'b' \" \\ \$HOME \` + "`" + ` \n5 $ # c"`, vars{"A": "a 'b' \" \\ $HOME ` \n5 $ # c"}, ""},
		{"several lines", "A='b\nc'\nB=\"d\ne\"\nC=f", vars{"A": "b\nc", "B": "d\ne", "C": "f"}, ""},
		{"line ends of Windows", "A=1\r\nB='2\r\n3'\r\n", vars{"A": "1", "B": "2\n3"}, ""},
		{"a byte order mark", "\ufeffA=1", vars{"A": "1"}, ""},
		{"a $ alone", "A=5$\nB=$ 5\nC=a$-b", vars{"A": "5$", "B": "$ 5", "C": "a$-b"}, ""},

		{"no =", "hunter2", nil, "line 1 has no = after a name"},
		{"a space before", "A =1", nil, "line 1 has a space before the ="},
		{"a space behind", "A= 1", nil, "line 1 has a space after the ="},
		{"a quote after a space", "A= '1'", nil, "line 1 has a space after the ="},
		{"a name of another kind", "A-B=1", nil, letter},
		{"that begins with a digit", "1A=1", nil, letter},
		{"no name", "=hunter2", nil, letter},
		{"in quotes", "\"A\"=1", nil, letter},
		{"letters of another script", "É=1", nil, letter},
		{"a byte order mark inside", "A=1\n\ufeffB=2", nil, strings.Replace(letter, "1", "2", 1)},
		{"a # in a password", "A=b#c", nil, hash},
		{"at its beginning", "A=#c", nil, hash},
		{"an apostrophe", "A=it's", nil, quote},
		{"JSON", `A={"a":1}`, nil, quote},
		{"a path of Windows", `A=C:\x`, nil, quote},
		{"a variable in it", "A=$HOME", nil, dollar},
		{"in braces", "A=x${B}", nil, dollar},
		{"in double quotes", `A="$HOME"`, nil, dollar},
		{"a command", "A=$(id)", nil, dollar},
		{"of the old form", "A=`id`", nil, dollar},
		{"doubled, as Compose wants it", "A=a$$b", nil, dollar},
		{"an unknown escape", `A="\t"`, nil, slash},
		{"a line that goes on", "A=\"a\\\nb\"", nil, slash},
		{"not closed", "A='b\nC=d\n", nil, open},
		{"closed only by an escape", `A="b\"`, nil, open},
		{"a tab, which Node.js keeps", "A=b\t", nil, tab},
		{"a tab before a comment", "A=b\t#c", nil, tab},
		{"a tab alone", "A=\t", nil, tab},
		{"a path of Windows, of which Docker Compose and Python go on reading", "A='C:\\x\\'\nB='c'", nil, before},
		{"two backslashes", `A='b\\'`, nil, before},
		{"text behind", "A='b'c", nil, behind},
		{"pieces, as in shells", `A='it'\''s'`, nil, behind},
		{"a comment without a space", "A='b'#c", nil, behind},
		{"twice", "A=1\n# b\nA=2", nil, "line 3 sets the same variable as line 1"},
		{"NUL", "A=1\nB=\x00", nil, "line 2 must be UTF-8 without NUL characters"},
		{"not UTF-8", "A=\xff", nil, "line 1 must be UTF-8 without NUL characters"},
		{"all at once, each with its line", "A='1\n2'\nB\nC=$C\nA=3", nil,
			"line 3 has no = after a name; " + strings.Replace(dollar, "1", "4", 1) + "; line 5 sets the same variable as line 1"},
	} {
		got, err := envcheck.ParseDotenv(strings.NewReader(row.text))
		if row.want != nil {
			if err != nil || !maps.Equal(got, row.want) {
				t.Errorf("%s: %q: got %q, %v, want %q", row.why, row.text, got, err, row.want)
			}
			continue
		}
		says := strings.NewReplacer("envcheck: ", "", " of the .env file", "", "\n", "; ").Replace(errorText(err))
		if says != row.says || got != nil {
			t.Errorf("%s: %q: got %q, want %q", row.why, row.text, says, row.says)
		}
	}
}

// What WriteExample writes is read as it was meant.
func TestExampleIsReadByParseDotenv(t *testing.T) {
	values := map[string]string{
		"PLAIN": "a-b_c.d,e:f/g@h%i+j=k", "SPACE": "a b", "QUOTES": `'"'`, "DOLLAR": "$HOME `id` $(id)", "HASH": "a # b",
		"BACKSLASH": `a\nb\`, "LINES": "a\nb'\n", "UNICODE": "é", "ALL": "'\"$`\\", "EMPTY": "",
	}
	var spec envcheck.Spec
	for name, value := range values {
		spec.Vars = append(spec.Vars, envcheck.Var{Name: name, Doc: "It's # a comment.", Required: true, Example: value},
			envcheck.Var{Name: "NO_" + name, Default: value})
	}
	var b strings.Builder
	if err := spec.WriteExample(&b); err != nil {
		t.Fatal(err)
	}
	if got, err := envcheck.ParseDotenv(strings.NewReader(b.String())); err != nil || !maps.Equal(got, values) {
		t.Errorf("got %q, %v, want %q\n%s", got, err, values, b.String())
	}
}

// A reader of .env files for another language gets the same values of a file
// that ParseDotenv accepts.
func TestParseDotenvReadsAsNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		machine.Missing(t, "no node: install Node.js 20.12 or newer")
	}
	const text = "\n# comment\nA=1\nexport B=a b # c\nC='x \"y\" \\n $HOME # z' # w\nD=\"a\\nb 'c'\"\nE='1\n2'\nF=\nG=a=b==\n  I=5$\nJ=''\n"
	want, err := envcheck.ParseDotenv(strings.NewReader(text))
	if err != nil || len(want) != 9 {
		t.Fatalf("%v: %q", err, want)
	}
	cmd := exec.Command(node, "-e", `process.stdout.write(JSON.stringify(require("node:util").parseEnv(require("node:fs").readFileSync(0, "utf8"))))`)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %q here, %q there", name, value, got[name])
		}
	}
}

// A text is read or refused with its line, and no error quotes it. The values
// of a text that is read are read again as they are.
func FuzzParseDotenv(f *testing.F) {
	for _, s := range []string{"", "A=1", "export A='b\nc' # d", `A="\$\n"`, "\ufeffA=1\r\n", "A=$B", "A='", "hunter2secret", "A=1\nA=2", "A=\x00", "#", "A=b #c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		vars, err := envcheck.ParseDotenv(strings.NewReader(text))
		if err != nil {
			if vars != nil {
				t.Errorf("%q: variables with %v", text, err)
			}
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); len(line) > 20 && strings.Contains(err.Error(), line) {
					t.Errorf("%q is quoted in %v", line, err)
				}
			}
			if e, ok := errors.AsType[*envcheck.DotenvError](err); !ok || e.Line < 0 || e.Line > strings.Count(text, "\n")+1 {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		var spec envcheck.Spec
		want := make(map[string]string)
		for name, value := range vars {
			if upper := strings.ToUpper(name); name == upper && !strings.Contains(value, "\r") {
				spec.Vars = append(spec.Vars, envcheck.Var{Name: name, Required: true, Example: value})
				want[name] = value
			}
		}
		var b strings.Builder
		if err := spec.WriteExample(&b); err != nil {
			t.Fatal(err)
		}
		if again, err := envcheck.ParseDotenv(strings.NewReader(b.String())); err != nil || !maps.Equal(again, want) {
			t.Errorf("%q: %q becomes %q, %v", text, vars, again, err)
		}
	})
}
