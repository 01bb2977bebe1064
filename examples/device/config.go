package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/device/publish"
)

// config is what the flags and the environment say.
type config struct {
	relay     string
	tokenFile string
	refresh   string
	insecure  bool

	llm    string
	model  string
	apiKey envcheck.Secret
	prompt string
	window int

	mark      float64
	simulate  int64
	stateFile string
	logLevel  slog.Level
}

var errFlags = errors.New("bad flags")

const usage = `usage: device -token-file FILE [-llm URL -model NAME]

Publishes to a relay what a model says, or without -llm a built-in generator.
Every flag can be a variable instead, which is named behind it; LLM_API_KEY, or
LLM_API_KEY_FILE, can be nothing else.

`

// loadConfig reads the flags, and for those that are not given the environment. Its
// error names every problem and no secret.
func loadConfig(args []string, env envcheck.Lookup, stderr io.Writer) (config, error) {
	var c config
	given := make(map[string]string)
	flags := flag.NewFlagSet("device", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	option := func(name, variable, doc string) {
		flags.Func(name, doc+" ("+variable+")", func(v string) error { given[variable] = v; return nil })
	}
	option("relay", "RELAY_URL", "the relay's `URL`, ws:// or wss://; default ws://localhost:3000/ws")
	option("token-file", "DEVICE_TOKEN_FILE", "the `FILE` with what server token -pair prints; it is rewritten at each refresh")
	option("refresh", "REFRESH_URL", "`URL` that makes new pairs; default the relay's own, /auth/refresh")
	option("llm", "LLM_URL", "base `URL` of an OpenAI-compatible API, such as http://localhost:11434/v1")
	option("model", "LLM_MODEL", "`NAME` of the model there")
	option("window", "LLM_WINDOW", "how many `BYTES` of its own text the model is shown when it goes on; default 8KiB")
	option("memory-mark", "MEMORY_MARK", "used memory, in `PERCENT`, at which a life ends; default 90, 0 is none")
	option("simulate-memory", "SIMULATE_MEMORY", "pretend that memory is full after so many `BYTES` of text; default: real figures")
	option("state", "STATE_FILE", "`FILE` that keeps the number of restarts; default: none, they count from 0")
	option("log-level", "LOG_LEVEL", "least `LEVEL` that is logged: debug, info, warn or error; default info")
	prompt := flags.String("prompt", "", "`TEXT` that every life of the model begins with")
	promptFile := flags.String("prompt-file", "", "`FILE` with that text")
	flags.BoolVar(&c.insecure, "insecure-plain-http", false, "DANGER: let tokens and keys cross a network in the clear")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return config{}, err
	} else if err != nil {
		return config{}, errFlags
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "device: what is %q?\n", flags.Arg(0))
		flags.Usage()
		return config{}, errFlags
	}

	spec := c.spec()
	problems := []error{spec.Load(func(name string) (string, bool) {
		if v, ok := given[name]; ok {
			return v, true
		}
		return env(name)
	})}
	c.prompt = *prompt
	if *promptFile != "" {
		text, err := os.ReadFile(*promptFile)
		if err == nil && *prompt != "" {
			err = errors.New("-prompt and -prompt-file are both given: which one counts?")
		}
		problems = append(problems, err)
		c.prompt = strings.TrimSpace(string(text))
	}
	if len(c.prompt) > maxPrompt {
		problems = append(problems, fmt.Errorf("the prompt must have at most %d bytes", maxPrompt))
	}
	c.prompt = strings.ToValidUTF8(c.prompt, "\uFFFD")
	if spec := problems[0]; spec == nil {
		problems = append(problems, c.complete())
	}
	return c, errors.Join(problems...)
}

// maxPrompt leaves room in the message that shows the prompt, whatever JSON makes of it.
const maxPrompt = 8 << 10

func (c *config) spec() envcheck.Spec {
	return envcheck.Spec{Vars: []envcheck.Var{
		{Name: "RELAY_URL", Default: "ws://localhost:3000/ws", Into: envcheck.Text(&c.relay), Check: schemes("ws", "wss"), Doc: "The relay."},
		{Name: "DEVICE_TOKEN_FILE", Into: envcheck.Text(&c.tokenFile), Doc: "File with the device's token (-token-file)."},
		{Name: "REFRESH_URL", Into: envcheck.Text(&c.refresh), Check: schemes("http", "https"), Doc: "Where new pairs are made."},
		{Name: "LLM_URL", Into: envcheck.Text(&c.llm), Check: schemes("http", "https"), Doc: "Base URL of an OpenAI-compatible API."},
		{Name: "LLM_MODEL", Into: envcheck.Text(&c.model), Doc: "Name of the model."},
		{Name: "LLM_API_KEY", Into: envcheck.SecretText(&c.apiKey), Doc: "Key of that API."},
		{Name: "LLM_WINDOW", Default: "8KiB", Into: envcheck.Bytes(&c.window, 0, 16<<20), Doc: "What the model is shown of its own text."},
		{Name: "MEMORY_MARK", Default: "90", Into: envcheck.Func(&c.mark, "a number from 0 to 100", percent), Doc: "Used memory at which a life ends, in percent."},
		{Name: "SIMULATE_MEMORY", Into: envcheck.Bytes(&c.simulate, 0, 1<<40), Doc: "Text that fills a pretended memory."},
		{Name: "STATE_FILE", Into: envcheck.Text(&c.stateFile), Doc: "File that keeps the number of restarts."},
		{Name: "LOG_LEVEL", Default: "info",
			Into: envcheck.Choice(&c.logLevel, envcheck.As("debug", slog.LevelDebug), envcheck.As("info", slog.LevelInfo), envcheck.As("warn", slog.LevelWarn), envcheck.As("error", slog.LevelError)),
			Doc:  "Least level that is logged."},
	}}
}

// complete checks what concerns several settings, and derives what was left out.
func (c *config) complete() error {
	var problems []error
	if c.tokenFile == "" {
		problems = append(problems, errors.New("-token-file FILE is required: `go run ./examples/server token -pair > token.json` makes one"))
	}
	if (c.llm == "") != (c.model == "") {
		problems = append(problems, errors.New("-llm and -model belong together: the API's address and the name of a model there"))
	}
	if c.refresh == "" {
		var err error
		if c.refresh, err = publish.RefreshURL(c.relay); err != nil {
			problems = append(problems, err)
		}
	}
	if !c.insecure {
		if exposed(c.relay) {
			problems = append(problems, errors.New("-relay: a token must not cross a network in the clear: use wss://"))
		}
		if exposed(c.llm) && !c.apiKey.IsZero() {
			problems = append(problems, errors.New("-llm: LLM_API_KEY must not cross a network in the clear: use https://"))
		}
	}
	return errors.Join(problems...)
}

// exposed reports whether what is sent to address can be read on the way.
func exposed(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "ws" || u.Scheme == "http") && !publish.Loopback(u.Hostname())
}

func schemes(allowed ...string) func(string) error {
	return func(s string) error {
		u, err := url.Parse(s)
		if err == nil && slices.Contains(allowed, u.Scheme) && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" {
			return nil
		}
		return envcheck.CheckReason("must look like " + strings.Join(allowed, ":// or ") + "://host/path")
	}
}

func percent(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f >= 0 && f <= 100) { // nor NaN
		return 0, errors.New("not a percentage")
	}
	return f, nil
}

// logger writes lines, without the time where the journal adds it.
func (c *config) logger(w io.Writer, env envcheck.Lookup) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.logLevel}
	if _, ok := env("JOURNAL_STREAM"); ok {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
