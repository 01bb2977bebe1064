//go:build unix

// Command load sends messages to many viewers of a relay, or of any server that
// broadcasts over WebSocket. It checks that each viewer gets every message,
// once and in order, and measures latency, CPU time and memory.
//
//	export LOAD_TOKEN="$(server token)"
//	load -viewers 1000 -rate 25 -for 10s -server-pid PID
//	load -viewers 10000 -for 10m -slow 1%
//	load -storm -viewers 5000
//	load -idle -viewers 10000 -server-pid PID
//	load -restart -viewers 10000 -server-pid PID
//	load -url ws://127.0.0.1:3000/ws -url ws://127.0.0.1:3001/ws
//
// With -slow, some viewers never read, or read a byte a second. With -storm,
// all viewers reconnect at once, and the time is measured until all have the
// whole history. With -idle, nothing is published, and the memory of a viewer
// is measured, and the CPU time of the server after all have connected. With
// -restart, the server gets a SIGTERM, and each viewer comes back when the
// server said that it may ("retry=SECONDS" in the close frame), as the relay's
// page does. A supervisor must start the server again.
//
// The token is in LOAD_TOKEN. With -token instead, every user of the machine
// can read it in the list of processes. Four viewers share one address of the
// loopback network, so that the server's limit for one client admits them.
//
// If load and the server share a machine, give each a core of its own.
// Otherwise each of them slows the other down:
//
//	taskset -c 0 env GOMAXPROCS=1 server &
//	taskset -c 1 env GOMAXPROCS=1 load -server-pid $! …
//
// # Several servers
//
// With several -url, the viewers are spread over them in turn, and the
// publisher uses the first one. A viewer that the server drops waits as the
// page does, for half a second to a second, and at most twice as long after
// each failure. Then it connects to the next URL, from its position on. So the
// servers must share their history. Such a viewer is no failure, unless it
// misses a message or gets one twice. It counts in reconnects, and what it
// waited in the latency. In a storm, and if nothing is published, viewers do
// not change the server.
//
// Give -server-pid for each -url, in the same order.
//
// # Transports
//
// With -unix PATH, load connects to a relay with HOST=unix:PATH, as a proxy on
// the same machine does. A server that ends TLS itself is measured with a
// wss:// URL and -ca FILE. With -events, the viewers read server-sent events, and not
// WebSockets.
//
// # Other servers
//
// Load recognises a message by its text (package examples/internal/mark), in
// whatever form the server sends it. For a server that publishes by itself, use
// -publish=false and -start URL. When all viewers are connected, load sends a
// POST to that URL with the parameters run, first, count, rate and size. The
// server answers {"published":N,"seconds":S} when it has published. Without
// -start, load does not ask the server to publish, and counts the messages with
// the name in -run. With -hello, each viewer sends a message after it has
// connected.
//
// # Output
//
// Load prints a table, or with -json one object. Times are in the unit in the
// name of the field, memory is in bytes. Without -server-pid, the fields of the
// server are 0. The fields from expected to complete_ms leave out the slow
// viewers.
//
//	mode                  fanout, storm, idle or restart
//	run                   the name of the run in its messages
//	viewers               the number of viewers asked for
//	connected             the number of viewers that connected
//	refused               connections that failed, by status or cause
//	slow                  viewers that do not keep up on purpose
//	slow_dropped          those that the server dropped, by close code
//	published             messages that the server stored
//	expected              published × the viewers that should get them
//	deliveries            messages that arrived
//	frames                WebSocket frames that they arrived in
//	bytes                 their payload and frame headers, as sent: with
//	                      -deflate, compressed
//	loss                  deliveries that did not arrive
//	duplicates            deliveries that arrived again
//	out_of_order          deliveries that arrived after a later message
//	malformed             messages of this run that arrived damaged
//	dropped               viewers that the server dropped, by close code;
//	                      1006 without a close frame
//	reconnects            how often a viewer went on at the next URL, by the
//	                      close code of the connection before
//	latency_ms            p50, p99 and max from the publisher's write to the
//	                      viewer's read (fanout)
//	complete_ms           p50, p99 and max from the start of the storm until a
//	                      viewer had the whole history (storm), or from the
//	                      SIGTERM until it was back (restart)
//	peak_returns          the most viewers that came back in a second (restart)
//	untold                viewers that were not told when (restart)
//	rate                  messages a second, as asked for
//	rate_held             messages a second, as published
//	throughput            deliveries a second
//	seconds               the length of the measured time
//	server_cpu_seconds    the server's CPU time in the measured time
//	cpu_us_per_delivery   the same, for each delivery
//	server_rss_start      the server's memory before the viewers connect
//	server_rss_max        the most memory of the server
//	server_rss_end        the server's memory at the end
//	server_rss_per_viewer the server's memory for each viewer (idle)
//	load_cpu_seconds      the CPU time of load itself
//	servers               for each -url: url, the viewers that connected to it
//	                      at first, those at_end, and of its own deliveries,
//	                      latency_ms, server_cpu_seconds, cpu_us_per_delivery
//	failures, notes       sentences
//
// The exit code is 1 if there are failures: a viewer that reads was refused or
// dropped, or a message was lost, damaged, or arrived twice or out of order. It
// is 2 if a flag is wrong.
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

