package envcheck_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/relayguard/relayguard/envcheck"
)

// Load reports every problem at once and quotes no value.
func Example() {
	var cfg struct {
		Secret envcheck.Secret[string]
		Port   int
	}
	spec := envcheck.Spec{Vars: []envcheck.Var{
		{Name: "JWT_SECRET", Doc: "Signs tokens.", Required: true, Into: envcheck.SecretOf(&cfg.Secret, envcheck.Text), Check: envcheck.Strong(32)},
		{Name: "PORT", Doc: "TCP port.", Default: "3000", Into: envcheck.Port(&cfg.Port)},
	}}
	lookup := envcheck.FromMap(map[string]string{"JWT_SECRET": "your-very-long-secure-random-string-here-32-chars-minimum", "PORT": "http"})
	if err := spec.Load(lookup); err != nil { // a program passes os.LookupEnv
		fmt.Println(err)
	}
	// Output:
	// envcheck: JWT_SECRET is a placeholder; make a random secret with: openssl rand -base64 32
	// envcheck: PORT must be a TCP port, 1 to 65535
}

// A program can print this report for an option such as -check. It shows the
// source of each value and the problems, and no value.
func ExampleSpec_WriteReport() {
	var port, limit int
	spec := envcheck.Spec{Vars: []envcheck.Var{
		{Name: "JWT_SECRET", Required: true, Secret: true},
		{Name: "PORT", Default: "3000", Into: envcheck.Port(&port)},
		{Name: "LIMIT", Into: envcheck.Number(&limit, 1, 1000)},
	}}
	spec.WriteReport(os.Stdout, envcheck.FromMap(map[string]string{"LIMIT": "lots"}))
	// Output:
	// VARIABLE    SOURCE       STATE
	// JWT_SECRET  -            PROBLEM: is required; set it or JWT_SECRET_FILE
	// PORT        default      ok
	// LIMIT       environment  PROBLEM: must be a whole number from 1 to 1000
}

// The rules between variables are reported with all other problems.
func ExampleTogether() {
	var low, high int
	spec := envcheck.Spec{
		Vars: []envcheck.Var{
			{Name: "TLS_CERT"}, {Name: "TLS_KEY", Secret: true},
			{Name: "LOW", Default: "1", Into: envcheck.Number(&low, 0, 100)}, {Name: "HIGH", Default: "10", Into: envcheck.Number(&high, 0, 100)},
			{Name: "PORT", Into: envcheck.Port(new(int))},
		},
		Rules: []envcheck.Rule{
			envcheck.Together("TLS_CERT", "TLS_KEY"),
			envcheck.RuleFunc("must not be below LOW", func() bool { return high >= low }, "HIGH", "LOW"),
		},
	}
	fmt.Println(spec.Load(envcheck.FromMap(map[string]string{"TLS_CERT": "cert.pem", "LOW": "50", "PORT": "http"})))
	// Output:
	// envcheck: TLS_KEY is required together with TLS_CERT; set it or TLS_KEY_FILE
	// envcheck: HIGH must not be below LOW
	// envcheck: PORT must be a TCP port, 1 to 65535
}

// ListOf, Map, Optional and SecretOf take the setter of their items. One with
// arguments is given in a func.
func ExampleListOf() {
	var brokers []string
	var weights map[string]float64
	var database envcheck.Secret[*url.URL]
	spec := envcheck.Spec{Vars: []envcheck.Var{
		{Name: "BROKERS", Into: envcheck.ListOf(&brokers, envcheck.HostPort)},
		{Name: "WEIGHTS", Into: envcheck.Map(&weights, func(w *float64) envcheck.Setter { return envcheck.Number(w, 0, 1) })},
		{Name: "DATABASE", Into: envcheck.SecretOf(&database, func(u **url.URL) envcheck.Setter { return envcheck.URL(u, "postgres") })},
	}}
	fmt.Println(spec.Load(envcheck.FromMap(map[string]string{"BROKERS": "a:9092, b:9092", "WEIGHTS": "a=0.5,b=1", "DATABASE": "postgres://u:hunter2@db/x"})))
	fmt.Println(brokers, weights, database, database.Reveal().Host)
	fmt.Println(spec.Load(envcheck.FromMap(map[string]string{"BROKERS": "a:9092,b", "WEIGHTS": "a=2", "DATABASE": "mysql://u:hunter2@db/x"})))
	// Output:
	// <nil>
	// [a:9092 b:9092] map[a:0.5 b:1] [redacted] db
	// envcheck: BROKERS item 2 must be an address like host.example:8080, with a port from 1 to 65535
	// envcheck: WEIGHTS the value of pair 1 must be a number from 0 to 1
	// envcheck: DATABASE must be a URL that begins with postgres:// and has a host
}

// A service reads the environment, then the credentials of systemd, then a .env
// file, which need not exist.
func ExampleChain() {
	file, err := envcheck.Dotenv(".env")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Println(err)
		return
	}
	credentials, err := envcheck.Credentials()
	if err != nil {
		fmt.Println(err)
		return
	}
	var port int
	spec := envcheck.Spec{Unset: os.Unsetenv, Vars: []envcheck.Var{{Name: "PORT", Default: "3000", Into: envcheck.Port(&port)}}}
	fmt.Println(spec.Load(envcheck.Chain(os.LookupEnv, credentials, file)))
	// Output: <nil>
}

