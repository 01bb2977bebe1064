package redislog_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

// The benchmarks report ratios of one run: the same work by redislog and by a
// bare stream take turns, so that other load on the machine affects both. One
// op is one turn of each. Use -benchtime 15x or so:
//
//	go test ./history/redislog -run '^$' -bench . -benchtime 15x

// payload has the length of a message of the relay with its figures.
var payload = bytes.Repeat([]byte("m"), 300)

// way is one way to share what is appended.
type way struct {
	append func()          // by the publisher
	wait   func(total int) // until the other process has so many
	total  int             // appended so far
	times  []time.Duration // of a paced append until the other has it
	rates  []float64       // by turn
	cpus   []time.Duration // of the engine, an append, by turn
}

// shared is two processes with a log: one appends, the other one follows.
func shared(b *testing.B, server *redistest.Server) *way {
	s := settings{Config: redislog.Config{Check: 5 * time.Second}}
	writer, other := start(b, server.Addr, s), start(b, server.Addr, s)
	w := &way{append: func() {
		if _, err := writer.log.Append(ctx0, payload); err != nil {
			b.Error(err)
		}
	}}
	w.wait = counted(b, func(ctx context.Context, got func(int)) {
		reader := other.log.Reader(history.Latest())
		for {
			batch, err := reader.Next(ctx)
			if err != nil {
				return
			}
			got(len(batch.Entries) + int(batch.Missed))
		}
	})
	return w
}

// bare is an XADD, and an XREAD of another process.
func bare(b *testing.B, server *redistest.Server) *way {
	writer, other := server.Client(), server.Client()
	text := string(payload)
	w := &way{append: func() {
		add(b, writer, text)
	}}
	w.wait = counted(b, follow(other, "bare"))
	return w
}

func add(t testing.TB, client rueidis.Client, text string) {
	err := client.Do(ctx0, client.B().Xadd().Key("bare").Maxlen().Almost().Threshold("1000").Id("*").FieldValue().FieldValue("d", text).Build()).Error()
	if err != nil {
		t.Error(err)
	}
}

// follow returns the XREAD of one process.
func follow(client rueidis.Client, key string) func(context.Context, func(int)) {
	return func(ctx context.Context, got func(int)) {
		conn, release := client.Dedicate()
		defer release()
		for pos := "0"; ; {
			lists, err := conn.Do(ctx, conn.B().Xread().Count(1000).Block(0).Streams().Key(key).Id(pos).Build()).AsXReadSlices()
			if err != nil {
				return
			}
			page := lists[key]
			pos = page[len(page)-1].ID
			got(len(page))
		}
	}
}

// counted runs a reader, which reports what it got, until the benchmark ends.
// It returns a function that waits for so many in all.
func counted(t testing.TB, read func(ctx context.Context, got func(int))) (wait func(int)) {
	ctx, cancel := context.WithCancel(ctx0)
	news, total := make(chan int), 0
	var reader sync.WaitGroup
	reader.Go(func() {
		read(ctx, func(n int) {
			select {
			case news <- n:
			case <-ctx.Done():
			}
		})
	})
	t.Cleanup(func() { cancel(); reader.Wait() })
	return func(want int) {
		t.Helper()
		late := time.After(30 * time.Second)
		for total < want {
			select {
			case n := <-news:
				total += n
			case <-late:
				t.Fatalf("the reader has %d of %d", total, want)
			}
		}
	}
}

// turn appends n times, with so many under way, and notes the rate and what the
// engine's CPU did.
func (w *way) turn(server *redistest.Server, n, flying int) {
	cpu, began := server.CPU(), time.Now()
	var all sync.WaitGroup
	for range flying {
		all.Go(func() {
			for range n / flying {
				w.append()
			}
		})
	}
	w.total += n
	w.wait(w.total)
	all.Wait()
	w.rates = append(w.rates, float64(n)/time.Since(began).Seconds())
	w.cpus = append(w.cpus, (server.CPU()-cpu)/time.Duration(n))
}

// one appends, and notes how long it took until the other process had it.
func (w *way) one() {
	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.append()
	}()
	w.total++
	w.wait(w.total)
	w.times = append(w.times, time.Since(began))
	<-done
}

// BenchmarkAppend compares appends, with 64 under way and one at a time, until
// the other process has them. The budgets are: a rate of at least 0.5 and 0.25
// of a bare stream's, and at most 2 and 4 times the CPU of the engine.
func BenchmarkAppend(b *testing.B) {
	for _, row := range []struct{ flying, n int }{{64, 12_800}, {1, 1_000}} {
		b.Run(strconv.Itoa(row.flying), func(b *testing.B) {
			server := redistest.Start(b)
			log, stream := shared(b, server), bare(b, server)
			for _, w := range []*way{log, stream} { // the first turn warms up
				w.turn(server, row.n, row.flying)
				w.rates, w.cpus = nil, nil
			}
			for turn := 0; b.Loop(); turn++ {
				both := []*way{log, stream}
				if turn%2 == 1 {
					slices.Reverse(both)
				}
				for _, w := range both {
					w.turn(server, row.n, row.flying)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ratio(log.rates, stream.rates), "rate/bare")
			b.ReportMetric(ratio(log.cpus, stream.cpus), "cpu/bare")
			b.Logf("%.0f and %.0f a second, %v and %v of engine CPU", median(log.rates), median(stream.rates), median(log.cpus), median(stream.cpus))
		})
	}
}

// BenchmarkPaced compares the time from an append until a reader of another
// process has it, at 25 appends a second each. The budget is 2.
func BenchmarkPaced(b *testing.B) {
	server := redistest.Start(b)
	log, stream := shared(b, server), bare(b, server)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var ratios []float64
	for b.Loop() {
		log.times, stream.times = nil, nil
		for range 50 {
			<-tick.C
			log.one()
			<-tick.C
			stream.one()
		}
		ratios = append(ratios, float64(median(log.times))/float64(median(stream.times)))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios), "p50/bare")
	b.Logf("the last p50: %v and %v", median(log.times), median(stream.times))
}

