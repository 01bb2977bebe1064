//go:build unix

package main

import (
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
)

// BenchmarkEngine shows what servers with 100 viewers each ask of the engine,
// at 25 messages a second. One op is 100 messages. The figures are what a
// message adds to that with so many servers: the scripts, the reads, and the
// engine's CPU time. "quiet" is the engine's CPU time a second without
// messages, for leases and looks at the engine's state.
//
// The servers, their viewers and the engine share the machine. So the CPU times
// show the order of magnitude, and the counts show the growth.
//
//	go test ./examples/load -run '^$' -bench Engine -benchtime 3x
func BenchmarkEngine(b *testing.B) {
	binary := buildRelay(b)
	for _, n := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprint(n, "-servers"), func(b *testing.B) { engineWork(b, binary, n) })
	}
}

func engineWork(b *testing.B, binary string, n int) {
	const rate, warm, quiet = 25, 25, 4 * time.Second
	messages := 100 * b.N
	engine := redistest.Start(b)
	args := []string{"-viewers", strconv.Itoa(100 * n), "-rate", strconv.Itoa(rate), "-wait", "1m",
		"-for", (time.Duration(warm+messages+1) * time.Second / rate).String()}
	var token string
	for range n {
		s := startRelay(b, binary, "REDIS_URL=redis://"+engine.Addr)
		ready(b, s)
		args, token = append(args, "-url", s.url), s.token
	}
	cfg, to, err := parse(args, token, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	before := workOf(engine)
	time.Sleep(quiet)
	idle := workOf(engine).since(before, quiet.Seconds())

	l := &load{cfg: cfg, to: to}
	ended := make(chan *report, 1)
	go func() {
		r, err := l.run(b.Context())
		if err != nil {
			b.Error(err)
		}
		ended <- r
	}()
	sent := func(count int) {
		redistest.Wait(b, fmt.Sprint(count, " messages"), func() bool { return l.sent.Load() >= int64(count) })
	}
	sent(warm)
	before, began := workOf(engine), time.Now()
	for done := 0; done < messages; done += 100 {
		sent(warm + done + 100)
	}
	took := time.Since(began).Seconds() / float64(messages)
	of := workOf(engine).since(before, float64(messages))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(of.scripts-took*idle.scripts, "scripts/message")
	b.ReportMetric(of.reads-took*idle.reads, "reads/message")
	b.ReportMetric(of.cpu-took*idle.cpu, "µs/message")
	b.ReportMetric(idle.cpu, "quiet-µs/s")
	if r := <-ended; len(r.Failures) > 0 {
		b.Error(r.Failures)
	}
}

// work is what an engine has done so far. cpu is in microseconds.
type work struct{ scripts, reads, cpu float64 }

func workOf(engine *redistest.Server) work {
	return work{float64(calls(engine, "evalsha")), float64(calls(engine, "xread")), engine.CPU().Seconds() * 1e6}
}

// since returns the work since before, divided by n.
func (w work) since(before work, n float64) work {
	return work{(w.scripts - before.scripts) / n, (w.reads - before.reads) / n, (w.cpu - before.cpu) / n}
}
