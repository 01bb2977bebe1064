package main

import (
	"encoding/json"
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
	"time"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/device/llm"
	"github.com/relayguard/relayguard/examples/device/publish"
)

// config holds the values of the flags and of the environment.
type config struct {
	relay     string
	tokenFile string
	refresh   string
	insecure  bool

	stdin  bool
	llm    string
	model  string
	apiKey envcheck.Secret[string]
	prompt string
	window int

	promptFile  string
	requestFile string
	request     map[string]json.RawMessage
	reasoning   string
	silence     time.Duration

	plain bool

	batch     time.Duration
	mark      float64
	simulate  int64
	stateFile string
	logLevel  slog.Level
}

var errFlags = errors.New("bad flags")

const usage = `usage: device -token-file FILE [-llm URL -model NAME | -stdin]

Publishes the text of a language model to a relay, or what another program
writes (-stdin). Without these, a built-in generator makes the text. Each flag
can also be set by the environment variable in parentheses. The key of the
model's API has no flag: it is in LLM_API_KEY, or in the file that
LLM_API_KEY_FILE names.

`

// loadConfig reads the flags, and the environment for those that are not given.
// Its error reports every problem, and holds no secret.
func loadConfig(args []string, env envcheck.Lookup, stderr io.Writer) (config, error) {
	var c config
	given := make(map[string]string)
	flags := flag.NewFlagSet("device", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	option := func(name, variable, doc string) {
		flags.Func(name, doc+" ("+variable+")", func(v string) error { given[variable] = v; return nil })
	}
	option("relay", "RELAY_URL", "`URL` of the relay, ws:// or wss://, with ?room=NAME if the relay has rooms; default ws://localhost:3000/ws")
	option("token-file", "DEVICE_TOKEN_FILE", "`FILE` with the output of server token -pair; the device replaces it at each refresh")
	option("refresh", "REFRESH_URL", "`URL` that refreshes the token; default /auth/refresh of the relay")
	option("llm", "LLM_URL", "base `URL` of an OpenAI-compatible API, such as http://localhost:11434/v1")
	option("model", "LLM_MODEL", "`NAME` of a model of the API of -llm")
	option("window", "LLM_WINDOW", "`BYTES` of its own text that the model gets when it has to go on; default 8KiB")
	option("batch", "BATCH", "`DURATION` within which words are joined into one message; default 100ms, 0 sends each alone")
	option("memory-mark", "MEMORY_MARK", "used memory, in `PERCENT`, at which a life ends; default 90, 0 means never")
	option("simulate-memory", "SIMULATE_MEMORY", "simulate a memory that is full after `BYTES` of text; default: the real memory")
	option("state", "STATE_FILE", "`FILE` that stores the number of restarts; default: none, counting from 0")
	option("log-level", "LOG_LEVEL", "lowest `LEVEL` that is logged: debug, info, warn or error; default info")
	option("prompt", "LLM_PROMPT", "`TEXT` with which every life of the model begins")
	option("prompt-file", "LLM_PROMPT_FILE", "`FILE` with the text of -prompt")
	option("silence", "LLM_SILENCE", "`DURATION` that the model may take before its first text, and a fifth of it before each later one; default 5m")
	option("request", "LLM_REQUEST_FILE", "`FILE` with a JSON object of more members of each request, such as {\"temperature\":0.7}")
	option("reasoning", "LLM_REASONING", "drop what the model thinks before it answers, or publish it `apart`, as a quotation; default drop")
	flags.BoolFunc("stdin", "publish what standard input gives, as it comes, and end with it; with -prompt it is a new life, else it follows what viewers have (DEVICE_STDIN)",
		func(v string) error { given["DEVICE_STDIN"] = v; return nil })
	flags.BoolFunc("plain", "publish the text without the marks of Markdown (PLAIN_TEXT)",
		func(v string) error { given["PLAIN_TEXT"] = v; return nil })
	flags.BoolFunc("insecure-plain-http", "DANGER: send tokens and keys over a network in the clear (INSECURE_PLAIN_HTTP)",
		func(v string) error { given["INSECURE_PLAIN_HTTP"] = v; return nil })
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return config{}, err
	} else if err != nil {
		return config{}, errFlags
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "device: unexpected argument %q\n", flags.Arg(0))
		flags.Usage()
		return config{}, errFlags
	}

	// A prompt on the command line may be any text: no file was read that could
	// have left something on it.
	prompt, promptGiven := given["LLM_PROMPT"]
	_, fileGiven := given["LLM_PROMPT_FILE"]
	spec := c.spec()
	problems := []error{spec.Load(func(name string) (string, bool) {
		switch {
		case name == "LLM_PROMPT" && (promptGiven || fileGiven), name == "LLM_PROMPT_FILE" && promptGiven && !fileGiven:
			return "", false
		}
		if v, ok := given[name]; ok {
			return v, true
		}
		return env(name)
	})}
	if promptGiven {
		c.prompt = prompt
	}
	if c.promptFile != "" {
		text, err := os.ReadFile(c.promptFile)
		if err == nil && c.prompt != "" {
			err = errors.New("-prompt and -prompt-file exclude each other")
		}
		problems = append(problems, err)
		c.prompt = strings.TrimSpace(string(text))
	}
	if c.requestFile != "" {
		var err error
		if c.request, err = readRequest(c.requestFile); err != nil {
			problems = append(problems, fmt.Errorf("-request: %w", err))
		}
	}
	if len(c.prompt) > maxPrompt {
		problems = append(problems, fmt.Errorf("the prompt must be at most %d bytes long", maxPrompt))
	}
	c.prompt = strings.ToValidUTF8(c.prompt, "\uFFFD")
	if spec := problems[0]; spec == nil {
		problems = append(problems, c.complete())
	}
	return c, errors.Join(problems...)
}

