package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/operate"
)

// verb is one of the program's commands. The usage text, each verb's help, the
// package comment and the README's list are made from the table of all verbs.
type verb struct {
	name  string
	args  string // flags and arguments, as usage shows them
	about string // a phrase for usage and help
	group string // the heading in usage, one of the groups below
	json  bool   // has -json, which prints the answer for programs
	notes string // more text for its help

	// setup declares the verb's flags and returns the func that runs the verb.
	setup func(*flag.FlagSet) func(*call) error
}

// Groups of verbs, in the order of usage.
const (
	groupHere    = ""
	groupHistory = "on the running server, or on HISTORY_DIR or REDIS_URL if no server runs"
	groupServer  = "on a running server"
)

// verbs returns the table of all verbs, in the order of usage.
func verbs() []verb {
	return []verb{
		{name: "check", about: "check the environment and print it", setup: setupCheck},
		{name: "health", about: "ask the server at HOST and PORT whether it takes connections", setup: setupHealth},
		{name: "token", args: "[-device ID] [-role ROLE] [-scope PERMISSIONS] [-ttl DURATION | -pair] [-o FILE] | -check FILE",
			about: "make a token for a device, or check one", setup: setupToken},
		{name: "secret", about: "make a secret for JWT_SECRET, or for HISTORY_KEY", setup: setupSecret},
		{name: "doctor", args: "[-room ROOM] [-token-file FILE] [-origin ORIGIN] [-skip-rate-limit] [-timeout DURATION] URL", json: true,
			about: "check a running server from outside, as visitors see it", notes: doctorNotes, setup: setupDoctor},
		{name: "version", json: true, about: "print the program's version, and the version of Go that built it", setup: setupVersion},

		{name: "export", group: groupHistory, args: "[-room ROOM] [-o FILE [-force]] [-recipient AGE1… | -passphrase | -passphrase-file FILE]",
			about: "write the history as an archive", setup: setupExport},
		{name: "import", group: groupHistory, args: "[-room ROOM] [-identity FILE | -passphrase-file FILE] FILE", json: true,
			about: "replace the history with an archive", setup: setupImport},
		{name: "erase", group: groupHistory, args: "[-room ROOM] -all | SEQ…", json: true,
			about: "erase some or all messages of the history", setup: setupErase},

		{name: "hold", group: groupServer, json: true,
			about: "stop what viewers see, at once", notes: holdNotes, setup: setupHold},
		{name: "release", group: groupServer, json: true,
			about: "let viewers see again what is published", setup: setupRelease},
		{name: "lives", group: groupServer, args: "[-room ROOM | -erase ID | -erase-all]", json: true,
			about: "list the lives that are kept (LIVES_DIR), or erase them", setup: setupLives},
		{name: "sessions", group: groupServer, args: "[-end ID]", json: true,
			about: "list the connections that may publish, or end one", setup: setupSessions},
		{name: "families", group: groupServer, args: "[-end ID | -prolong ID]", json: true,
			about: "list the families of refresh tokens, or end or prolong one", setup: setupFamilies},
		{name: "revoke", group: groupServer, args: "[[-before TIME] [-force] | -undo] DEVICE", json: true,
			about: "revoke the tokens of a device, or take that back", setup: setupRevoke},
		{name: "keys", group: groupServer, args: "[-reload]", json: true,
			about: "show how much each secret is used, or reload the secrets", setup: setupKeys},
		{name: "blocks", group: groupServer, json: true,
			about: "list the blocked networks, and the clients that may not send tokens", setup: setupBlocks},
		{name: "block", group: groupServer, args: "[-for DURATION | -forever] [-force] PREFIX", json: true,
			about: "block a network and end its connections", setup: setupBlock},
		{name: "unblock", group: groupServer, args: "PREFIX", json: true,
			about: "end a block, and forgive failures", setup: setupUnblock},
		{name: "audit", group: groupServer, args: "[-n COUNT] [-f]", json: true,
			about: "print the newest security events, and follow new ones", setup: setupAudit},
		{name: "reports", group: groupServer, json: true,
			about: "show the policy violations that browsers reported", setup: setupReports},
	}
}

// usage returns a verb's line: its name, flags and arguments.
func (v verb) usage() string {
	words := []string{"server", v.name}
	if v.json {
		words = append(words, "[-json]")
	}
	if v.args != "" {
		words = append(words, v.args)
	}
	return strings.Join(words, " ")
}

// writeUsage lists all verbs.
func writeUsage(w io.Writer) {
	fmt.Fprint(w, "usage: server [-demo | -check]\n")
	group := groupHere
	for _, v := range verbs() {
		if v.group != group {
			group = v.group
			fmt.Fprintf(w, "\n%s:\n", group)
		}
		fmt.Fprintf(w, "       %s\n", v.usage())
	}
	fmt.Fprint(w, "\nWithout a verb, the server starts. The environment configures it (see .env.example). `server VERB -h` explains a verb.\n")
}

