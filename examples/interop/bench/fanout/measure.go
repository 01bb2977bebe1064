package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/examples/internal/selfsigned"
)

// contestants are the servers to compare. The ratios are to the first one that
// takes part; bare does the least work. The relay takes part on TCP, on a Unix
// socket, and over TLS that it ends itself.
var contestants = []string{"bare", "relay", relayUnix, relayTLS, "gws", "gorilla", "centrifuge", "melody"}

const relayUnix, relayTLS = "relay-unix", "relay-tls"

// measurement is one of the four measurements.
type measurement struct {
	name, unit                            string
	viewersFull, viewersQuick, roundsFull int
	run                                   func(context.Context, *bench, string, *options, func(string)) (value, p99 float64, err error)
}

var measurements = map[string]measurement{
	"cpu":   {unit: "µs/delivery", viewersFull: 1000, viewersQuick: 200, roundsFull: 5, run: cpu},
	"most":  {unit: "viewers", viewersFull: 500, viewersQuick: 500, roundsFull: 3, run: most},
	"idle":  {unit: "KB/viewer", viewersFull: 10_000, viewersQuick: 1000, roundsFull: 5, run: idle},
	"storm": {unit: "ms", viewersFull: 5000, viewersQuick: 500, roundsFull: 5, run: storm},
}

// loaded holds the fields of the load generator's report that are used here.
type loaded struct {
	Deliveries     int64
	Latency        struct{ P99 float64 } `json:"latency_ms"`
	Complete       struct{ Max float64 } `json:"complete_ms"`
	Rate           float64
	RateHeld       float64 `json:"rate_held"`
	CPUPerDelivery float64 `json:"cpu_us_per_delivery"`
	RSSPerViewer   float64 `json:"server_rss_per_viewer"`
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

func storm(ctx context.Context, b *bench, name string, o *options, _ func(string)) (float64, float64, error) {
	l, err := b.load(ctx, name, "-storm", "-viewers", strconv.Itoa(o.viewers), "-size", strconv.Itoa(o.size), "-wait", "60s")
	if err != nil {
		return 0, 0, err
	}
	return l.Complete.Max, 0, l.whole()
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

// load starts a new server of that name on one core, and runs the load
// generator on the other.
func (b *bench) load(ctx context.Context, name string, args ...string) (*loaded, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	env := append(os.Environ(), "GOMAXPROCS=1", "JWT_SECRET="+b.secret, "ALLOWED_DEVICE_ID=bench", "PORT="+port, "OPERATOR_ADDR=",
		"UPGRADES_PER_SECOND=0", "MAX_CONNECTIONS=10000000") // the machine is the limit
	program, more := []string{filepath.Join(b.dir, "server")}, []string(nil)
	network, scheme := "tcp", "ws"
	switch name {
	case "relay":
	case relayUnix:
		network, addr = "unix", filepath.Join(b.dir, "relay.sock")
		env, more = append(env, "HOST=unix:"+addr), []string{"-unix", addr}
	case relayTLS:
		scheme = "wss"
		env, more = append(env, "TLS_CERT_FILE="+b.cert, "TLS_KEY_FILE="+b.key), []string{"-ca", b.cert}
	default:
		program = []string{filepath.Join(b.dir, "peers"), "-peer", name, "-listen", addr}
		more = []string{"-publish=false", "-start", "http://" + addr + "/start"}
		if name == "centrifuge" {
			more = append(more, "-hello", `{"id":1,"connect":{"subs":{"stream":{"recover":true}}}}`)
		}
	}
	server := exec.Command("taskset", append([]string{"-c", "0"}, program...)...)
	server.Env = env
	log, err := os.Create(filepath.Join(b.dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	server.Stderr = log
	if err := server.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { _ = server.Wait(); close(ended) }()
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = server.Process.Kill()
			<-ended
		}
	}()
	if err := listening(ctx, network, addr, ended); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(text))
	}

	load := exec.CommandContext(ctx, "taskset", append(append([]string{
		"-c", "1", filepath.Join(b.dir, "load"), "-json", "-url", scheme + "://127.0.0.1:" + port + "/ws",
		"-server-pid", strconv.Itoa(server.Process.Pid),
	}, more...), args...)...)
	load.Cancel = func() error { return load.Process.Signal(syscall.SIGTERM) }
	load.Env = env
	if strings.HasPrefix(name, "relay") {
		token := exec.CommandContext(ctx, program[0], "token")
		token.Env = env
		out, err := token.Output()
		if err != nil {
			return nil, fmt.Errorf("making a token: %w", err)
		}
		load.Env = append(env, "LOAD_TOKEN="+strings.TrimSpace(string(out)))
	}
	var out, errs bytes.Buffer
	load.Stdout, load.Stderr = &out, &errs
	err = load.Run()
	var l loaded
	if jerr := json.Unmarshal(out.Bytes(), &l); jerr != nil { // the report has the failures too
		return nil, fmt.Errorf("%s: load: %w\n%s", name, errors.Join(err, jerr), &errs)
	}
	return &l, nil
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// listening waits until a server listens on addr, or the process has ended.
func listening(ctx context.Context, network, addr string, ended <-chan struct{}) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial(network, addr); err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("the server ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
