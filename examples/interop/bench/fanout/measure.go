package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/internal/selfsigned"
)

// contestants are the servers to compare. The ratios are to the first one that
// takes part; bare does the least work. The relay takes part on TCP, on a Unix
// socket, and over TLS that it ends itself. parked and reading are the relay's
// transport without the relay, with its viewers parked and with a goroutine for
// each; over TLS, viewers are read so. compressed is the relay with viewers that
// accept compression, and events with viewers that read server-sent events.
var contestants = []string{"bare", "relay", "compressed", relayUnix, relayTLS, "events", "parked", "reading", "gws", "gorilla", "centrifuge", "melody"}

const relayUnix, relayTLS = "relay-unix", "relay-tls"

// onEngine are the contestants that share their state by Redis. They take part
// only if asked.
var onEngine = []string{"node", "nodes"}

// isRelay reports whether the contestant is the relay, in one of its forms.
func isRelay(name string) bool {
	return strings.HasPrefix(name, "relay") || name == "compressed" || name == "events" || slices.Contains(onEngine, name)
}

// measurement is one of the measurements.
type measurement struct {
	name, unit                            string
	viewersFull, viewersQuick, roundsFull int
	run                                   func(context.Context, *bench, string, *options, func(string)) (value, p99 float64, err error)
}

var measurements = map[string]measurement{
	"cpu":   {unit: "µs/delivery", viewersFull: 1000, viewersQuick: 200, roundsFull: 5, run: cpu},
	"most":  {unit: "viewers", viewersFull: 500, viewersQuick: 500, roundsFull: 3, run: most},
	"idle":  {unit: "KB/viewer", viewersFull: 10_000, viewersQuick: 1000, roundsFull: 5, run: idle},
	"quiet": {unit: "µs/viewer/s", viewersFull: 10_000, viewersQuick: 1000, roundsFull: 5, run: quiet},
	"first": {unit: "KB/viewer", viewersFull: 1000, viewersQuick: 200, roundsFull: 5, run: first},
	"storm": {unit: "ms", viewersFull: 5000, viewersQuick: 500, roundsFull: 5, run: storm},
}

// loaded holds the fields of the load generator's report that are used here.
type loaded struct {
	Deliveries     int64
	Bytes          int64
	Connected      int
	Latency        struct{ P99 float64 }      `json:"latency_ms"`
	Complete       struct{ P99, Max float64 } `json:"complete_ms"`
	Rate           float64
	RateHeld       float64 `json:"rate_held"`
	CPUPerDelivery float64 `json:"cpu_us_per_delivery"`
	RSSPerViewer   float64 `json:"server_rss_per_viewer"`
	ServerCPU      float64 `json:"server_cpu_seconds"`
	Seconds        float64
	Failures       []string
}

// whole returns an error if the report has failures.
func (l *loaded) whole() error {
	if len(l.Failures) > 0 {
		return errors.New(strings.Join(l.Failures, "; "))
	}
	return nil
}

// publishing returns the flags of a run that publishes.
func (o *options) publishing(viewers int) []string {
	return []string{
		"-viewers", strconv.Itoa(viewers), "-rate", fmt.Sprint(o.rate), "-size", strconv.Itoa(o.size), "-for", o.duration.String(),
	}
}

func cpu(ctx context.Context, b *bench, name string, o *options, _ func(string)) (float64, float64, error) {
	l, err := b.load(ctx, name, o.publishing(o.viewers)...)
	if err != nil {
		return 0, 0, err
	}
	return l.CPUPerDelivery, l.Latency.P99, l.whole()
}

func idle(ctx context.Context, b *bench, name string, o *options, _ func(string)) (float64, float64, error) {
	l, err := b.load(ctx, name, "-idle", "-viewers", strconv.Itoa(o.viewers), "-for", o.duration.String())
	if err != nil {
		return 0, 0, err
	}
	return l.RSSPerViewer / 1024, 0, l.whole()
}

