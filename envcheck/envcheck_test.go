package envcheck_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/envcheck"
)

// key is a good secret, as openssl made it.
const key = "q7ZkM2cVt9XbR4wLh8NfJ3sYp6DgU1aE"

type config struct {
	Key     envcheck.Secret
	Devices []string
	Mode    string
	Port    int
	Window  time.Duration
	Max     int64
	Limit   int
	Demo    bool
	Trusted netip.Prefix
	Admin   string
}

func spec(cfg *config) envcheck.Spec {
	return envcheck.Spec{
		Environ: func() []string { return nil },
		Vars: []envcheck.Var{
			{Name: "JWT_SECRET", Doc: "Key of tokens.", Required: true, Into: envcheck.SecretText(&cfg.Key), Check: envcheck.Strong(32)},
			{Name: "DEVICES", Doc: "Who may publish.", Required: true, Into: envcheck.List(&cfg.Devices),
				Check: envcheck.Each(envcheck.Match(regexp.MustCompile(`[A-Za-z0-9_-]+|\*`), "letters, digits, - and _")), Example: "pi-1,pi-2"},
			{Name: "MODE", Doc: "Where it runs: a|b.", Into: envcheck.Text(&cfg.Mode), Check: envcheck.OneOf("development", "production", "test"), Default: "development"},
			{Name: "PORT", Doc: "TCP port.", Into: envcheck.Port(&cfg.Port), Default: "3000"},
			{Name: "WINDOW", Doc: "Rate window.", Into: envcheck.Duration(&cfg.Window, time.Second, time.Hour), Default: "1m"},
			{Name: "MAX_BYTES", Doc: "Bound of the history.", Into: envcheck.Bytes(&cfg.Max, 1<<40)},
			{Name: "LIMIT", Doc: "Connections a window.", Into: envcheck.Int(&cfg.Limit, 1, 1000), Default: "10"},
			{Name: "DEMO", Doc: "Try it out.", Into: envcheck.Bool(&cfg.Demo), File: true},
			{Name: "TRUSTED", Doc: "Proxies.", Into: envcheck.Func(&cfg.Trusted, "a prefix like 10.0.0.0/8", netip.ParsePrefix)},
			{Name: "ADMIN_ADDR", Doc: "Operator's address; empty for none.", Into: envcheck.Text(&cfg.Admin), Default: "127.0.0.1:3001", AllowEmpty: true},
		},
	}
}

func env(kv ...string) envcheck.Lookup {
	return func(name string) (string, bool) {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1], true
			}
		}
		return "", false
	}
}

// all returns the errors joined in err.
func all(t *testing.T, err error) (list []*envcheck.Error) {
	t.Helper()
	if err == nil {
		return nil
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		var e *envcheck.Error
		if !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		list = append(list, e)
	}
	return list
}

