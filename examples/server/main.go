// Command server is the relay: one device publishes its text, token by token,
// and any number of people watch it live on a web page.
//
//	server               serve, as the environment says
//	server -demo         serve without any environment, with a built-in device
//	server check         check the environment and print it
//	server health        ask the server at HOST and PORT whether it takes connections
//	server token         make a token for a device
//	server secret        make a secret for JWT_SECRET, or for HISTORY_KEY
//	server doctor        look at a running server from outside, as its visitors do
//	server export        write the history as an archive
//	server import        put an archive in the place of the history
//	server erase         erase messages, or all, from the history
//	server sessions      list the connections that may publish, or end one
//	server families      list the families of refresh tokens, or end one
//	server revoke        revoke the tokens of a device
//	server keys          show how much each secret is needed, or read them again
//	server blocks        list the networks that are blocked by hand
//	server block         block a network and end its connections
//	server unblock       end a block, and forgive failures
//	server audit         print the newest security events, or those that come
//	server reports       show what browsers reported against the page's policy
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
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // a bad environment, or the server could not go on
	exitUsage  = 2

	// exitUnreachable is the doctor's, apart from exitFailed so that a CI job
	// can tell a bad deployment from a missing one.
	exitUnreachable = 3
)

func main() {
	if os.Getenv("GOGC") == "" {
		// A viewer that watches costs memory and no garbage: collecting four
		// times as often as usual costs nothing that can be measured while it
		// watches, and saves a third of the memory that it takes.
		debug.SetGCPercent(25)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments.
func run(ctx context.Context, args []string, env envcheck.Lookup, stdout, stderr io.Writer) int {
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