// quiet needs a -for of several times the interval between pings, and counts
// from the time at which all are connected.
func quiet(ctx context.Context, b *bench, name string, o *options, _ func(string)) (float64, float64, error) {
	l, err := b.load(ctx, name, "-idle", "-viewers", strconv.Itoa(o.viewers), "-for", o.duration.String())
	if err != nil {
		return 0, 0, err
	}
	return l.ServerCPU * 1e6 / float64(l.Connected) / l.Seconds, 0, l.whole()
}

func storm(ctx context.Context, b *bench, name string, o *options, _ func(string)) (float64, float64, error) {
	l, err := b.load(ctx, name, "-storm", "-viewers", strconv.Itoa(o.viewers), "-size", strconv.Itoa(o.size), "-wait", "60s")
	if err != nil {
		return 0, 0, err
	}
	return l.Complete.Max, 0, l.whole()
}

// first is a storm in which the bytes count. Its p99 is that of the time until
// a viewer has the history.
func first(ctx context.Context, b *bench, name string, o *options, _ func(string)) (float64, float64, error) {
	l, err := b.load(ctx, name, "-storm", "-viewers", strconv.Itoa(o.viewers), "-size", strconv.Itoa(o.size), "-wait", "60s")
	if err != nil {
		return 0, 0, err
	}
	return float64(l.Bytes) / 1024 / float64(max(1, l.Connected)), l.Complete.P99, l.whole()
}

const (
	maxLatency = 250 // ms, that p99 must stay below
	closeness  = 1.1 // most stops when the ratio of its two bounds is at most this

	// If the publisher is behind by this, the machine is overloaded, even if
	// the viewers get all messages in time.
	leastHeld = 0.95
)

// most finds the largest number of viewers that the server can serve. It
// doubles the number until there are too many, and then bisects.
func most(ctx context.Context, b *bench, name string, o *options, show func(string)) (float64, float64, error) {
	good, bad := 0, 0
	p99 := 0.0
	for n := o.viewers; bad == 0 || float64(bad) > closeness*float64(good); {
		show(fmt.Sprintf(", %d viewers", n))
		l, well, err := b.holds(ctx, name, o, n)
		if err != nil {
			return 0, 0, err
		}
		if well {
			good, p99 = n, l.Latency.P99
		} else {
			bad = n
		}
		switch {
		case n == b.limit && bad == 0:
			return float64(good), p99, fmt.Errorf("%d viewers are not too many, and the limit of open files allows no more: raise `ulimit -n`", good)
		case bad == 0:
			n = min(2*n, b.limit)
		case good == 0 && bad < 20:
			return 0, 0, fmt.Errorf("even %d viewers are too many: %s", bad, strings.Join(l.Failures, "; "))
		default:
			n = (good + bad) / 2
		}
	}
	return float64(good), p99, nil
}

// tries is how often a number of viewers is tried at most. Other load on the
// machine can only make a try fail, so one success is enough.
const tries = 3

func (b *bench) holds(ctx context.Context, name string, o *options, viewers int) (l *loaded, well bool, err error) {
	for range tries {
		if l, err = b.load(ctx, name, o.publishing(viewers)...); err != nil {
			return l, false, err
		}
		if l.whole() == nil && l.Latency.P99 < maxLatency && l.RateHeld >= leastHeld*l.Rate {
			return l, true, nil
		}
	}
	return l, false, nil
}

// bench holds the built programs.
type bench struct {
	dir    string
	secret string
	limit  int // viewers that the limit of open files allows

	cert, key string // files of a certificate for 127.0.0.1

	share      float64 // of a core, for each server
	profiles   string  // a directory, or empty
	profileFor time.Duration
}