// ParseDotenv refuses what readers of such files take differently, and shows
// nothing of the file.
func ExampleParseDotenv() {
	vars, err := envcheck.ParseDotenv(strings.NewReader("A=1\nPASSWORD='p@ss$word'"))
	fmt.Println(vars, err)
	_, err = envcheck.ParseDotenv(strings.NewReader("A=1\nPASSWORD=p@ss$word"))
	fmt.Println(err)
	// Output:
	// map[A:1 PASSWORD:p@ss$word] <nil>
	// envcheck: line 2 of the .env file has a $ or a backtick that some readers replace; put the whole value in single quotes
}

// logTo returns options for a handler that prints no time.
var logTo = &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}}

// A Redactor that the Spec fills blanks a secret that another library quotes.
func ExampleRedactor() {
	var database envcheck.Secret[*url.URL]
	var redactor envcheck.Redactor
	spec := envcheck.Spec{Redactor: &redactor, Vars: []envcheck.Var{
		{Name: "DATABASE", Into: envcheck.SecretOf(&database, func(u **url.URL) envcheck.Setter { return envcheck.URL(u) })},
	}}
	err := spec.Load(envcheck.FromMap(map[string]string{"DATABASE": "postgres://u:hunter2@db/x"}))
	log := slog.New(redactor.Handler(slog.NewTextHandler(os.Stdout, logTo)))
	log.Info("loaded", "error", err)
	log.Error("no connection", "error", errors.New(`password "hunter2" of u is wrong`))
	// Output:
	// level=INFO msg=loaded error=<nil>
	// level=ERROR msg="no connection" error="password \"[redacted]\" of u is wrong"
}

// A Redactor finds whole secrets. A part of one, such as its beginning, or its
// hash, is another text, and shows.
func ExampleRedactor_incorrect() {
	var redactor envcheck.Redactor
	redactor.Add("hunter2-and-more")
	log := slog.New(redactor.Handler(slog.NewTextHandler(os.Stdout, logTo)))
	log.Info("loaded", "secret", "hunter2-and-more")
	log.Info("loaded", "secret begins with", "hunter2-and-more"[:7])
	// Output:
	// level=INFO msg=loaded secret=[redacted]
	// level=INFO msg=loaded "secret begins with"=hunter2
}

// A Choice checks the words, documents them, and maps them to values.
func ExampleChoice() {
	var level slog.Level
	spec := envcheck.Spec{Vars: []envcheck.Var{
		{Name: "LOG_LEVEL", Default: "info", Doc: "Log level.", Into: envcheck.Choice(&level,
			envcheck.As("info", slog.LevelInfo), envcheck.As("warn", slog.LevelWarn), envcheck.As("error", slog.LevelError))},
	}}
	fmt.Println(spec.Load(envcheck.FromMap(map[string]string{"LOG_LEVEL": "warn"})), level)
	fmt.Println(spec.Load(envcheck.FromMap(map[string]string{"LOG_LEVEL": "loud"})))
	spec.WriteMarkdown(os.Stdout)
	// Output:
	// <nil> WARN
	// envcheck: LOG_LEVEL must be info, warn or error
	// | Variable | Default | Meaning |
	// |---|---|---|
	// | `LOG_LEVEL` | `info` | Log level. One of `info`, `warn`, `error`. |
}

// A command that needs one variable reads that alone.
func ExampleSpec_Only() {
	var port, limit int
	spec := envcheck.Spec{Vars: []envcheck.Var{
		{Name: "PORT", Into: envcheck.Port(&port)},
		{Name: "LIMIT", Required: true, Into: envcheck.Number(&limit, 1, 1000)},
	}}
	fmt.Println(spec.Only("PORT").Load(envcheck.FromMap(map[string]string{"PORT": "80"})), port)
	// Output: <nil> 80
}

func ExampleMatch() {
	device := envcheck.Match(regexp.MustCompile(`[A-Za-z0-9_-]+`), "letters, digits, - and _")
	fmt.Println(envcheck.Each(device)("pi-1, pi_2"))
	fmt.Println(envcheck.Each(device)("pi-1, ../etc"))
	// Output:
	// <nil>
	// item 2 must be letters, digits, - and _
}

// A String method does not protect a value in an unexported field: fmt prints
// the field without calling the method. A Secret stays hidden there too.
func ExampleSecret_incorrect() {
	type config struct {
		weak   stringer
		secret envcheck.Secret[string]
	}
	cfg := config{stringer{"hunter2"}, envcheck.NewSecret("hunter2")}
	fmt.Printf("%v %+v\n", cfg.weak, struct{ weak stringer }{cfg.weak})

	log := slog.New(slog.NewTextHandler(os.Stdout, logTo))
	log.Info("starting", "secret", cfg.secret)
	// Output:
	// [hidden] {weak:{s:hunter2}}
	// level=INFO msg=starting secret=[redacted]
}

type stringer struct{ s string }

func (stringer) String() string { return "[hidden]" }