// config holds the values of the flags.
type config struct {
	urls                   []string
	ca, unix               string
	token, run, start      string
	publish, remote        bool
	viewers, size, history int
	rate, ramp             float64
	duration, wait         time.Duration
	sources                int
	slow                   string
	slowKinds              []kind
	storm, idle, restart   bool
	deflate, events        bool
	serverPIDs             []int
	hello                  []string
	json, quiet            bool
}

// viewersPerSource is below half of the relay's usual limit for one client,
// because in a storm the server counts an old connection until it notices that
// the connection has ended.
const viewersPerSource = 4

// maxSources keeps all addresses within 127.0.0.0/8.
const maxSources = 1 << 20

const usualURL = "ws://127.0.0.1:3000/ws"

// parse reads and checks the flags. token is the value of LOAD_TOKEN.
func parse(args []string, token string, stderr io.Writer) (config, []target, error) {
	var c config
	var kinds string
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Func("url", "the server's WebSocket endpoint (default "+usualURL+"); may be repeated, for servers that share their history", func(s string) error {
		c.urls = append(c.urls, s)
		return nil
	})
	f.StringVar(&c.ca, "ca", "", "the `file` with the authority (PEM) of a server that ends TLS itself, for a wss:// URL")
	f.StringVar(&c.unix, "unix", "", "the `path` of a Unix socket to connect to in place of the host of -url; load then sends the addresses of -sources as a proxy does")
	f.StringVar(&c.token, "token", "", "the publisher's token; LOAD_TOKEN is safer, because a list of processes does not show it")
	f.IntVar(&c.viewers, "viewers", 1000, "the number of viewers")
	f.Float64Var(&c.rate, "rate", 25, "messages a second")
	f.IntVar(&c.size, "size", 200, "bytes of text in a message")
	f.DurationVar(&c.duration, "for", 10*time.Second, "how long to publish, or to stay idle")
	f.Float64Var(&c.ramp, "ramp", 500, "viewers that connect per second")
	f.IntVar(&c.sources, "sources", -1, "the number of loopback addresses of the viewers; -1 means one for four viewers, 0 leaves the address to the system")
	f.StringVar(&c.slow, "slow", "0", "the number of viewers that do not keep up, or a share such as 1%")
	f.StringVar(&kinds, "slow-kind", "stall,drip", "what the slow viewers do, in turn: stall never reads, drip reads a byte a second")
	f.BoolVar(&c.storm, "storm", false, "fill the history, and let all viewers reconnect at once")
	f.IntVar(&c.history, "history", 1000, "the number of messages in the history of a storm")
	f.BoolVar(&c.deflate, "deflate", false, "let the viewers offer compression (permessage-deflate)")
	f.BoolVar(&c.events, "events", false, "let the viewers read server-sent events, from /events beside the WebSocket")
	f.BoolVar(&c.idle, "idle", false, "publish nothing, and measure the memory of a viewer")
	f.BoolVar(&c.restart, "restart", false, "send SIGTERM to -server-pid, and let all viewers come back when it said; something else must start the server again")
	f.Func("server-pid", "the id of the server's process, to measure its CPU time and memory; may be repeated, once for each -url", func(s string) error {
		pid, err := strconv.Atoi(s)
		if err != nil || pid < 1 {
			return errors.New("a process id is a number above 0")
		}
		c.serverPIDs = append(c.serverPIDs, pid)
		return nil
	})
	f.DurationVar(&c.wait, "wait", 10*time.Second, "how long to wait for missing messages, or for the answers to -hello")
	f.BoolVar(&c.publish, "publish", true, "publish messages; false if the server publishes by itself")
	f.StringVar(&c.start, "start", "", "with -publish=false: the URL to POST to when the server should publish")
	f.StringVar(&c.run, "run", "", "the name of the run in its messages (default a new name)")
	f.Func("hello", "a text message that each viewer sends after it has connected; may be repeated", func(s string) error {
		c.hello = append(c.hello, s)
		return nil
	})
	f.BoolVar(&c.remote, "remote", false, "allow a server on another machine, which must be your own")
	f.BoolVar(&c.json, "json", false, "print JSON")
	f.BoolVar(&c.quiet, "quiet", false, "show no progress, and print only failures")
	if err := f.Parse(args); err != nil {
		return c, nil, errFlags{err}
	}
	if c.token == "" {
		c.token = token
	}
	if len(c.urls) == 0 {
		c.urls = []string{usualURL}
	}
	var to []target
	var errs []error
	for _, u := range c.urls {
		t, err := parseTarget(u, c.ca, c.remote)
		t.socket = c.unix
		to, errs = append(to, t), append(errs, err)
	}
	return c, to, errors.Join(errors.Join(errs...), c.complete(kinds, f.Args()))
}