// maxRequest is the largest file of -request, in bytes.
const maxRequest = 64 << 10

func readRequest(name string) (map[string]json.RawMessage, error) {
	info, err := os.Stat(name)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxRequest) {
		err = fmt.Errorf("%s must be a file of at most %d bytes", name, maxRequest)
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	members, err := llm.ParseRequest(text)
	if err != nil {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	return members, nil
}

// maxPrompt is the longest prompt, in bytes. As JSON it is at most six times as
// long, so it fits into a message.
const maxPrompt = 8 << 10

func (c *config) spec() envcheck.Spec {
	return envcheck.Spec{Vars: []envcheck.Var{
		{Name: "RELAY_URL", Default: "ws://localhost:3000/ws", Into: envcheck.Text(&c.relay), Check: relayURL, Doc: "URL of the relay."},
		{Name: "DEVICE_TOKEN_FILE", Into: envcheck.Text(&c.tokenFile), Doc: "File with the device's token (-token-file)."},
		{Name: "REFRESH_URL", Into: envcheck.Text(&c.refresh), Check: schemes("http", "https"), Doc: "URL that refreshes the token."},
		{Name: "DEVICE_STDIN", Into: envcheck.Bool(&c.stdin), Doc: "Whether the text comes from standard input."},
		{Name: "LLM_URL", Into: envcheck.Text(&c.llm), Check: schemes("http", "https"), Doc: "Base URL of an OpenAI-compatible API."},
		{Name: "LLM_MODEL", Into: envcheck.Text(&c.model), Doc: "Name of the model."},
		{Name: "LLM_API_KEY", Into: envcheck.SecretOf(&c.apiKey, envcheck.Text), Doc: "Key of that API."},
		{Name: "LLM_WINDOW", Default: "8KiB", Into: envcheck.Bytes(&c.window, 0, 16<<20), Doc: "What the model is shown of its own text."},
		{Name: "LLM_PROMPT", Into: envcheck.Text(&c.prompt), Doc: "Text with which every life of the model begins."},
		{Name: "LLM_PROMPT_FILE", Into: envcheck.Text(&c.promptFile), Doc: "File with that text."},
		{Name: "LLM_SILENCE", Default: "5m", Into: envcheck.Duration(&c.silence, time.Second, 24*time.Hour), Doc: "What the model may take before its first text."},
		{Name: "PLAIN_TEXT", Into: envcheck.Bool(&c.plain), Doc: "Whether the text is published without the marks of Markdown."},
		{Name: "LLM_REQUEST_FILE", Into: envcheck.Text(&c.requestFile), Doc: "File with more members of each request."},
		{Name: "LLM_REASONING", Default: "drop", Into: envcheck.Enum(&c.reasoning, "drop", "apart"), Doc: "What becomes of the model's thoughts before its answer."},
		{Name: "INSECURE_PLAIN_HTTP", Into: envcheck.Bool(&c.insecure), Doc: "Whether tokens and keys may be sent in the clear."},
		{Name: "BATCH", Default: "100ms", Into: envcheck.Duration(&c.batch, 0, 10*time.Second), Doc: "Time within which words are joined into one message."},
		{Name: "MEMORY_MARK", Default: "90", Into: envcheck.Func(&c.mark, "a number from 0 to 100", percent), Doc: "Used memory at which a life ends, in percent."},
		{Name: "SIMULATE_MEMORY", Into: envcheck.Bytes(&c.simulate, 0, 1<<40), Doc: "Text that fills a pretended memory."},
		{Name: "STATE_FILE", Into: envcheck.Text(&c.stateFile), Doc: "File that keeps the number of restarts."},
		{Name: "LOG_LEVEL", Default: "info",
			Into: envcheck.Choice(&c.logLevel, envcheck.As("debug", slog.LevelDebug), envcheck.As("info", slog.LevelInfo), envcheck.As("warn", slog.LevelWarn), envcheck.As("error", slog.LevelError)),
			Doc:  "Least level that is logged."},
	}}
}

// complete checks the settings that depend on each other, and sets the refresh
// URL if it was not given.
func (c *config) complete() error {
	var problems []error
	if c.tokenFile == "" {
		problems = append(problems, errors.New("-token-file FILE is required: `go run ./examples/server token -pair > token.json` makes one"))
	}
	if (c.llm == "") != (c.model == "") {
		problems = append(problems, errors.New("-llm and -model must be given together: the address of an API and the name of a model of it"))
	}
	if c.llm == "" && c.requestFile != "" {
		problems = append(problems, errors.New("-request needs -llm: only a model is asked"))
	}
	if c.stdin && c.llm != "" {
		problems = append(problems, errors.New("-stdin and -llm exclude each other: the text comes from one of them"))
	}
	if c.refresh == "" {
		var err error
		if c.refresh, err = publish.RefreshURL(c.relay); err != nil {
			problems = append(problems, err)
		}
	}
	if !c.insecure {
		if exposed(c.relay) {
			problems = append(problems, errors.New("-relay must be a wss:// URL: a token must not be sent over a network in the clear"))
		}
		if exposed(c.llm) && !c.apiKey.IsZero() {
			problems = append(problems, errors.New("-llm must be an https:// URL: LLM_API_KEY must not be sent over a network in the clear"))
		}
	}
	return errors.Join(problems...)
}

// exposed reports whether data that is sent to address can be read on the way.
func exposed(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "ws" || u.Scheme == "http") && !publish.Loopback(u.Hostname())
}

// relayURL checks the URL of a relay, whose query may name a room.
func relayURL(s string) error {
	if bare, room, ok := strings.Cut(s, "?room="); ok && room != "" && url.QueryEscape(room) == room {
		s = bare
	}
	if err := schemes("ws", "wss")(s); err != nil {
		return envcheck.CheckReason(err.Error() + ", or wss://host/path?room=NAME for a room")
	}
	return nil
}

// schemes returns a check for a URL with one of the schemes, and without user,
// query and fragment.
func schemes(allowed ...string) func(string) error {
	return func(s string) error {
		u, err := url.Parse(s)
		if err == nil && slices.Contains(allowed, u.Scheme) && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" {
			return nil
		}
		return envcheck.CheckReason("must look like " + strings.Join(allowed, ":// or ") + "://host/path")
	}
}

// percent parses a number from 0 to 100, with or without a percent sign.
func percent(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f >= 0 && f <= 100) { // refuses NaN too
		return 0, errors.New("not a percentage")
	}
	return f, nil
}

// logger returns a logger that writes to w. Under systemd it leaves out the
// time, because the journal adds it.
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
