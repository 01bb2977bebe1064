//go:build unix

// Command load drives a relay, or any server that broadcasts over WebSocket, with many viewers, and checks that each of
// them got every message, once and in order.
//
//	load -token "$(server token)" -viewers 1000 -rate 25 -for 10s -server-pid PID
//	load -viewers 10000 -for 10m -slow 1%        1 % never read, or read a byte a second
//	load -storm -viewers 5000                    all reconnect at once: time until all have the whole history
//	load -idle -viewers 10000 -server-pid PID    memory of an idle viewer
//
// The token stands in LOAD_TOKEN or -token. The viewers come from addresses of the loopback network, four from each,
// so that the server's limit for one client lets them in.
//
// Where load and server share a machine, give each a core of its own, or they measure each other:
//
//	taskset -c 0 env GOMAXPROCS=1 server &
//	taskset -c 1 env GOMAXPROCS=1 load -server-pid $! …
//
// # Other servers
//
// A message is recognised by its text (package examples/internal/mark), whatever the server puts around it. A server
// that publishes by itself is driven with -publish=false and -start URL: when all viewers are connected the URL is sent
// a POST with the parameters run, first, count, rate and size, and answers {"published":N,"seconds":S} when it is done.
// Without -start it publishes unasked, under the name in -run. What a viewer must say first stands in -hello.
//
// # Output
//
// A table, or with -json one object:
//
//	mode, run, url       fanout, storm or idle; the run's name in its messages; the server
//	viewers, connected   asked for, and had
//	refused              connections not made, counted by status or cause
//	slow, slow_dropped   viewers that do not keep up on purpose; those that the server dropped, by close code
//	published            messages that the server stored
//	expected             published × viewers that were to get them; without the slow ones, as all that follows
//	deliveries, frames   messages that arrived, in so many WebSocket frames
//	bytes                payload and frame headers
//	loss, duplicates, out_of_order, malformed
//	dropped              viewers that the server dropped, by close code; 1006: without one
//	latency_ms           p50, p99, max from the publisher's write to the viewer's read (fanout)
//	complete_ms          p50, p99, max from the storm's begin until a viewer had the whole history (storm)
//	rate, rate_held      messages a second, wanted and sent
//	throughput, seconds  deliveries a second, over the time that was measured
//	server_cpu_seconds, cpu_us_per_delivery             with -server-pid, over the same time
//	server_rss_start, server_rss_max, server_rss_end    bytes, with -server-pid: before the viewers, most, last
//	server_rss_per_viewer                               bytes (idle)
//	load_cpu_seconds     what the load generator itself used
//	failures, notes      in words
//
// The exit code is 1 if there are failures: a viewer that reads was refused or dropped, or lost something or got it
// twice or out of order.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/examples/internal/mark"
	"github.com/relayguard/relayguard/examples/internal/terminal"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Getenv("LOAD_TOKEN"), os.Stdout, os.Stderr))
}

// config is what the flags say.
type config struct {
	url, token, run, start string
	publish, remote        bool
	viewers, size, history int
	rate, ramp             float64
	duration, wait         time.Duration
	sources                int
	slow                   string
	slowKinds              []kind
	storm, idle            bool
	serverPID              int
	hello                  []string
	json, quiet            bool
}

// viewersPerSource is below half of the relay's usual limit for one client, since in a storm the old connections count
// until the server has noticed their end.
const viewersPerSource = 4

// maxSources keeps within 127.0.0.0/8.
const maxSources = 1 << 20

func parse(args []string, token string, stderr io.Writer) (config, target, error) {
	var c config
	var kinds string
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.url, "url", "ws://127.0.0.1:3000/ws", "the server's endpoint")
	f.StringVar(&c.token, "token", "", "the publisher's token; better in LOAD_TOKEN, which a list of processes does not show")
	f.IntVar(&c.viewers, "viewers", 1000, "how many watch")
	f.Float64Var(&c.rate, "rate", 25, "messages a second")
	f.IntVar(&c.size, "size", 200, "bytes of a message's text")
	f.DurationVar(&c.duration, "for", 10*time.Second, "how long to publish, or to stay idle")
	f.Float64Var(&c.ramp, "ramp", 500, "viewers that connect in a second")
	f.IntVar(&c.sources, "sources", -1, "loopback addresses that the viewers come from; -1: one for four viewers, 0: the system chooses")
	f.StringVar(&c.slow, "slow", "0", "how many viewers do not keep up: a number, or a share such as 1%")
	f.StringVar(&kinds, "slow-kind", "stall,drip", "what those do, in turn: stall never reads, drip reads a byte a second")
	f.BoolVar(&c.storm, "storm", false, "fill the history and let all viewers reconnect at once")
	f.IntVar(&c.history, "history", 1000, "messages of history in a storm")
	f.BoolVar(&c.idle, "idle", false, "publish nothing and measure the memory of a viewer")
	f.IntVar(&c.serverPID, "server-pid", 0, "the server's process, whose CPU and memory are measured")
	f.DurationVar(&c.wait, "wait", 10*time.Second, "how long to wait for what is missing at the end")
	f.BoolVar(&c.publish, "publish", true, "publish; false where the server does so by itself")
	f.StringVar(&c.start, "start", "", "with -publish=false: what to POST to when the server shall begin")
	f.StringVar(&c.run, "run", "", "the run's name in its messages (default a new one)")
	f.Func("hello", "what each viewer sends when it is connected, as a text message; may be repeated", func(s string) error {
		c.hello = append(c.hello, s)
		return nil
	})
	f.BoolVar(&c.remote, "remote", false, "the server is mine, though not on this machine")
	f.BoolVar(&c.json, "json", false, "print JSON")
	f.BoolVar(&c.quiet, "quiet", false, "show no progress, and print only failures")
	if err := f.Parse(args); err != nil {
		return c, target{}, errFlags{err}
	}
	if c.token == "" {
		c.token = token
	}
	to, err := parseTarget(c.url, c.remote)
	return c, to, errors.Join(err, c.complete(kinds, f.Args()))
}

