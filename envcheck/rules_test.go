package envcheck_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/envcheck"
)

// mail is a configuration with every kind of rule.
type mail struct {
	mode      string
	low, high int
	key       envcheck.Secret[string]
}

func (m *mail) spec() envcheck.Spec {
	return envcheck.Spec{
		Vars: []envcheck.Var{
			{Name: "MODE", Default: "none", Into: envcheck.Enum(&m.mode, "none", "smtp", "api")},
			{Name: "HOST"}, {Name: "API_URL", Example: "https://mail.example"},
			{Name: "API_KEY", Into: envcheck.SecretOf(&m.key, envcheck.Text)},
			{Name: "CERT"}, {Name: "CERT_KEY"}, {Name: "CA"},
			{Name: "TOKEN"}, {Name: "USER"}, {Name: "TEXT"}, {Name: "TEXT_PATH"},
			{Name: "LOW", Default: "1", Into: envcheck.Number(&m.low, 0, 100)}, {Name: "HIGH", Default: "10", Into: envcheck.Number(&m.high, 0, 100)},
		},
		Rules: []envcheck.Rule{
			envcheck.RequiredIf("HOST", "MODE", "smtp"),
			envcheck.RequiredIf("API_URL", "MODE", "api", "smtp"),
			envcheck.RequiredIf("HOST", "CA"),
			envcheck.RequiredIf("API_KEY", "API_URL"),
			envcheck.Together("CERT", "CERT_KEY", "CA"),
			envcheck.OneOf("TOKEN", "USER"),
			envcheck.AtMostOne("TEXT", "TEXT_PATH"),
			envcheck.RuleFunc("must not be below LOW", func() bool { return m.high >= m.low }, "HIGH", "LOW"),
		},
	}
}

