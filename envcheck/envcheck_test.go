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
	"github.com/relayguard/relayguard/internal/machine"
)

type mode int

const (
	development mode = iota + 1
	production
	test
)

// key is a strong secret, made by openssl.
const key = "q7ZkM2cVt9XbR4wLh8NfJ3sYp6DgU1aE"

type config struct {
	Key     envcheck.Secret[string]
	Devices []string
	Mode    mode
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
		Vars: []envcheck.Var{
			{Name: "JWT_SECRET", Doc: "Key of tokens.", Required: true, Into: envcheck.SecretOf(&cfg.Key, envcheck.Text), Check: envcheck.Strong(32)},
			{Name: "DEVICES", Doc: "Who may publish.", Required: true, Into: envcheck.ListOf(&cfg.Devices, envcheck.Text),
				Check: envcheck.Each(envcheck.Match(regexp.MustCompile(`[A-Za-z0-9_-]+|\*`), "letters, digits, - and _")), Example: "pi-1,pi-2"},
			{Name: "MODE", Doc: "Where it runs: a|b.", Into: envcheck.Choice(&cfg.Mode, envcheck.As("development", development), envcheck.As("production", production), envcheck.As("test", test)), Default: "development"},
			{Name: "PORT", Doc: "TCP port.", Into: envcheck.Port(&cfg.Port), Default: "3000"},
			{Name: "WINDOW", Doc: "Rate window.", Into: envcheck.Duration(&cfg.Window, time.Second, time.Hour), Default: "1m"},
			{Name: "MAX_BYTES", Doc: "Bound of the history.", Into: envcheck.Bytes(&cfg.Max, 0, 1<<40)},
			{Name: "LIMIT", Doc: "Connections a window.", Into: envcheck.Number(&cfg.Limit, 1, 1000), Default: "10"},
			{Name: "DEMO", Doc: "Try it out.", Into: envcheck.Bool(&cfg.Demo), AllowFile: true},
			{Name: "TRUSTED", Doc: "Proxies.", Into: envcheck.Func(&cfg.Trusted, "a prefix like 10.0.0.0/8", netip.ParsePrefix)},
			{Name: "ADMIN_ADDR", Doc: "Operator's address; empty for none.", Into: envcheck.Text(&cfg.Admin), Default: "127.0.0.1:3001", AllowEmpty: true},
		},
	}
}

// env returns a Lookup of names and values in turn.
func env(kv ...string) envcheck.Lookup {
	vars := make(map[string]string)
	for i := 0; i < len(kv); i += 2 {
		vars[kv[i]] = kv[i+1]
	}
	return envcheck.FromMap(vars)
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
	if cfg.Key.Reveal() != key || !slices.Equal(cfg.Devices, []string{"pi-1", "pi_2"}) || cfg.Mode != development ||
		cfg.Port != 3000 || cfg.Window != 90*time.Second || cfg.Max != 64<<20 || cfg.Limit != 10 || !cfg.Demo ||
		cfg.Trusted != netip.MustParsePrefix("10.0.0.0/8") || cfg.Admin != "" {
		t.Errorf("%+v", cfg)
	}
}

