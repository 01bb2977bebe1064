package redislog_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/internal/redistest"
)

// engineCPU returns the CPU time that the engine has used, in seconds.
func engineCPU(b *testing.B, server *redistest.Server) (seconds float64) {
	for line := range strings.Lines(server.Do("INFO", "cpu")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			seconds += v
		}
	}
	return seconds
}

// inFlight calls f n times, by some goroutines.
func inFlight(n, goroutines int, f func()) {
	var group sync.WaitGroup
	for g := range goroutines {
		count := n / goroutines
		if g < n%goroutines {
			count++
		}
		group.Go(func() {
			for range count {
				f()
			}
		})
	}
	group.Wait()
}

// BenchmarkAppend compares an append with a bare XADD of the same client, which
// has neither an order of failovers nor a bound. It reports the rate and the
// engine's CPU time, each divided by that of XADD.
func BenchmarkAppend(b *testing.B) {
	data := []byte(strings.Repeat("x", 300))
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprint(goroutines, "-in-flight"), func(b *testing.B) {
			server := redistest.Start(b)
			n := start(b, server.Addr, settings{})
			client := redistest.Client(b, server.Addr)
			ours := func() {
				if _, err := n.log.Append(ctx0, data); err != nil {
					b.Error(err)
				}
			}
			bare := func() {
				if err := client.Do(ctx0, client.B().Xadd().Key("bare").Maxlen().Almost().Threshold("1200").Id("*").FieldValue().FieldValue("d", rueidis.BinaryString(data)).Build()).Error(); err != nil {
					b.Error(err)
				}
			}
			inFlight(200, goroutines, ours)
			inFlight(200, goroutines, bare)
			const rounds = 10 // both in turns, since the machine may be busy
			var took [2]time.Duration
			var cpu [2]float64
			for range rounds {
				for i, f := range []func(){ours, bare} {
					began, used := time.Now(), engineCPU(b, server)
					inFlight(b.N/rounds+1, goroutines, f)
					took[i] += time.Since(began)
					cpu[i] += engineCPU(b, server) - used
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "rate/xadd")
			if cpu[1] > 0 {
				b.ReportMetric(cpu[0]/cpu[1], "engine-cpu/xadd")
			}
		})
	}
}

// BenchmarkDelivery compares the time from an append on one node to a reader on
// another, 25 times a second, with that of a bare XADD to a blocked XREAD. It
// reports the medians, and their ratio.
func BenchmarkDelivery(b *testing.B) {
	server := redistest.Start(b)
	writer := start(b, server.Addr, settings{})
	reader := start(b, server.Addr, settings{}).log.Reader(history.Latest())
	client := redistest.Client(b, server.Addr)
	parked, release := redistest.Client(b, server.Addr).Dedicate()
	defer release()
	data := []byte(strings.Repeat("x", 300))
	got := make(chan time.Time, 1)
	var took [2][]time.Duration
	for range b.N {
		go func() {
			_, err := reader.Next(ctx0)
			got <- time.Now()
			if err != nil {
				b.Error(err)
			}
		}()
		time.Sleep(20 * time.Millisecond) // the pace, not a wait
		began := time.Now()
		if _, err := writer.log.Append(ctx0, data); err != nil {
			b.Fatal(err)
		}
		took[0] = append(took[0], (<-got).Sub(began))
		go func() {
			err := parked.Do(ctx0, parked.B().Xread().Block(0).Streams().Key("bare").Id("$").Build()).Error()
			got <- time.Now()
			if err != nil {
				b.Error(err)
			}
		}()
		time.Sleep(20 * time.Millisecond)
		began = time.Now()
		if err := client.Do(ctx0, client.B().Xadd().Key("bare").Id("*").FieldValue().FieldValue("d", rueidis.BinaryString(data)).Build()).Error(); err != nil {
			b.Fatal(err)
		}
		took[1] = append(took[1], (<-got).Sub(began))
	}
	var median [2]time.Duration
	for i := range took {
		slices.Sort(took[i])
		median[i] = took[i][len(took[i])/2]
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(median[0].Microseconds()), "µs")
	b.ReportMetric(median[0].Seconds()/median[1].Seconds(), "time/xread")
}

// BenchmarkNodes reports the CPU time that the engine needs for an append if a
// number of nodes follow the log.
func BenchmarkNodes(b *testing.B) {
	data := []byte(strings.Repeat("x", 300))
	for _, nodes := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			server := redistest.Start(b)
			all := make([]*node, nodes)
			for i := range all {
				all[i] = start(b, server.Addr, settings{})
			}
			used := engineCPU(b, server)
			for range b.N {
				if _, err := all[0].log.Append(ctx0, data); err != nil {
					b.Fatal(err)
				}
			}
			for _, n := range all {
				redistest.Wait(b, "a node that follows", func() bool { return n.log.Position() == all[0].log.Position() })
			}
			b.ReportMetric((engineCPU(b, server)-used)/float64(b.N)*1e6, "engine-µs/op")
		})
	}
}
