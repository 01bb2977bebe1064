// Command server is the relay: one device publishes its text, token by token, and
// any number of people watch it live on a web page.
//
//	server               serve, as the environment says
//	server -demo         serve without any environment, with a built-in device
//	server check         check the environment and print it
//	server health        ask the server at HOST and PORT whether it takes connections
//	server token         make a token for a device
//	server secret        make a secret for JWT_SECRET, or for HISTORY_KEY
//	server sessions      the connections that may publish, and the end of one
//	server families      the lines of refresh tokens, and the end of one
//	server revoke        make the tokens of a device worthless
//	server keys          how much each secret is needed, and reading them again
//	server blocks        the networks that are blocked by hand
//	server block         block a network and end its connections
//	server unblock       end a block, and forgive failures
//	server audit         the newest events of the audit, or those that come
//	server export        the history as an archive
//	server import        an archive in the place of the history
//	server erase         one message, or all, out of the history
//	server doctor URL    look at a running server from outside, as its visitors do
//	server reports       what browsers reported against the page's policy
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/relayguard/relayguard/examples/server/tracker"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // a bad environment, or the server could not go on
	exitUsage  = 2
)

const usage = `usage: server [-demo | -check]
       server check
       server health
       server token [-device ID] [-role ROLE] [-scope PERMISSIONS] [-ttl DURATION | -pair] [-o FILE]
       server secret
       server doctor [-json] [-token-file FILE] [-skip-rate-limit] URL

of the running server, or of HISTORY_DIR where none runs:
       server export [-o FILE [-force]] [-recipient AGE1… | -passphrase | -passphrase-file FILE]
       server import FILE [-json] [-identity FILE | -passphrase-file FILE]
       server erase [-json] -all | SEQ…

of a running server:
       server sessions [-json] [-end ID]
       server families [-json] [-end ID]
       server revoke [-json] [-before TIME] DEVICE
       server keys [-json] [-reload]
       server blocks [-json]
       server block [-json] [-for DURATION | -forever] [-force] PREFIX
       server unblock [-json] PREFIX
       server audit [-json] [-n COUNT] [-f]
       server reports [-json]

Without a verb, serves as the environment says; see .env.example.
`

func main() {
	if os.Getenv("GOGC") == "" {
		// A viewer who watches costs memory and no garbage: collecting four times as often
		// as usual costs nothing that can be measured while they watch, and saves a third of
		// what they take.
		debug.SetGCPercent(25)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments.
func run(ctx context.Context, args []string, env lookup, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	demo := flags.Bool("demo", false, "make a secret, start a built-in device and serve its stream")
	check := flags.Bool("check", false, "check the environment, print it and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	verb := flags.Arg(0)
	if *check && verb == "" {
		verb = "check"
	}
	if verb == "" {
		return serveVerb(ctx, *demo, env, stdout, stderr)
	}
	rest := flags.Args()
	if len(rest) > 0 {
		rest = rest[1:]
	}
	switch verb {
	case "check":
		return checkVerb(env, stdout)
	case "health":
		return healthVerb(ctx, rest, env, stdout, stderr)
	case "token":
		return tokenVerb(ctx, rest, env, stdout, stderr)
	case "export":
		return exportVerb(ctx, rest, env, stdout, stderr)
	case "import":
		return importVerb(ctx, rest, env, stdout, stderr)
	case "erase":
		return eraseVerb(ctx, rest, env, stdout, stderr)
	case "doctor":
		return doctorVerb(ctx, rest, stdout, stderr)
	case "secret":
		fmt.Fprintln(stdout, newSecret())
		return exitOK
	}
	for _, v := range operatorVerbs() {
		if v.name == verb {
			return v.run(ctx, rest, env, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "server: unknown verb %q\n%s", verb, usage)
	return exitUsage
}

func serveVerb(ctx context.Context, demo bool, env lookup, stdout, stderr io.Writer) int {
	if demo {
		env = demoEnvironment(env)
	}
	cfg, err := loadConfig(env)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	errs, err := tracker.New(cfg.tracker())
	if err != nil {
		fmt.Fprintln(stderr, "server: errors cannot be sent (SENTRY_DSN):", errs.Clean(err.Error()))
		return exitFailed
	}
	defer errs.Close()
	log := slog.New(errs.Handler(cfg.logger(stderr).Handler()))
	for _, n := range cfg.spec().NearMisses(env) {
		log.Warn("a variable that is set is not one of this server's", "name", n.Set, "meant", n.Like)
	}
	if err := serve(ctx, cfg, env, log, errs, demo, stdout); err != nil {
		errs.Send("the server has ended", map[string]string{"error": err.Error()})
		fmt.Fprintln(stderr, "server:", err)
		return exitFailed
	}
	return exitOK
}

// quiet has the kernel send no keep-alives: WebSocket pings and net/http's timeouts
// find peers that are gone sooner, and through proxies too.
var quiet = net.ListenConfig{KeepAlive: -1}

func serve(ctx context.Context, cfg config, env lookup, log *slog.Logger, errs *tracker.Tracker, demo bool, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := newServer(cfg, env, log)
	if err != nil {
		return err
	}
	s.auth.reloaded = func(c config) { errs.Protect(c.secrets()...) }
	defer s.history.Close() // as orderly where it does not come to serving
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	go func() {
		for {
			select {
			case <-hangups:
				_ = s.reload(env) // logged
			case <-ctx.Done():
				return
			}
		}
	}()
	ln, err := quiet.Listen(ctx, "tcp", cfg.addr())
	if err != nil {
		return fmt.Errorf("%w (PORT and HOST choose another address)", err)
	}
	var operator net.Listener
	if cfg.operatorAddr != "" {
		if operator, err = quiet.Listen(ctx, "tcp", cfg.operatorAddr); err != nil {
			ln.Close()
			return fmt.Errorf("%w (OPERATOR_ADDR chooses another address; empty is none)", err)
		}
		log.Info("operator listening", "addr", operator.Addr().String())
	}
	stopRedirect, err := s.listenRedirect(cfg, ln.Addr())
	if err != nil {
		ln.Close()
		if operator != nil {
			operator.Close()
		}
		return fmt.Errorf("%w (HTTP_REDIRECT_ADDR chooses another address; empty is none)", err)
	}
	defer stopRedirect()
	log.Info("listening", "addr", ln.Addr().String(), "production", cfg.production)
	if demo {
		stop, err := startDemo(ctx, cfg, ln.Addr(), log, stdout)
		if err != nil {
			return errors.Join(err, ln.Close())
		}
		defer func() {
			cancel()
			stop()
		}()
	}
	return s.serve(ctx, ln, operator)
}