func build(ctx context.Context) (*bench, error) {
	dir, err := os.MkdirTemp("", "fanout-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, secret: rand.Text() + rand.Text()}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
		b.limit = int(min(files.Max, 1<<20)) - 100
	}
	b.cert, b.key, err = selfsigned.Write(dir)
	if err != nil {
		b.close()
		return nil, err
	}
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/relayguard/relayguard")
	if err == nil {
		_, err = output(ctx, "go", "-C", root, "build", "-o", dir+"/", "./examples/server", "./examples/load")
	}
	if err == nil {
		_, err = output(ctx, "go", "build", "-o", dir+"/", "github.com/relayguard/relayguard/examples/interop/bench/peers")
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &errs)
	}
	return strings.TrimSpace(out.String()), nil
}

func (b *bench) close() { os.RemoveAll(b.dir) }

// load starts a new server of that name, or two, on one core, and runs the load
// generator on the other.
func (b *bench) load(ctx context.Context, name string, args ...string) (*loaded, error) {
	env := append(os.Environ(), "GOMAXPROCS=1", "JWT_SECRET="+b.secret, "ALLOWED_DEVICE_ID=bench", "OPERATOR_ADDR=",
		"UPGRADES_PER_SECOND=0", "MAX_CONNECTIONS=10000000") // the machine is the limit
	count := 1
	if slices.Contains(onEngine, name) {
		engine, err := b.engine(ctx)
		if err != nil {
			return nil, err
		}
		defer engine.stop()
		env = append(env, "REDIS_URL=redis://"+engine.addr)
		if name == "nodes" {
			count = 2
		}
	}
	profile := func() error { return nil }
	if b.profiles != "" && isRelay(name) && count == 1 {
		operator := filepath.Join(b.dir, "operator.sock")
		env = append(env, "OPERATOR_ADDR=unix:"+operator)
		profile = func() error { return b.profile(ctx, operator, name) }
	}
	flags := []string{"-c", loadCore, filepath.Join(b.dir, "load"), "-json"}
	scheme := "ws"
	switch name {
	case relayUnix:
		env, flags = append(env, "HOST=unix:"+b.socket()), append(flags, "-unix", b.socket())
	case relayTLS:
		scheme = "wss"
		env, flags = append(env, "TLS_CERT_FILE="+b.cert, "TLS_KEY_FILE="+b.key), append(flags, "-ca", b.cert)
	}
	for i := range count {
		s, err := b.server(ctx, name, env)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		flags = append(flags, "-url", scheme+"://"+s.addr+"/ws", "-server-pid", strconv.Itoa(s.pid))
		if !isRelay(name) && i == 0 {
			flags = append(flags, "-publish=false", "-start", "http://"+s.addr+"/start")
		}
	}
	switch name {
	case "compressed":
		flags = append(flags, "-deflate")
	case "events":
		flags = append(flags, "-events")
	}
	if name == "centrifuge" {
		flags = append(flags, "-hello", `{"id":1,"connect":{"subs":{"stream":{"recover":true}}}}`)
	}
	load := exec.CommandContext(ctx, "taskset", append(flags, args...)...)
	load.Cancel = func() error { return load.Process.Signal(syscall.SIGTERM) }
	load.Env = env
	if isRelay(name) {
		token := exec.CommandContext(ctx, filepath.Join(b.dir, "server"), "token")
		token.Env = env
		out, err := token.Output()
		if err != nil {
			return nil, fmt.Errorf("making a token: %w", err)
		}
		load.Env = append(env, "LOAD_TOKEN="+strings.TrimSpace(string(out)))
	}
	var out, errs bytes.Buffer
	load.Stdout, load.Stderr = &out, &errs
	profiled := make(chan error, 1)
	go func() { profiled <- profile() }()
	err := load.Run()
	if perr := <-profiled; perr != nil {
		return nil, fmt.Errorf("%s: the profile: %w", name, perr)
	}
	var l loaded
	if jerr := json.Unmarshal(out.Bytes(), &l); jerr != nil { // the report has the failures too
		return nil, fmt.Errorf("%s: load: %w\n%s", name, errors.Join(err, jerr), &errs)
	}
	return &l, nil
}
