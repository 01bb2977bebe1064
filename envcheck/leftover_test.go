package envcheck_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/envcheck"
)

// Every kind of variable, from the environment and from a file, is refused with
// what an environment file or a copied text leaves on it, and the reason says
// what that is.
func TestLeftoversOnValues(t *testing.T) {
	const zero = "\u200b"
	for _, row := range []struct{ why, form, says string }{
		{"line ends of Windows", "%s\r", "carriage return"},
		{"in the middle", "%s\r,x", "carriage return"},
		{"before it", "\r%s", "carriage return"},
		{"docker run keeps quotes", `"%s"`, "quotes"},
		{"of both kinds", `'%s'`, "quotes"},
		{"of a document", "`%s`", "quotes"},
		{"of a word processor", "“%s”", "quotes"},
		{"of another language", "«%s»", "quotes"},
		{"with a space behind", `"%s" `, "quotes"},
		{"with a comment behind", `"%s" # of the office`, "quotes"},
		{"both at once", "\"%s\"\r", ""},
		{"a byte order mark", "\ufeff%s", "cannot be seen"},
		{"a zero-width space", "%s" + zero, "cannot be seen"},
		{"in the middle", "%s" + zero + "%[1]s", "cannot be seen"},
		{"a joiner at the end", "%s\u200d", "cannot be seen"},
		{"a joiner within ASCII", "%s\u200c%[1]s", "cannot be seen"},
		{"a change of direction", "\u202e%s", "cannot be seen"},
		{"a soft hyphen", "%s\u00ad", "cannot be seen"},
		{"a space that does not break", "\u00a0%s", "cannot be seen"},
		{"an ideographic one", "%s\u3000", "cannot be seen"},
	} {
		for _, value := range []struct{ of, value string }{
			{"Text", "/var/lib/relay"}, {"SecretOf", key}, {"ListOf", "pi-1"}, {"Choice", "info"}, {"Number", "7"}, {"Port", "80"},
			{"Bytes", "1MiB"}, {"Duration", "1m"}, {"Bool", "true"}, {"Func", "x"}, {"none", "x"}, {"empty", ""},
		} {
			text := fmt.Sprintf(row.form, value.value)
			if value.of == "empty" && row.form == "%s\r,x" {
				continue
			}
			file := filepath.Join(t.TempDir(), "value")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for from, lookup := range map[string]envcheck.Lookup{
				"A": env("A", text), "A_FILE": env("A_FILE", file), "path in A_FILE": env("A_FILE", fmt.Sprintf(row.form, file)),
			} {
				if from == "A_FILE" && strings.HasSuffix(strings.TrimRight(text, "\r\n"), value.value) && strings.HasSuffix(text, "\r") {
					continue // the line end of a file, which Load removes
				}
				var target struct {
					text   string
					secret envcheck.Secret[string]
					list   []string
					number int
					time   time.Duration
					bool   bool
				}
				into := map[string]envcheck.Setter{
					"Text": envcheck.Text(&target.text), "SecretOf": envcheck.SecretOf(&target.secret, envcheck.Text), "ListOf": envcheck.ListOf(&target.list, envcheck.Text),
					"Choice": envcheck.Choice(&target.text, envcheck.As("info", "info")), "Number": envcheck.Number(&target.number, 1, 9),
					"Port": envcheck.Port(&target.number), "Bytes": envcheck.Bytes(&target.number, 1, 1<<30),
					"Duration": envcheck.Duration(&target.time, 1, time.Hour), "Bool": envcheck.Bool(&target.bool),
					"Func":  envcheck.Func(&target.text, "any", func(s string) (string, error) { return s, nil }),
					"empty": envcheck.Text(&target.text),
				}[value.of]
				s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", AllowFile: true, AllowEmpty: true, Into: into}}}
				errs := all(t, s.Load(lookup))
				if len(errs) != 1 || errs[0].Reason != envcheck.ReasonInvalid || !strings.Contains(errs[0].Detail, row.says) || errs[0].Name[:1] != "A" {
					t.Errorf("%s, %s from %s: %q: got %v, want a reason with %q", row.why, value.of, from, text, errs, row.says)
				}
			}
		}
	}
}