// errFlags was told already, by package flag.
type errFlags struct{ error }

func (e errFlags) Unwrap() error { return e.error }

// complete checks the flags, all at once, and fills in what follows from them.
func (c *config) complete(kinds string, rest []string) error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(len(rest) > 0, "unexpected %q: all is said by flags", rest)
	wrong(c.viewers < 1, "-viewers must be at least 1")
	const most = 1e6
	wrong(!(c.rate > 0 && c.rate <= most), "-rate must be above 0, and at most %g", most)
	wrong(!(c.ramp > 0 && c.ramp <= most), "-ramp must be above 0, and at most %g", most)
	wrong(c.size < 0 || c.size > 60<<10, "-size must be 0 to %d bytes", 60<<10)
	wrong(c.duration <= 0 || c.wait <= 0, "-for and -wait must be above 0")
	wrong(c.history < 1, "-history must be at least 1")
	wrong(c.storm && c.idle, "-storm and -idle exclude each other")
	wrong(c.sources < -1 || c.sources > maxSources, "-sources must be -1 to %d", maxSources)
	if _, err := share(c.slow, max(1, c.viewers)); err != nil {
		errs = append(errs, err)
	}
	wrong(c.slowCount() > 0 && c.slowCount() == c.viewers, "-slow leaves no viewer that reads")
	wrong(c.slowCount() > 0 && c.storm, "-slow has no meaning in a storm")
	for k := range strings.SplitSeq(kinds, ",") {
		switch strings.TrimSpace(k) {
		case "stall":
			c.slowKinds = append(c.slowKinds, stalls)
		case "drip":
			c.slowKinds = append(c.slowKinds, drips)
		default:
			wrong(true, "-slow-kind knows stall and drip, not %q", k)
		}
	}
	if c.sources == -1 {
		c.sources = (c.viewers + viewersPerSource - 1) / viewersPerSource
		if c.remote {
			c.sources = 0
		}
	}
	switch {
	case c.idle:
		c.publish = false
	case c.publish:
		wrong(c.start != "", "-start is for a server that publishes by itself: add -publish=false")
		wrong(c.token == "", "publishing needs a token: put the output of `server token` into LOAD_TOKEN, or say -publish=false where the server publishes by itself")
	case c.start == "":
		wrong(c.run == "", "-publish=false without -start needs the -run whose messages count")
		wrong(c.storm, "-storm with -publish=false needs -start, to fill the history")
	}
	if c.run == "" {
		c.run = mark.NewRun()
	}
	errs = append(errs, mark.CheckRun(c.run), checkFiles(c.viewers))
	return errors.Join(errs...)
}

func (c *config) mode() string {
	switch {
	case c.storm:
		return modeStorm
	case c.idle:
		return modeIdle
	}
	return modeFanout
}

// unknownCount reports that nobody says how much is published.
func (c *config) unknownCount() bool { return !c.publish && c.start == "" && !c.idle }

// slowCount is how many viewers do not keep up.
func (c *config) slowCount() int {
	n, _ := share(c.slow, c.viewers) // complete has checked it
	return n
}

// share is a number, or a share of all such as 1%, which is at least one.
func share(s string, all int) (int, error) {
	bad := fmt.Errorf("-slow must be a number of viewers or a share like 1%%, at most all, not %q", s)
	if p, ok := strings.CutSuffix(s, "%"); ok {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil || !(v >= 0 && v <= 100) {
			return 0, bad
		}
		n := int(v / 100 * float64(all))
		if n == 0 && v > 0 {
			n = 1
		}
		return n, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > all {
		return 0, bad
	}
	return n, nil
}

// run is main with its surroundings as arguments.
func run(ctx context.Context, args []string, token string, stdout, stderr io.Writer) int {
	cfg, to, err := parse(args, token, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &errFlags{}):
		return exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "load: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nload: "))
		return exitUsage
	}
	l := &load{cfg: cfg, to: to}
	if !cfg.quiet && terminal.Is(stderr) {
		l.progress = stderr
	}
	report, err := l.run(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		report.Failures = append([]string{err.Error()}, report.Failures...)
	}
	switch {
	case cfg.json:
		if err := report.writeJSON(stdout); err != nil {
			fmt.Fprintln(stderr, "load:", err)
			return exitFailed
		}
	case !cfg.quiet:
		report.writeText(stdout)
	}
	if len(report.Failures) == 0 {
		return exitOK
	}
	if cfg.json || cfg.quiet {
		fmt.Fprintln(stderr, "load:", strings.Join(report.Failures, "\nload: "))
	}
	return exitFailed
}