func TestLoad(t *testing.T) {
	var cfg config
	err := spec(&cfg).Load(env("JWT_SECRET", key, "DEVICES", "pi-1, pi_2", "PORT", "", "WINDOW", "90s", "MAX_BYTES", "64MiB",
		"DEMO", "true", "TRUSTED", "10.0.0.0/8", "ADMIN_ADDR", "", "UNRELATED", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Key.Reveal() != key || !slices.Equal(cfg.Devices, []string{"pi-1", "pi_2"}) || cfg.Mode != "development" ||
		cfg.Port != 3000 || cfg.Window != 90*time.Second || cfg.Max != 64<<20 || cfg.Limit != 10 || !cfg.Demo ||
		cfg.Trusted != netip.MustParsePrefix("10.0.0.0/8") || cfg.Admin != "" {
		t.Errorf("%+v", cfg)
	}
}

// Everything is told at once, nothing is set, and no value is quoted.
func TestLoadReportsAll(t *testing.T) {
	cfg := config{Port: 7}
	const marker = "s3nsitive"
	bad := env("JWT_SECRET", marker, "DEVICES", marker+"/", "MODE", marker, "PORT", marker, "WINDOW", marker,
		"MAX_BYTES", marker, "LIMIT", marker, "DEMO", marker, "TRUSTED", marker, "ADMIN_ADDR", "fine")
	err := spec(&cfg).Load(bad)
	if !strings.HasPrefix(fmt.Sprintf("%+v", cfg), "{Key:[redacted] Devices:[] Mode: Port:7 ") || cfg.Admin != "" {
		t.Errorf("something was set: %+v", cfg)
	}
	want := `JWT_SECRET must have at least 32 characters
DEVICES must be letters, digits, - and _
MODE must be development, production or test
PORT must be a TCP port, 1 to 65535
WINDOW must be a duration from 1s to 1h0m0s, like 90s
MAX_BYTES must be a size like 512KiB or 64MiB, at most 1099511627776 bytes
LIMIT must be a number from 1 to 1000
DEMO must be true or false
TRUSTED must be a prefix like 10.0.0.0/8`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	for _, e := range all(t, err) {
		if e.Reason != envcheck.Invalid {
			t.Errorf("%s: %s", e.Name, e.Reason)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %q", err, err, err, all(t, err)); strings.Contains(text, marker) {
		t.Error("a value in an error")
	}
	if again := spec(&cfg).Check(bad); again.Error() != want {
		t.Errorf("Check: %v", again)
	}
}

func TestValues(t *testing.T) {
	for _, row := range []struct {
		why, name, value string
		ok               bool
	}{
		{"lowest port", "PORT", "1", true},
		{"highest port", "PORT", "65535", true},
		{"port 0 listens on any", "PORT", "0", false},
		{"too high", "PORT", "65536", false},
		{"a sign", "PORT", "+80", false},
		{"a space of a careless .env", "PORT", "80 ", false},
		{"hexadecimal", "PORT", "0x50", false},
		{"bounds count", "LIMIT", "1000", true},
		{"over", "LIMIT", "1001", false},
		{"under", "LIMIT", "0", false},
		{"negative", "LIMIT", "-5", false},
		{"wraps around", "LIMIT", "18446744073709551617", false},
		{"a fraction", "LIMIT", "1.5", false},
		{"digits of another script", "LIMIT", "١", false},
		{"a number alone is bytes", "MAX_BYTES", "0", true},
		{"bytes", "MAX_BYTES", "5B", true},
		{"the bound", "MAX_BYTES", "1024GiB", true},
		{"over the bound", "MAX_BYTES", "1025GiB", false},
		{"wraps around", "MAX_BYTES", "17179869185GiB", false},
		{"ambiguous unit", "MAX_BYTES", "5MB", false},
		{"no number", "MAX_BYTES", "MiB", false},
		{"negative size", "MAX_BYTES", "-1KiB", false},
		{"duration without unit", "WINDOW", "60", false},
		{"too long", "WINDOW", "61m", false},
		{"too short", "WINDOW", "999ms", false},
		{"1 is not a word", "DEMO", "1", false},
		{"nor is it guessed", "DEMO", "TRUE", false},
		{"false", "DEMO", "false", true},
		{"empty item", "DEVICES", "a,,b", false},
		{"only a comma", "DEVICES", ",", false},
		{"twice", "DEVICES", "a, a", false},
		{"the rule is of the whole item", "DEVICES", "pi-1\n", true},
		{"and of every item", "DEVICES", "pi-1,p i", false},
		{"alternatives are bounded too", "DEVICES", "**", false},
		{"NUL", "ADMIN_ADDR", "a\x00b", false},
		{"not UTF-8", "ADMIN_ADDR", "a\xffb", false},
	} {
		var cfg config
		err := spec(&cfg).Load(func(name string) (string, bool) {
			if name == row.name {
				return row.value, true
			}
			return env("JWT_SECRET", key, "DEVICES", "x")(name)
		})
		if (err == nil) != row.ok {
			t.Errorf("%s: %s=%q: %v", row.why, row.name, row.value, err)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", key)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	locked := file("locked", key)
	os.Chmod(locked, 0)

	for _, row := range []struct {
		why    string
		env    envcheck.Lookup
		reason envcheck.Reason // of the only error; none: loaded
		text   string
	}{
		{"as it is", env("JWT_SECRET_FILE", good), "", ""},
		{"platforms mount links", env("JWT_SECRET_FILE", link), "", ""},
		{"echo adds a line end", env("JWT_SECRET_FILE", file("lf", key+"\n")), "", ""},
		{"some editors another", env("JWT_SECRET_FILE", file("crlf", key+"\r\n\r\n")), "", ""},
		{"an empty variable is none", env("JWT_SECRET_FILE", good, "JWT_SECRET", ""), "", ""},
		{"an empty path is none", env("JWT_SECRET_FILE", "", "JWT_SECRET", key), "", ""},
		{"of what is not secret only if it says so", env("JWT_SECRET", key, "PORT_FILE", "/nowhere"), "", ""},

		{"both", env("JWT_SECRET", key, "JWT_SECRET_FILE", good), envcheck.Conflict, "JWT_SECRET is set beside JWT_SECRET_FILE; unset one of them"},
		{"neither", env(), envcheck.Missing, "JWT_SECRET is required, or JWT_SECRET_FILE"},
		{"weak in the file", env("JWT_SECRET_FILE", file("weak", "short")), envcheck.Invalid, "JWT_SECRET_FILE must have at least 32 characters"},
		{"a space is no line end", env("JWT_SECRET_FILE", file("space", key+" \n")), envcheck.Invalid, "JWT_SECRET_FILE " + string(envcheck.Unprintable)},
		{"not there", env("JWT_SECRET_FILE", filepath.Join(dir, "none")), envcheck.Unreadable, "JWT_SECRET_FILE names a file that does not exist"},
		{"the secret instead of its path", env("JWT_SECRET_FILE", key), envcheck.Unreadable, "JWT_SECRET_FILE names a file that does not exist"},
		{"no path at all", env("JWT_SECRET_FILE", strings.Repeat("x", 1<<16)), envcheck.Unreadable, "JWT_SECRET_FILE names a file that cannot be read"},
		{"a file for a directory", env("JWT_SECRET_FILE", good+"/x"), envcheck.Unreadable, "JWT_SECRET_FILE names a file that cannot be read"},
		{"directory", env("JWT_SECRET_FILE", dir), envcheck.Unreadable, "JWT_SECRET_FILE names a directory, not a file"},
		{"device", env("JWT_SECRET_FILE", os.DevNull), envcheck.Unreadable, "JWT_SECRET_FILE does not name a regular file"},
		{"empty", env("JWT_SECRET_FILE", file("empty", "")), envcheck.Unreadable, "JWT_SECRET_FILE names an empty file"},
		{"only line ends", env("JWT_SECRET_FILE", file("lines", "\n\n")), envcheck.Unreadable, "JWT_SECRET_FILE names an empty file"},
		{"no permission", env("JWT_SECRET_FILE", locked), envcheck.Unreadable, "JWT_SECRET_FILE names a file that this process may not read"},
		{"the largest is read", env("JWT_SECRET_FILE", file("64k", strings.Repeat("x", 64<<10))), envcheck.Invalid, "JWT_SECRET_FILE " + string(envcheck.Repetitive)},
		{"a log by mistake", env("JWT_SECRET_FILE", file("log", strings.Repeat("x", 64<<10+1))), envcheck.Unreadable, "JWT_SECRET_FILE names a file of more than 64 KiB"},
		{"binary", env("JWT_SECRET_FILE", file("bin", "\x00\xff"+key)), envcheck.Invalid, "JWT_SECRET_FILE must be UTF-8 without NUL characters"},
	} {
		if row.why == "no permission" && os.Geteuid() == 0 {
			continue // root may read anything
		}
		var cfg config
		err := spec(&cfg).Load(func(name string) (string, bool) {
			if name == "DEVICES" {
				return "x", true
			}
			return row.env(name)
		})
		errs := all(t, err)
		switch {
		case row.reason == "" && (err != nil || cfg.Key.Reveal() != key):
			t.Errorf("%s: %v, %d characters", row.why, err, len(cfg.Key.Reveal()))
		case row.reason != "" && (len(errs) != 1 || errs[0].Reason != row.reason || errs[0].Error() != row.text):
			t.Errorf("%s: got %v, want %s", row.why, err, row.text)
		}
	}
}

func TestBadSpec(t *testing.T) {
	var s string
	for _, row := range []struct {
		why  string
		vars []envcheck.Var
		want string
	}{
		{"fine", []envcheck.Var{{Name: "A"}, {Name: "A_B2", Default: "x", Into: envcheck.Text(&s)}}, ""},
		{"lower case", []envcheck.Var{{Name: "a"}}, "is not a name"},
		{"no name", []envcheck.Var{{}}, "is not a name"},
		{"twice", []envcheck.Var{{Name: "A"}, {Name: "A"}}, "listed twice as A"},
		{"one is the file of the other", []envcheck.Var{{Name: "A", Secret: true}, {Name: "A_FILE"}}, "listed twice as A_FILE"},
		{"required and default", []envcheck.Var{{Name: "A", Required: true, Default: "x"}}, "default never counts"},
		{"a default secret", []envcheck.Var{{Name: "A", Secret: true, Default: "x"}}, "known to all"},
		{"an example secret", []envcheck.Var{{Name: "A", Secret: true, Example: "x"}}, "example would be used"},
		{"a bad default", []envcheck.Var{{Name: "A", Default: "x", Check: envcheck.OneOf("y")}}, "default that is not acceptable"},
	} {
		err := envcheck.Spec{Vars: row.vars}.Load(env())
		errs := all(t, err)
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v", row.why, err)
		case row.want != "" && (len(errs) != 1 || errs[0].Reason != envcheck.BadSpec || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: %v", row.why, err)
		}
	}
}

func TestNearMisses(t *testing.T) {
	for _, row := range []struct {
		set  string
		want string // the variable meant; none: not similar
	}{
		{"JWT_SECRT", "JWT_SECRET"}, {"JWTSECRET", "JWT_SECRET"}, {"jwt_secret", "JWT_SECRET"}, {"JWT-SECRET", "JWT_SECRET"},
		{"JTW_SECRET", "JWT_SECRET"}, {"JWT_SECRETS", "JWT_SECRET"}, {"JWT_SECRET_FIEL", "JWT_SECRET_FILE"},
		{"API_SECRET", ""}, {"SECRET", ""}, {"PATH", ""}, {"SORT", ""}, {"PORTS", ""}, {"port", "PORT"}, {"HOME", ""},
		{"ADMIN_ADR", "ADMIN_ADDR"}, {"DEVICE", "DEVICES"}, {"DEVICES", ""}, {"WIDOW", "WINDOW"}, {"LIMIT_FILE", ""},
	} {
		var cfg config
		s := spec(&cfg)
		s.Environ = func() []string { return []string{row.set + "=x", "=C:=odd", "NOT_CONFIRMED=x", "JWT_SECRIT=x"} }
		near := s.NearMisses(env(row.set, "x"))
		switch {
		case row.want == "" && len(near) == 0:
		case len(near) != 1 || near[0] != (envcheck.NearMiss{Set: row.set, Like: row.want}):
			t.Errorf("%s: got %v, want %q", row.set, near, row.want)
		}
	}

	s := envcheck.Spec{
		Vars:    []envcheck.Var{{Name: "HISTORY_KEEP"}, {Name: "HISTORY_KEY"}},
		Environ: func() []string { return []string{"HISTORY_KEEP=5"} },
	}
	if near := s.NearMisses(env("HISTORY_KEEP", "5")); len(near) != 0 {
		t.Errorf("one known name for another: %v", near)
	}

	t.Setenv("JWT_SECRIT", key)
	t.Setenv("DEVICES", "x")
	var cfg config
	s = spec(&cfg)
	s.Environ = nil
	err := s.Load(os.LookupEnv)
	if err == nil || err.Error() != "JWT_SECRET is required, or JWT_SECRET_FILE (JWT_SECRIT is set: misspelt?)" {
		t.Errorf("from the real environment: %v", err)
	}
	t.Setenv("JWT_SECRET", key)
	if near := s.NearMisses(os.LookupEnv); len(near) != 0 {
		t.Errorf("what is set is not misspelt: %v", near)
	}
}

// A name that every Go program reads is no slip of the hand.
func TestStandardNamesAreNoMisses(t *testing.T) {
	var file string
	s := envcheck.Spec{
		Vars:    []envcheck.Var{{Name: "TLS_CERT_FILE", Into: envcheck.Text(&file)}},
		Environ: func() []string { return []string{"SSL_CERT_FILE=x", "TSL_CERT_FILE=x"} },
	}
	near := s.NearMisses(env("SSL_CERT_FILE", "x", "TSL_CERT_FILE", "x"))
	if len(near) != 1 || near[0].Set != "TSL_CERT_FILE" {
		t.Errorf("got %v", near)
	}
}