// A half of a pair of quotes is refused, except in a secret, which may be any
// text, and in prose.
func TestQuotesThatBelong(t *testing.T) {
	for _, row := range []struct {
		why, value string
		text, word bool // accepted by Text and by SecretOf
	}{
		{"the second is missing", `"/var/lib`, false, true},
		{"the first is missing", `/var/lib'`, false, true},
		{"inches", `15"`, false, true},
		{"a word of prose", `'tis the season`, true, true},
		{"the plural", `the devices'`, true, true},
		{"quotes inside", `say "no" or "yes", and go`, true, true},
		{"at the end alone", `he said "no"`, true, true},
		{"an apostrophe", "it's", true, true},
		{"one character", `"`, false, true},
		{"two", `""`, false, false},
		{"Persian is spelled with joiners", "می\u200cخواهم", true, true},
		{"and so is a family", "👨\u200d👩\u200d👧", true, true},
		{"French punctuation", "Bonjour\u00a0!", true, true},
		{"lines", "a\nb", true, true},
	} {
		var text string
		var secret envcheck.Secret[string]
		for _, want := range []struct {
			into envcheck.Setter
			ok   bool
		}{{envcheck.Text(&text), row.text}, {envcheck.SecretOf(&secret, envcheck.Text), row.word}} {
			s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", Into: want.into}}}
			if err := s.Load(env("A", row.value)); (err == nil) != want.ok {
				t.Errorf("%s: %q: %v, want accepted %v", row.why, row.value, err, want.ok)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(file, []byte("-----BEGIN-----\r\nx\r\n-----END-----\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", AllowFile: true}}}
	if err := s.Load(env("A_FILE", file)); err != nil {
		t.Errorf("a file with the line ends of Windows: %v", err)
	}
	if envcheck.Strong(32)(`"`+key+`"`) == nil {
		t.Error("Strong accepts quotes as a part of the key")
	}
}

// A variable whose name carries what a file left on it is refused by its name,
// also if it is optional.
func TestLeftoversOnNames(t *testing.T) {
	for _, row := range []struct {
		set     string
		refused bool
	}{
		{"\ufeffRATE_LIMIT", true}, {"RATE\u200d_LIMIT", true}, {"RATE_LIMIT\u200b", true}, {"RATE_\u2060LIMIT", true},
		{"RATE_LIMIT\r", true}, {"RATE_LIMIT ", true}, {"\u00a0RATE_LIMIT", true}, {`"RATE_LIMIT"`, true}, {`"RATE_LIMIT`, true},
		{"export RATE_LIMIT", true}, {"\x1bRATE_LIMIT", true}, {"\ufeffRATE_LIMIT_FILE", true},
		{"RATE\u00a0LIMIT", false}, {"RATE-LIMIT", false}, {"RATE_LIMTI", false}, {"rate_limit", false},
	} {
		for _, def := range []string{"", "x"} {
			s := envcheck.Spec{
				Vars: []envcheck.Var{{Name: "RATE_LIMIT", Default: def, AllowFile: true}, {Name: "PORT"}}}
			if near := s.NearMisses(env(row.set, "x")); len(near) != 1 || near[0].Set != row.set {
				t.Errorf("%q: near misses %v", row.set, near)
			}
			err := s.Load(env(row.set, "x"))
			if (err != nil) != row.refused {
				t.Errorf("%q: %v, want refused %v", row.set, err, row.refused)
			}
			if err != nil && (all(t, err)[0].Name != "RATE_LIMIT" || strings.ContainsAny(err.Error(), "\ufeff\u200b\u200d\u00a0\u2060\r\x1b")) {
				t.Errorf("%q: %q", row.set, err)
			}
			var b strings.Builder
			if s.WriteReport(&b, env(row.set, "x")); strings.ContainsAny(b.String(), "\ufeff\u200b\u200d\u00a0\u2060\r\x1b") {
				t.Errorf("%q: the report prints it: %q", row.set, b.String())
			}
			s.Vars[0].Default, s.Vars[0].Required = "", true
			if err := s.Load(env(row.set, "x")); err == nil || strings.ContainsAny(err.Error(), "\ufeff\u200b\u200d\u00a0\u2060\r\x1b") {
				t.Errorf("%q required: %q", row.set, err)
			}
		}
	}
	s := envcheck.Spec{Vars: []envcheck.Var{{Name: "PORT"}}}
	if err := s.Load(env("PORT", "80", "\ufeffPORT", "x")); err != nil {
		t.Errorf("a variable that is set in its own name: %v", err)
	}
}

// The message about a duration says what is allowed.
func TestDurationMessage(t *testing.T) {
	for _, row := range []struct {
		low, high time.Duration
		want      string
	}{
		{0, time.Minute, "from 0s to 1m, like"},
		{time.Second, time.Hour, "from 1s to 1h, like"},
		{90 * time.Minute, 24 * time.Hour, "from 1h30m to 24h, like"},
		{100 * time.Millisecond, time.Hour + time.Second, "from 100ms to 1h0m1s, like"},
	} {
		var d time.Duration
		s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", Into: envcheck.Duration(&d, row.low, row.high)}}}
		err := s.Load(env("A", "30d"))
		if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), "a day is 24h") {
			t.Errorf("%v to %v: %v, want %q", row.low, row.high, err, row.want)
		}
	}
}

func FuzzLeftovers(f *testing.F) {
	for _, s := range []string{"", "x", "\r", `"`, `""`, `"x" # y`, "\u200d", "\ufeff", "é\u200dé", "\xff", "'x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", AllowEmpty: true}}}
		err := s.Load(env("A", value))
		if err == nil && (strings.ContainsAny(value, "\r\ufeff\u200b\x00") || len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"') {
			t.Errorf("%q is accepted", value)
		}
		if len(value) > 12 && err != nil && strings.Contains(err.Error(), value) {
			t.Errorf("%q is quoted in %q", value, err)
		}
		s.NearMisses(env(value, "x"))
	})
}