func TestRules(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		why  string
		env  []string // beside TOKEN
		want string   // problems, in the order of the variables
	}{
		{"nothing that a rule forbids", nil, ""},
		{"a value that asks for others", []string{"MODE", "smtp"}, "HOST is required if MODE is smtp; API_URL is required if MODE is api or smtp"},
		{"which are given", []string{"MODE", "api", "API_URL", "x", "API_KEY", "x"}, ""},
		{"another value", []string{"MODE", "none"}, ""},
		{"a wrong value asks for nothing", []string{"MODE", "smpt"}, "MODE must be none, smtp or api"},
		{"a variable that asks for another", []string{"API_URL", "x"}, "API_KEY is required if API_URL is set; set it or API_KEY_FILE"},
		{"a file is a value", []string{"API_URL", "x", "API_KEY_FILE", key}, ""},
		{"a file that cannot be read is set", []string{"API_URL", "x", "API_KEY_FILE", key + "x"}, "API_KEY_FILE names a file that does not exist"},
		{"an empty value is none", []string{"API_URL", ""}, ""},
		{"two of three", []string{"CERT", "x", "CA", "x", "HOST", "x"}, "CERT_KEY is required together with CERT"},
		{"one of three", []string{"CERT_KEY", "x"}, "CERT is required together with CERT_KEY; CA is required together with CERT_KEY"},
		{"all of three", []string{"CERT", "x", "CERT_KEY", "x", "CA", "x", "HOST", "x"}, ""},
		{"two rules that ask for one variable", []string{"MODE", "smtp", "CERT", "x", "CERT_KEY", "x", "CA", "x", "API_URL", "x", "API_KEY", "x"}, "HOST is required if MODE is smtp"},
		{"one too many", []string{"USER", "x"}, "USER is set together with TOKEN; unset one of them"},
		{"none", []string{"TOKEN", ""}, "TOKEN is required; set it or USER"},
		{"the other one", []string{"TOKEN", "", "USER", "x"}, ""},
		{"both of what is optional", []string{"TEXT", "x", "TEXT_PATH", "x"}, "TEXT_PATH is set together with TEXT; unset one of them"},
		{"crossed", []string{"LOW", "5", "HIGH", "4"}, "HIGH must not be below LOW"},
		{"crossed by a default", []string{"LOW", "11"}, "HIGH must not be below LOW"},
		{"not known, since one is wrong", []string{"LOW", "x"}, "LOW must be a whole number from 0 to 100"},
		{"all at once, with other problems", []string{"MODE", "x", "CERT", "x", "CA", "\"x\"", "HOST", "x", "TOKEN", "", "LOW", "9", "HIGH", "8"},
			"MODE must be none, smtp or api; CERT_KEY is required together with CERT; CA has quotes around it, or a quote at one end, that became part of the value; remove them; TOKEN is required; set it or USER; HIGH must not be below LOW"},
	} {
		m := mail{low: 1000, high: -2}
		err := m.spec().Load(env(append([]string{"TOKEN", "x"}, row.env...)...))
		got := strings.ReplaceAll(strings.ReplaceAll(strings.TrimPrefix(errorText(err), "envcheck: "), "\nenvcheck: ", "\n"), "\n", "; ")
		if got != row.want {
			t.Errorf("%s:\ngot  %s\nwant %s", row.why, got, row.want)
		}
		if err != nil && (m.low != 1000 || m.high != -2) {
			t.Errorf("%s: the targets were set to %d and %d", row.why, m.low, m.high)
		}
		for _, e := range all(t, err) {
			want := map[bool]envcheck.Reason{true: envcheck.ReasonMissing, false: envcheck.ReasonInvalid}[strings.Contains(e.Detail, "required")]
			if strings.Contains(e.Detail, "together with") && strings.Contains(e.Detail, "unset") {
				want = envcheck.ReasonConflict
			}
			if e.Reason != want && e.Reason != envcheck.ReasonUnreadable {
				t.Errorf("%s: %v has the reason %s, want %s", row.why, e, e.Reason, want)
			}
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Check and the report apply the rules, and leave the targets as they are. A
// RuleFunc sees the values of the environment.
func TestRulesLeaveTargets(t *testing.T) {
	m := mail{low: 40, high: 50}
	var report strings.Builder
	lookup := env("TOKEN", "x", "LOW", "9", "HIGH", "8", "MDOE", "smtp")
	if err := m.spec().Check(lookup); err == nil || err.Error() != "envcheck: HIGH must not be below LOW" {
		t.Error(err)
	}
	if err := m.spec().WriteReport(&report, lookup); err != nil || !strings.Contains(report.String(), "HIGH       environment  PROBLEM: must not be below LOW\n") {
		t.Errorf("%v\n%s", err, report.String())
	}
	if m.low != 40 || m.high != 50 {
		t.Errorf("the targets are %d and %d", m.low, m.high)
	}
	if err := m.spec().Load(env("TOKEN", "x", "HIGH", "100")); err != nil || m.low != 1 || m.high != 100 {
		t.Errorf("%v: the targets are %d and %d", err, m.low, m.high)
	}
	err := m.spec().Load(env("CERT", "x", "CERT_KY", "x", "CA", "x", "HOST", "x", "USER", "x"))
	if err == nil || err.Error() != "envcheck: CERT_KEY is required together with CERT (is CERT_KY a misspelling?)" {
		t.Errorf("what a rule requires may be misspelt too: %v", err)
	}
}

// The documents have each rule at the variables that it concerns.
func TestRulesAreDocumented(t *testing.T) {
	var m mail
	var example, table strings.Builder
	if err := errors.Join(m.spec().WriteExample(&example), m.spec().WriteMarkdown(&table)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Text. Required if MODE is smtp. Required if CA is set.\n#HOST=\n",
		"# Text. Required if MODE is api or smtp.\n#API_URL=https://mail.example\n",
		"# Text. A secret. Or API_KEY_FILE: the path of a file with it. Required if\n# API_URL is set.\n",
		"# Text. Set all of CERT, CERT_KEY and CA, or none.\n#CA=\n",
		"# Text. Set exactly one of TOKEN and USER.\n#USER=\n",
		"# Optional: text. Set at most one of TEXT and TEXT_PATH.\n#TEXT=\n",
		"# Optional: a whole number from 0 to 100. Must not be below LOW.\n#HIGH=10\n",
		"# Optional: a whole number from 0 to 100.\n#LOW=1\n",
	} {
		if !strings.Contains(example.String(), want) {
			t.Errorf("no %q in\n%s", want, example.String())
		}
	}
	for _, want := range []string{
		"| `API_URL` |  | Required if `MODE` is `api` or `smtp`. |\n",
		"| `CA` |  | Set all of `CERT`, `CERT_KEY` and `CA`, or none. |\n",
		"| `HIGH` | `10` | Must not be below `LOW`. |\n",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
}

func TestBadRules(t *testing.T) {
	vars := []envcheck.Var{{Name: "A"}, {Name: "B"}, {Name: "NEEDED", Required: true}, {Name: "HIDDEN", Secret: true}}
	for _, row := range []struct {
		why    string
		rule   envcheck.Rule
		reason envcheck.ConfigReason
		text   string
	}{
		{"misspelt", envcheck.Together("A", "BB"), envcheck.ConfigUnknown, "no variable BB"},
		{"twice", envcheck.OneOf("A", "A"), envcheck.ConfigDuplicate, "the name A"},
		{"about one", envcheck.AtMostOne("A"), envcheck.ConfigMalformed, "too few"},
		{"about none", envcheck.RuleFunc("x", func() bool { return true }), envcheck.ConfigMalformed, "too few"},
		{"without a function", envcheck.RuleFunc("x", nil, "A"), envcheck.ConfigMalformed, "a function"},
		{"without a text", envcheck.RuleFunc("", func() bool { return true }, "A"), envcheck.ConfigMalformed, "a text"},
		{"required in any case", envcheck.OneOf("A", "NEEDED"), envcheck.ConfigConflict, "NEEDED is required"},
		{"required in any case", envcheck.RequiredIf("NEEDED", "A", "x"), envcheck.ConfigConflict, "NEEDED is required"},
		{"by the value of a secret", envcheck.RequiredIf("A", "HIDDEN", "x"), envcheck.ConfigConflict, "HIDDEN is a secret"},
		{"no rule", envcheck.Rule{}, envcheck.ConfigMalformed, "too few"},
	} {
		err := envcheck.Spec{Vars: vars, Rules: []envcheck.Rule{row.rule}}.Load(env("NEEDED", "x"))
		e, ok := errors.AsType[*envcheck.ConfigError](err)
		if !ok || e.Field != "Spec.Rules[0]" || !errors.Is(err, row.reason) || !strings.Contains(err.Error(), row.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %s with %q", row.why, err, row.reason, row.text)
		}
	}
	fine := []envcheck.Rule{envcheck.RequiredIf("A", "NEEDED", "x"), envcheck.RequiredIf("A", "HIDDEN")}
	if err := (envcheck.Spec{Vars: vars, Rules: fine}).Load(env("NEEDED", "y")); err != nil {
		t.Error(err)
	}
}

// A part of a Spec has the rules that are about its variables alone.
func TestOnlyKeepsRules(t *testing.T) {
	m := mail{}
	if err := m.spec().Only("CERT", "CA").Check(env("CERT", "x")); err != nil {
		t.Errorf("a rule about a variable that is not read: %v", err)
	}
	if err := m.spec().Only("HIGH", "LOW").Check(env("LOW", "50")); err == nil {
		t.Error("a rule about both variables was lost")
	}
}