// Load reports every problem at once, sets nothing, and quotes no value.
func TestLoadReportsAll(t *testing.T) {
	cfg := config{Port: 7}
	const marker = "s3nsitive"
	bad := env("JWT_SECRET", marker, "DEVICES", marker+"/", "MODE", marker, "PORT", marker, "WINDOW", marker,
		"MAX_BYTES", marker, "LIMIT", marker, "DEMO", marker, "TRUSTED", marker, "ADMIN_ADDR", "fine")
	err := spec(&cfg).Load(bad)
	if !strings.HasPrefix(fmt.Sprintf("%+v", cfg), "{Key:[redacted] Devices:[] Mode:0 Port:7 ") || cfg.Admin != "" {
		t.Errorf("something was set: %+v", cfg)
	}
	want := `envcheck: JWT_SECRET must have at least 32 characters
envcheck: DEVICES must be letters, digits, - and _
envcheck: MODE must be development, production or test
envcheck: PORT must be a TCP port, 1 to 65535
envcheck: WINDOW must be a duration from 1s to 1h, like 90s or 1h30m (a day is 24h)
envcheck: MAX_BYTES must be a size from 0 to 1024GiB, with the unit B, KiB, MiB or GiB
envcheck: LIMIT must be a whole number from 1 to 1000
envcheck: DEMO must be true or false
envcheck: TRUSTED must be a prefix like 10.0.0.0/8`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	for _, e := range all(t, err) {
		if e.Reason != envcheck.ReasonInvalid {
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

	for _, row := range []struct {
		why    string
		env    envcheck.Lookup
		reason envcheck.Reason // of the only error; empty if there is none
		text   string
	}{
		{"as it is", env("JWT_SECRET_FILE", good), "", ""},
		{"platforms mount links", env("JWT_SECRET_FILE", link), "", ""},
		{"echo adds a line end", env("JWT_SECRET_FILE", file("lf", key+"\n")), "", ""},
		{"some editors another", env("JWT_SECRET_FILE", file("crlf", key+"\r\n\r\n")), "", ""},
		{"an empty variable is none", env("JWT_SECRET_FILE", good, "JWT_SECRET", ""), "", ""},
		{"an empty path is none", env("JWT_SECRET_FILE", "", "JWT_SECRET", key), "", ""},
		{"of what is not secret only if it says so", env("JWT_SECRET", key, "PORT_FILE", "/nowhere"), "", ""},

		{"both", env("JWT_SECRET", key, "JWT_SECRET_FILE", good), envcheck.ReasonConflict, "JWT_SECRET is set together with JWT_SECRET_FILE; unset one of them"},
		{"neither", env(), envcheck.ReasonMissing, "JWT_SECRET is required; set it or JWT_SECRET_FILE"},
		{"weak in the file", env("JWT_SECRET_FILE", file("weak", "short")), envcheck.ReasonInvalid, "JWT_SECRET_FILE must have at least 32 characters"},
		{"a space is no line end", env("JWT_SECRET_FILE", file("space", key+" \n")), envcheck.ReasonInvalid, "JWT_SECRET_FILE " + unprintable},
		{"not there", env("JWT_SECRET_FILE", filepath.Join(dir, "none")), envcheck.ReasonUnreadable, "JWT_SECRET_FILE names a file that does not exist"},
		{"the secret instead of its path", env("JWT_SECRET_FILE", key), envcheck.ReasonUnreadable, "JWT_SECRET_FILE names a file that does not exist"},
		{"no path at all", env("JWT_SECRET_FILE", strings.Repeat("x", 1<<16)), envcheck.ReasonUnreadable, "JWT_SECRET_FILE names a file that cannot be read"},
		{"a file for a directory", env("JWT_SECRET_FILE", good+"/x"), envcheck.ReasonUnreadable, "JWT_SECRET_FILE names a file that cannot be read"},
		{"directory", env("JWT_SECRET_FILE", dir), envcheck.ReasonUnreadable, "JWT_SECRET_FILE names a directory, not a file"},
		{"device", env("JWT_SECRET_FILE", os.DevNull), envcheck.ReasonUnreadable, "JWT_SECRET_FILE does not name a regular file"},
		{"empty", env("JWT_SECRET_FILE", file("empty", "")), envcheck.ReasonUnreadable, "JWT_SECRET_FILE names an empty file"},
		{"only line ends", env("JWT_SECRET_FILE", file("lines", "\n\n")), envcheck.ReasonUnreadable, "JWT_SECRET_FILE names an empty file"},
		{"the largest is read", env("JWT_SECRET_FILE", file("64k", strings.Repeat("x", 64<<10))), envcheck.ReasonInvalid, "JWT_SECRET_FILE " + repetitive},
		{"a log by mistake", env("JWT_SECRET_FILE", file("log", strings.Repeat("x", 64<<10+1))), envcheck.ReasonUnreadable, "JWT_SECRET_FILE names a file of more than 64 KiB"},
		{"binary", env("JWT_SECRET_FILE", file("bin", "\x00\xff"+key)), envcheck.ReasonInvalid, "JWT_SECRET_FILE must be UTF-8 without NUL characters"},
	} {
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
		case row.reason != "" && (len(errs) != 1 || errs[0].Reason != row.reason || errs[0].Error() != "envcheck: "+row.text):
			t.Errorf("%s: got %v, want %s", row.why, err, row.text)
		}
	}
}

func TestForbiddenFile(t *testing.T) {
	if machine.RunAsOrdinaryUser(t) {
		return // root may read every file
	}
	locked := filepath.Join(t.TempDir(), "locked")
	if err := os.WriteFile(locked, []byte(key), 0); err != nil {
		t.Fatal(err)
	}
	var cfg config
	errs := all(t, spec(&cfg).Load(func(name string) (string, bool) {
		switch name {
		case "DEVICES":
			return "x", true
		case "JWT_SECRET_FILE":
			return locked, true
		}
		return "", false
	}))
	const want = "envcheck: JWT_SECRET_FILE names a file that this process may not read"
	if len(errs) != 1 || errs[0].Reason != envcheck.ReasonUnreadable || errs[0].Error() != want {
		t.Errorf("got %v, want %s", errs, want)
	}
}

func TestBadSpec(t *testing.T) {
	var s string
	var n int
	for _, row := range []struct {
		why    string
		vars   []envcheck.Var
		field  string // of the only error; empty if there is none
		reason error
		text   string
	}{
		{"fine", []envcheck.Var{{Name: "A"}, {Name: "A_B2", Default: "x", Into: envcheck.Text(&s)}}, "", nil, ""},
		{"lower case", []envcheck.Var{{Name: "a"}}, `Spec.Vars["a"].Name`, envcheck.ConfigMalformed, "capital letters"},
		{"no name", []envcheck.Var{{}}, `Spec.Vars[""].Name`, envcheck.ConfigMalformed, "capital letters"},
		{"twice", []envcheck.Var{{Name: "A"}, {Name: "A"}}, `Spec.Vars["A"].Name`, envcheck.ConfigDuplicate, "would read A"},
		{"one is the file of the other", []envcheck.Var{{Name: "A", Secret: true}, {Name: "A_FILE"}},
			`Spec.Vars["A_FILE"].Name`, envcheck.ConfigDuplicate, "would read A_FILE"},
		{"required and default", []envcheck.Var{{Name: "A", Required: true, Default: "x"}},
			`Spec.Vars["A"].Default`, envcheck.ConfigConflict, "never used"},
		{"a default secret", []envcheck.Var{{Name: "A", Secret: true, Default: "x"}},
			`Spec.Vars["A"].Default`, envcheck.ConfigConflict, "everyone would know"},
		{"an example secret", []envcheck.Var{{Name: "A", Secret: true, Example: "x"}},
			`Spec.Vars["A"].Example`, envcheck.ConfigConflict, "would use its example"},
		{"a bad default", []envcheck.Var{{Name: "A", Default: "x", Into: envcheck.Choice(&s, envcheck.As("y", "y"))}},
			`Spec.Vars["A"].Default`, envcheck.CheckReason("must be y"), ""},
		{"a default that Check refuses", []envcheck.Var{{Name: "A", Default: "x", Check: envcheck.Match(regexp.MustCompile("y"), "y")}},
			`Spec.Vars["A"].Default`, envcheck.CheckReason("must be y"), ""},
		{"a word with two meanings", []envcheck.Var{{Name: "A", Into: envcheck.Choice(&n, envcheck.As("y", 1), envcheck.As("y", 2))}},
			`Spec.Vars["A"].Into`, envcheck.ConfigDuplicate, "the word y"},
	} {
		err := envcheck.Spec{Vars: row.vars}.Load(env())
		if row.field == "" {
			if err != nil {
				t.Errorf("%s: %v", row.why, err)
			}
			continue
		}
		var e *envcheck.ConfigError
		if !errors.As(err, &e) || e.Field != row.field || !errors.Is(err, row.reason) || !strings.Contains(err.Error(), row.text) ||
			!strings.HasPrefix(err.Error(), "envcheck: "+row.field+" ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %s %v", row.why, err, row.field, row.reason)
		}
	}
}