// BenchmarkNodes shows what another process costs the engine, with one append
// at a time. The CPU of the engine should grow by no more than for one more
// XREAD of a bare stream. The processes have no readers, which would only let
// the engine sleep between two appends: TestOneReadANode shows that they cost
// it nothing.
func BenchmarkNodes(b *testing.B) {
	type pair struct {
		server      *redistest.Server
		log, stream *way
	}
	counts := []int{1, 2, 4, 8}
	var pairs []pair
	for _, n := range counts {
		server := redistest.Start(b)
		pairs = append(pairs, pair{server, nodesOf(b, server, n, 0), readersOf(b, server, n)})
	}
	var growth []float64 // of the log's CPU by that of the stream
	for b.Loop() {
		for _, p := range pairs {
			p.log.turn(p.server, 200, 1)
			p.stream.turn(p.server, 200, 1)
		}
		few, many := pairs[0], pairs[len(pairs)-1]
		growth = append(growth, float64(last(many.log.cpus)-last(few.log.cpus))/float64(last(many.stream.cpus)-last(few.stream.cpus)))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(growth), "growth/bare")
	for i, p := range pairs {
		b.Logf("%d nodes: %v of engine CPU an append, bare %v", counts[i], median(p.log.cpus), median(p.stream.cpus))
	}
}

func last[T any](list []T) T { return list[len(list)-1] }

// nodesOf is a log in n processes with readers in each. An append is over when
// all readers have it.
func nodesOf(t testing.TB, server *redistest.Server, n, readers int) *way {
	s := settings{Config: redislog.Config{Timeout: 30 * time.Second, Check: time.Minute}}
	var nodes []*node
	var waits []func(int)
	for range n {
		nd := start(t, server.Addr, s)
		nodes = append(nodes, nd)
		for range readers {
			reader := nd.log.Reader(history.Latest())
			waits = append(waits, counted(t, func(ctx context.Context, got func(int)) {
				for {
					batch, err := reader.Next(ctx)
					if err != nil {
						return
					}
					got(len(batch.Entries))
				}
			}))
		}
	}
	w := &way{wait: func(int) {}}
	done := 0
	w.append = func() {
		if _, err := nodes[0].log.Append(ctx0, payload); err != nil {
			t.Error(err)
		}
		done++
		for _, wait := range waits {
			wait(done)
		}
	}
	return w
}

// readersOf is a stream that n processes read.
func readersOf(t testing.TB, server *redistest.Server, n int) *way {
	client, text := server.Client(), string(payload)
	var waits []func(int)
	for range n {
		waits = append(waits, counted(t, follow(server.Client(), "bare")))
	}
	w := &way{wait: func(int) {}}
	done := 0
	w.append = func() {
		add(t, client, text)
		done++
		for _, wait := range waits {
			wait(done)
		}
	}
	return w
}

// An append costs the engine one script, and one read for each process,
// however many readers a process has.
func TestOneReadANode(t *testing.T) {
	const appends = 50
	for _, nodes := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			server := redistest.Start(t)
			w := nodesOf(t, server, nodes, 100)
			w.append()
			before := calls(t, server, nodes)
			for range appends {
				w.append()
			}
			after := calls(t, server, nodes)
			for command, want := range map[string]int{"xread": appends * nodes, "evalsha": appends, "xadd": appends} {
				if got := after[command] - before[command]; got != want {
					t.Errorf("%s: %d calls for %d appends, want %d", command, got, appends, want)
				}
			}
		})
	}
}

// calls returns how often the engine has run each command, when so many
// processes wait in a read.
func calls(t *testing.T, s *redistest.Server, waiting int) map[string]int {
	t.Helper()
	redistest.Wait(t, "every process in its read", func() bool {
		return strings.Contains(s.Do("INFO", "clients"), fmt.Sprintf("blocked_clients:%d\r", waiting))
	})
	all := make(map[string]int)
	for line := range strings.Lines(s.Do("INFO", "commandstats")) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"); ok {
			name, rest, _ := strings.Cut(rest, ":calls=")
			count, _, _ := strings.Cut(rest, ",")
			all[name], _ = strconv.Atoi(count)
		}
	}
	return all
}

func median[T int | float64 | time.Duration](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// ratio returns the median of the ratios of the turns.
func ratio[T float64 | time.Duration](a, b []T) float64 {
	var list []float64
	for i := range a {
		list = append(list, float64(a[i])/float64(b[i]))
	}
	return median(list)
}
