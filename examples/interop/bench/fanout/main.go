// Command fanout compares the relay's fan-out with other libraries (command
// peers). Each contestant is a process with one core, and the load generator
// (examples/load) has the other core:
//
//	cd examples/interop && go run ./bench/fanout -quick cpu
//
//	cpu     CPU per delivered message, 1,000 viewers × 25 messages a second
//	most    the most viewers at 25 a second with p99 below 250 ms and nothing lost
//	idle    memory per idle viewer
//	quiet   CPU per idle viewer and second: pings, and whatever else a library does; use -for 2m
//	first   bytes to each of 1,000 new viewers, and when they have the history
//	storm   time until 5,000 viewers that reconnect at once all have the history
//
// With -only relay,node,nodes it compares one relay in memory, one on Redis,
// and two on one Redis that share the viewers and the core. So it shows what it
// costs to divide viewers among two servers: if the two together serve as many
// on one core as one does, each serves as many on a core of its own. A machine
// with two cores cannot show two servers with a core each, because the load
// needs one. It can show two with a part of a core each, beside one with the
// same part: -share 0.45.
//
// With -profile it writes what each relay's processor does, for go tool pprof.
//
// The contestants take turns in each round, so that other load on the machine
// affects all of them alike. Only the ratios can be compared, because the
// figures are those of one machine. Command fanout needs taskset (util-linux)
// and two cores.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/examples/internal/terminal"
)

const usage = `usage: fanout [flags] cpu | most | idle | quiet | first | storm

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options holds the values of the flags.
type options struct {
	measurement
	rounds   int
	viewers  int
	rate     float64
	size     int
	duration time.Duration
	json     bool
	only     []string
	profiles string
	share    float64
}

// run is main, with arguments instead of global variables. It guards both
// outputs against text that controls a terminal.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	stdout, stderr = terminal.Guard(stdout), terminal.Guard(stderr)
	var o options
	f := flag.NewFlagSet("fanout", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage); f.PrintDefaults() }
	quick := f.Bool("quick", false, "one short round with few viewers, for a first look")
	only := f.String("only", strings.Join(contestants, ","), "who takes part")
	f.IntVar(&o.rounds, "rounds", 0, "rounds (default 5, 3 for most)")
	f.IntVar(&o.viewers, "viewers", 0, "viewers, for most: to begin with (default as the measurement says)")
	f.Float64Var(&o.rate, "rate", 25, "messages a second")
	f.IntVar(&o.size, "size", 200, "bytes of a message's text")
	f.DurationVar(&o.duration, "for", 0, "how long each run publishes or stays idle (default 10s, quick 3s)")
	f.StringVar(&o.profiles, "profile", "", "write a profile of each relay's processor to this directory; it costs some per cent")
	f.Float64Var(&o.share, "share", 1, "`share` of a core that each server gets, as with -only node,nodes -share 0.45 most: one server, and two of the same size on the core; needs root")
	f.BoolVar(&o.json, "json", false, "print JSON")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := o.complete(f.Args(), *quick, *only); err != nil {
		fmt.Fprintf(stderr, "fanout: %v\n%s", err, usage)
		return 2
	}
	err := o.measure(ctx, stdout, stderr)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(stderr, "fanout:", err)
		return 1
	}
	return 0
}

func (o *options) complete(args []string, quick bool, only string) error {
	if len(args) != 1 || measurements[args[0]].run == nil {
		return errors.New("say one of cpu, most, idle, quiet, first and storm")
	}
	o.measurement = measurements[args[0]]
	o.name = args[0]
	full, short := o.viewersFull, o.viewersQuick
	pick := func(n *int, full, short int) {
		switch {
		case *n == 0 && quick:
			*n = short
		case *n == 0:
			*n = full
		}
	}
	pick(&o.viewers, full, short)
	pick(&o.rounds, o.roundsFull, 1)
	if o.duration == 0 {
		o.duration = 10 * time.Second
		if quick {
			o.duration = 3 * time.Second
		}
	}
	if !(o.share > 0 && o.share <= 1) {
		return errors.New("-share must be above 0 and at most 1")
	}
	if o.profiles != "" && o.name != "cpu" {
		return errors.New("-profile is for cpu")
	}
	if o.viewers < 1 || o.rounds < 1 || o.duration < 0 || !(o.rate > 0) || o.size < 0 {
		return errors.New("-viewers, -rounds, -for, -rate and -size must be above 0")
	}
	for name := range strings.SplitSeq(only, ",") {
		if !slices.Contains(contestants, name) && !slices.Contains(onEngine, name) {
			return fmt.Errorf("-only accepts %s, not %q", strings.Join(slices.Concat(contestants, onEngine), ", "), name)
		}
		o.only = append(o.only, name)
	}
	return nil
}

// missing returns what this machine lacks for the contestants, or "" if it
// lacks nothing.
func missing(only []string) string {
	for _, name := range only {
		if !slices.Contains(onEngine, name) {
			continue
		}
		if _, err := exec.LookPath("redis-server"); err != nil {
			return "redis-server is missing: install Redis"
		}
	}
	if _, err := exec.LookPath("taskset"); err != nil {
		return "taskset is missing: install util-linux"
	}
	if runtime.NumCPU() < 2 {
		return "one core is not enough: the server and the load need one each"
	}
	return ""
}

// row is the result of one contestant.
type row struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"` // one for each round that counts
	Median float64   `json:"median"`
	Ratio  float64   `json:"ratio"` // to the first contestant's median
	P99    float64   `json:"p99_ms,omitempty"`
	Failed []string  `json:"failed"`

	p99 []float64
}