// A part of a Spec reads, reports and documents only its own variables.
func TestOnly(t *testing.T) {
	var cfg config
	s := spec(&cfg)
	lookup := env("PORT", "80", "LIMIT", "none", "WINDWO", "1s", "LIMT", "1")
	part := s.Only("WINDOW", "PORT")
	if err := part.Load(lookup); err != nil || cfg.Port != 80 || cfg.Window != time.Minute {
		t.Errorf("got %v, port %d and window %v, want 80 and the default of a minute", err, cfg.Port, cfg.Window)
	}
	if len(part.Vars) != 2 || part.Vars[0].Name != "PORT" || len(s.Vars) != 10 {
		t.Errorf("got %d variables of %d, want PORT and WINDOW in the order of the Spec", len(part.Vars), len(s.Vars))
	}
	if near := part.NearMisses(lookup); len(near) != 1 || near[0].Like != "WINDOW" {
		t.Errorf("misspelt: %v, want what looks like WINDOW alone", near)
	}
	if err := s.Only().Load(lookup); err != nil {
		t.Errorf("of no variable: %v", err)
	}
	for _, wrong := range []envcheck.Spec{s.Only("PORT", "PRT"), s.Only("PORT", "PRT").Only("PORT")} {
		err := wrong.Check(lookup)
		var e *envcheck.ConfigError
		if !errors.As(err, &e) || e.Field != `Spec.Only("PRT")` || !errors.Is(err, envcheck.ConfigUnknown) {
			t.Errorf("a name that is not in the Spec: %v", err)
		}
	}
}

