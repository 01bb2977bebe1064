// Command server is the relay: one device publishes its text, token by token,
// and any number of people watch it live on a web page.
//
//	server               serve, configured by the environment
//	server -demo         serve without any environment, with a built-in device
//	server check         check the environment and print it
//	server health        ask the server at HOST and PORT whether it takes connections
//	server token         make a token for a device, or check one
//	server secret        make a secret for JWT_SECRET, or for HISTORY_KEY
//	server doctor        check a running server from outside, as visitors see it
//	server version       print the program's version, and the version of Go that built it
//	server export        write the history as an archive
//	server import        replace the history with an archive
//	server erase         erase some or all messages of the history
//	server hold          stop what viewers see, at once
//	server release       let viewers see again what is published
//	server lives         list the lives that are kept (LIVES_DIR), or erase them
//	server sessions      list the connections that may publish, or end one
//	server families      list the families of refresh tokens, or end or prolong one
//	server revoke        revoke the tokens of a device, or take that back
//	server keys          show how much each secret is used, or reload the secrets
//	server blocks        list the blocked networks, and the clients that may not send tokens
//	server block         block a network and end its connections
//	server unblock       end a block, and forgive failures
//	server audit         print the newest security events, and follow new ones
//	server reports       show the policy violations that browsers reported
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/terminal"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // an unusable environment, or a failed command or server
	exitUsage  = 2

	// exitUnreachable is the doctor's code for a server that does not answer.
	// It differs from exitFailed, so that a CI job can distinguish a bad
	// deployment from a missing one.
	exitUnreachable = 3
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(often)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run is main with its context, arguments, environment and outputs as
// parameters. It returns the exit code. It guards both outputs against text
// that controls a terminal.
func run(ctx context.Context, args []string, env envcheck.Lookup, stdout, stderr io.Writer) int {
	stdout, stderr = terminal.Guard(stdout), terminal.Guard(stderr)
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { writeUsage(stderr); flags.PrintDefaults() }
	demo := flags.Bool("demo", false, "make a secret, start a built-in device and serve its stream")
	check := flags.Bool("check", false, "check the environment, print it and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitUsage
	}
	name, rest := flags.Arg(0), flags.Args()
	if name != "" {
		rest = rest[1:]
	} else if *check {
		name = "check"
	} else {
		return serve(ctx, *demo, env, stdout, stderr)
	}
	for _, v := range verbs() {
		if v.name == name {
			return v.run(ctx, rest, env, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "server: unknown verb %q\n", name)
	writeUsage(stderr)
	return exitUsage
}