// errFlags is an error that package flag has already printed.
type errFlags struct{ error }

func (e errFlags) Unwrap() error { return e.error }

// complete reports every problem of the flags, joined, and sets the fields that
// follow from them. rest are the arguments after the flags.
func (c *config) complete(kinds string, rest []string) error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(len(rest) > 0, "unexpected %q: use flags only", rest)
	wrong(c.viewers < 1, "-viewers must be at least 1")
	const most = 1e6
	wrong(!(c.rate > 0 && c.rate <= most), "-rate must be above 0, and at most %g", most)
	wrong(!(c.ramp > 0 && c.ramp <= most), "-ramp must be above 0, and at most %g", most)
	wrong(c.size < 0 || c.size > 60<<10, "-size must be 0 to %d bytes", 60<<10)
	wrong(c.duration <= 0 || c.wait <= 0, "-for and -wait must be above 0")
	wrong(c.history < 1, "-history must be at least 1")
	wrong(c.storm && c.idle || c.storm && c.restart || c.idle && c.restart, "-storm, -idle and -restart exclude each other")
	wrong(c.events && (c.deflate || len(c.hello) > 0), "-events excludes -deflate and -hello")
	wrong(c.restart && len(c.serverPIDs) != 1, "-restart needs -server-pid, and one server")
	wrong(c.restart && c.slowCount() > 0, "-restart and -slow exclude each other")
	wrong(c.sources < -1 || c.sources > maxSources, "-sources must be -1 to %d", maxSources)
	if n := len(c.serverPIDs); n > 0 {
		wrong(n != len(c.urls), "%d -server-pid for %d -url: give one for each, in the same order, or none", n, len(c.urls))
	}
	if _, err := share(c.slow, max(1, c.viewers)); err != nil {
		errs = append(errs, err)
	}
	wrong(c.slowCount() > 0 && c.slowCount() == c.viewers, "-slow leaves no viewer that reads")
	wrong(c.slowCount() > 0 && c.storm, "-slow and -storm exclude each other")
	for k := range strings.SplitSeq(kinds, ",") {
		switch strings.TrimSpace(k) {
		case "stall":
			c.slowKinds = append(c.slowKinds, stalls)
		case "drip":
			c.slowKinds = append(c.slowKinds, drips)
		default:
			wrong(true, "-slow-kind must be stall or drip, not %q", k)
		}
	}
	if c.sources == -1 {
		c.sources = (c.viewers + viewersPerSource - 1) / viewersPerSource
		if c.remote {
			c.sources = 0
		}
	}
	switch {
	case c.idle || c.restart:
		c.publish = false
	case c.publish:
		wrong(c.start != "", "-start is for a server that publishes by itself: add -publish=false")
		wrong(c.token == "", "publishing needs a token: put the output of `server token` into LOAD_TOKEN, or use -publish=false if the server publishes by itself")
	case c.start == "":
		wrong(c.run == "", "-publish=false without -start needs -run, the name in the messages to count")
		wrong(c.storm, "-storm with -publish=false needs -start, to fill the history")
	}
	if c.run == "" {
		c.run = mark.NewRun()
	}
	errs = append(errs, mark.CheckRun(c.run), checkFiles(c.viewers))
	return errors.Join(errs...)
}

// mode returns which of the measurements the flags ask for.
func (c *config) mode() string {
	switch {
	case c.storm:
		return modeStorm
	case c.idle:
		return modeIdle
	case c.restart:
		return modeRestart
	}
	return modeFanout
}

// unknownCount reports whether load cannot know how many messages are
// published.
func (c *config) unknownCount() bool { return c.mode() == modeFanout && !c.publish && c.start == "" }

// slowCount returns the number of viewers that do not keep up.
func (c *config) slowCount() int {
	n, _ := share(c.slow, c.viewers) // complete has checked it
	return n
}

// share returns the number in s, or for a share such as 1% that part of all. A
// share above 0 is at least one.
func share(s string, all int) (int, error) {
	bad := fmt.Errorf("-slow must be a number of viewers, at most all, or a share such as 1%%, not %q", s)
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

// run is main, with arguments instead of global variables. It returns the exit
// code. It guards both outputs against text that controls a terminal.
func run(ctx context.Context, args []string, token string, stdout, stderr io.Writer) int {
	stdout, stderr = terminal.Guard(stdout), terminal.Guard(stderr)
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