// Into gets an empty value that AllowEmpty admits, and Check does not.
func TestEmptyValueIsNotChecked(t *testing.T) {
	target := "before"
	check := func(value string) error {
		if value == "" {
			t.Error("the check was given the empty value")
		}
		return envcheck.CheckReason("must be empty")
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", AllowEmpty: true, AllowFile: true, Into: envcheck.Text(&target), Check: check}}}
	for why, lookup := range map[string]envcheck.Lookup{"set": env("A", ""), "from a file": env("A_FILE", empty)} {
		if target = "before"; s.Load(lookup) != nil || target != "" {
			t.Errorf("%s: target %q after %v", why, target, s.Load(lookup))
		}
	}
	if err := s.Load(env("A", "x")); err == nil {
		t.Error("a value that is not empty is not checked")
	}
}

func TestBytes(t *testing.T) {
	for _, row := range []struct {
		why, value string
		ok         bool
	}{
		{"the lower bound", "1MiB", true},
		{"in another unit", "1024KiB", true},
		{"below", "1023KiB", false},
		{"just below", "1048575", false},
		{"none", "0", false},
		{"the upper bound", "2MiB", true},
		{"above", "2097153B", false},
	} {
		var n int
		err := envcheck.Spec{Vars: []envcheck.Var{{Name: "N", Into: envcheck.Bytes(&n, 1<<20, 2<<20)}}}.Load(env("N", row.value))
		if (err == nil) != row.ok {
			t.Errorf("%s: %s: %v", row.why, row.value, err)
		}
		if err != nil && err.Error() != "envcheck: N must be a size from 1MiB to 2MiB, with the unit B, KiB, MiB or GiB" {
			t.Errorf("%s: %v", row.why, err)
		}
	}
}

func TestNearMisses(t *testing.T) {
	for _, row := range []struct {
		set  string
		want string // the variable that was meant; empty if none is similar
	}{
		{"JWT_SECRT", "JWT_SECRET"}, {"JWTSECRET", "JWT_SECRET"}, {"jwt_secret", "JWT_SECRET"}, {"JWT-SECRET", "JWT_SECRET"},
		{"JTW_SECRET", "JWT_SECRET"}, {"JWT_SECRETS", "JWT_SECRET"}, {"JWT_SECRET_FIEL", "JWT_SECRET_FILE"},
		{"API_SECRET", ""}, {"SECRET", ""}, {"PATH", ""}, {"SORT", ""}, {"PORTS", ""}, {"port", "PORT"}, {"HOME", ""},
		{"ADMIN_ADR", "ADMIN_ADDR"}, {"DEVICE", "DEVICES"}, {"DEVICES", ""}, {"WIDOW", "WINDOW"}, {"LIMIT_FILE", ""},
	} {
		var cfg config
		s := spec(&cfg)
		near := s.NearMisses(env(row.set, "x"))
		switch {
		case row.want == "" && len(near) == 0:
		case len(near) != 1 || near[0] != (envcheck.NearMiss{Set: row.set, Like: row.want}):
			t.Errorf("%s: got %v, want %q", row.set, near, row.want)
		}
	}

	s := envcheck.Spec{
		Vars: []envcheck.Var{{Name: "HISTORY_KEEP"}, {Name: "HISTORY_KEY"}},
	}
	if near := s.NearMisses(env("HISTORY_KEEP", "5")); len(near) != 0 {
		t.Errorf("one known name for another: %v", near)
	}

	t.Setenv("JWT_SECRIT", key)
	t.Setenv("JWT_SECRAT", "") // unset, as it is empty
	t.Setenv("DEVICES", "x")
	var cfg config
	s = spec(&cfg)
	err := s.Load(os.LookupEnv)
	if err == nil || err.Error() != "envcheck: JWT_SECRET is required; set it or JWT_SECRET_FILE (is JWT_SECRIT a misspelling?)" {
		t.Errorf("from the real environment: %v", err)
	}
	t.Setenv("JWT_SECRET", key)
	if near := s.NearMisses(os.LookupEnv); len(near) != 0 {
		t.Errorf("what is set is not misspelt: %v", near)
	}
}

// Names that crypto/x509 reads are not reported as misspelt.
func TestStandardNamesAreNoMisses(t *testing.T) {
	var file string
	s := envcheck.Spec{
		Vars: []envcheck.Var{{Name: "TLS_CERT_FILE", Into: envcheck.Text(&file)}},
	}
	near := s.NearMisses(env("SSL_CERT_FILE", "x", "TSL_CERT_FILE", "x"))
	if len(near) != 1 || near[0].Set != "TSL_CERT_FILE" {
		t.Errorf("got %v", near)
	}
}