// call is one run of a verb.
type call struct {
	ctx            context.Context
	env            envcheck.Lookup
	stdout, stderr io.Writer
	flags          *flag.FlagSet
	args           []string // without the flags
	json           bool
}

// run parses args, runs the verb and returns the exit code.
func (v verb) run(ctx context.Context, args []string, env envcheck.Lookup, stdout, stderr io.Writer) int {
	c := &call{ctx: ctx, env: env, stdout: stdout, stderr: stderr, flags: flag.NewFlagSet("server "+v.name, flag.ContinueOnError)}
	c.flags.SetOutput(stderr)
	c.flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: %s\n\n%s%s.\n", v.usage(), strings.ToUpper(v.about[:1]), v.about[1:])
		if v.notes != "" {
			fmt.Fprint(stderr, v.notes)
		}
		c.flags.PrintDefaults()
	}
	if v.json {
		c.flags.BoolVar(&c.json, "json", false, "print the answer as JSON")
	}
	perform := v.setup(c.flags)
	var err error
	if c.args, err = parseFlags(c.flags, args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitUsage // the flag set has reported it
	}
	err = perform(c)
	var ended exitError
	var misused usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &ended):
		if ended.err != nil {
			fmt.Fprintf(stderr, "server %s: %v\n", v.name, ended.err)
		}
		return ended.code
	case errors.As(err, &misused):
		fmt.Fprintf(stderr, "server %s: %v\n", v.name, err)
		c.flags.Usage()
		return exitUsage
	}
	fmt.Fprintf(stderr, "server %s: %v\n", v.name, err)
	return exitFailed
}

// parseFlags takes flags before and after the other arguments.
func parseFlags(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if args = flags.Args(); len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// usageError is a mistake on the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

// exitError ends the program with a code of its own, and with a message unless
// err is nil.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return fmt.Sprintf("exit code %d: %v", e.code, e.err) }

// noArgs refuses arguments.
func (c *call) noArgs() error {
	if len(c.args) > 0 {
		return usageError("this command takes no arguments")
	}
	return nil
}

// oneArg returns the only argument, or a usage error with the text want.
func (c *call) oneArg(want string) (string, error) {
	if len(c.args) != 1 || c.args[0] == "" {
		return "", usageError(want)
	}
	return c.args[0], nil
}

// config reads the environment.
func (c *call) config() (config.Config, error) { return config.Load(c.env) }

// client returns a client of the running server.
func (c *call) client() (*operate.Client, error) {
	cfg, err := c.config()
	return operator(cfg), err
}

func operator(cfg config.Config) *operate.Client {
	return &operate.Client{Addr: cfg.OperatorAddr(), Secrets: cfg.Keys()}
}

// ask runs one call to the running server and prints the answer, with text
// unless -json is set.
func ask[T any](c *call, do func(*operate.Client, context.Context) (T, error), text func(io.Writer, T)) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	answer, err := do(client, c.ctx)
	if err != nil {
		return err
	}
	return c.print(answer, func(w io.Writer) { text(w, answer) })
}

// tell runs one call without an answer to the running server, and then prints
// done.
func (c *call) tell(do func(*operate.Client, context.Context) error, done string) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	if err := do(client, c.ctx); err != nil {
		return err
	}
	return c.done(done)
}

// print writes value as JSON if -json is set, or else calls text.
func (c *call) print(value any, text func(io.Writer)) error {
	if !c.json {
		text(c.stdout)
		return nil
	}
	enc := json.NewEncoder(c.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// done reports that a call without an answer succeeded: as JSON if -json is
// set, or else with text.
func (c *call) done(text string) error {
	if c.json {
		_, err := fmt.Fprintln(c.stdout, `{"done":true}`)
		return err
	}
	_, err := fmt.Fprintln(c.stdout, text)
	return err
}

// writeTable prints heading and a line for each element of list. If list is
// empty, it prints the text empty.
func writeTable[T any](w io.Writer, list []T, empty, heading string, row func(T) []any) {
	if len(list) == 0 {
		fmt.Fprintln(w, empty)
		return
	}
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, heading)
	for _, e := range list {
		cells := row(e)
		for i := range cells {
			cells[i] = terminal.Line(fmt.Sprint(cells[i])) // a line feed or a tab would make another cell
		}
		fmt.Fprintf(columns, strings.TrimSuffix(strings.Repeat("%v\t", len(cells)), "\t")+"\n", cells...)
	}
	_ = columns.Flush()
}

func moment(t time.Time) string { return t.Local().Format(time.DateTime) }
