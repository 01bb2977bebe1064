package envcheck_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"

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

// The rule between LOW and HIGH is checked although PORT is wrong.
func ExampleSpec_Only() {
	var low, high, port int
	spec := envcheck.Spec{Vars: []envcheck.Var{
		{Name: "LOW", Into: envcheck.Number(&low, 0, 100)},
		{Name: "HIGH", Into: envcheck.Number(&high, 0, 100)},
		{Name: "PORT", Into: envcheck.Port(&port)},
	}}
	lookup := envcheck.FromMap(map[string]string{"LOW": "7", "HIGH": "3", "PORT": "http"})
	err := spec.Load(lookup)
	if spec.Only("LOW", "HIGH").Load(lookup) == nil && low > high {
		err = errors.Join(err, errors.New("LOW must not be above HIGH"))
	}
	fmt.Println(err)
	// Output:
	// envcheck: PORT must be a TCP port, 1 to 65535
	// LOW must not be above HIGH
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

	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	log.Info("starting", "secret", cfg.secret)
	// Output:
	// [hidden] {weak:{s:hunter2}}
	// level=INFO msg=starting secret=[redacted]
}

type stringer struct{ s string }

func (stringer) String() string { return "[hidden]" }