// result is what -json prints.
type result struct {
	Measurement string  `json:"measurement"`
	Unit        string  `json:"unit"`
	Viewers     int     `json:"viewers"`
	Rate        float64 `json:"rate"`
	Rounds      int     `json:"rounds"`
	Rows        []*row  `json:"rows"`
}

// measure lets the contestants take turns and prints the table. If a contestant
// fails, the table has its error, and the others are still measured.
func (o *options) measure(ctx context.Context, stdout, stderr io.Writer) error {
	if lack := missing(o.only); lack != "" {
		return errors.New(lack)
	}
	progress := io.Discard
	if terminal.Is(stderr) {
		progress = stderr
	}
	fmt.Fprint(progress, "building")
	bench, err := build(ctx)
	if err != nil {
		return err
	}
	defer bench.close()
	bench.share = o.share
	bench.profiles, bench.profileFor = o.profiles, max(o.duration-warmUp, time.Second)
	out := result{Measurement: o.name, Unit: o.unit, Viewers: o.viewers, Rate: o.rate, Rounds: o.rounds}
	for _, name := range o.only {
		out.Rows = append(out.Rows, &row{Name: name, Failed: []string{}})
	}
	for round := range o.rounds {
		for _, r := range out.Rows {
			show := func(what string) {
				_ = terminal.Control(progress, terminal.ClearLine)
				fmt.Fprintf(progress, "%s, round %d of %d: %s%s", o.name, round+1, o.rounds, r.Name, what)
			}
			show("")
			value, p99, err := o.run(ctx, bench, r.Name, o, show)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.Failed = append(r.Failed, err.Error())
				continue
			}
			r.Values, r.p99 = append(r.Values, value), append(r.p99, p99)
		}
	}
	_ = terminal.Control(progress, terminal.ClearLine)
	for _, r := range out.Rows {
		r.Median, r.P99 = median(r.Values), median(r.p99)
		if first := out.Rows[0].Median; first > 0 {
			r.Ratio = r.Median / first
		}
	}
	if o.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(out)
	}
	out.write(stdout)
	return nil
}

func (r *result) write(w io.Writer) {
	fmt.Fprintf(w, "%s: %d viewers, %g messages a second, rounds: %d\n\n", r.Measurement, r.Viewers, r.Rate, r.Rounds)
	fmt.Fprintf(w, "%-12s %12s %8s %22s %10s\n", "", r.Unit, "ratio", "lowest to highest", "p99 ms")
	for _, row := range r.Rows {
		if len(row.Values) > 0 {
			p99 := ""
			if row.P99 > 0 {
				p99 = fmt.Sprintf("%.1f", row.P99)
			}
			fmt.Fprintf(w, "%-12s %12.2f %8.2f %22s %10s\n", row.Name, row.Median, row.Ratio,
				fmt.Sprintf("%.2f to %.2f", slices.Min(row.Values), slices.Max(row.Values)), p99)
		}
		for _, why := range row.Failed {
			fmt.Fprintf(w, "%-12s failed: %s\n", row.Name, why)
		}
	}
}

// median returns the median of values, or 0 if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
