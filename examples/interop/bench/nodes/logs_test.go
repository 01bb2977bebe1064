package nodes_test

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

// payload has the length of a message of the relay with its figures.
var payload = bytes.Repeat([]byte("m"), 300)

// kept is how many messages each way keeps.
const kept = 1000

// route is one way from a publisher to a reader of another process.
type route struct {
	name    string
	publish func() error // returns when the message is stored
	cpu     func() time.Duration

	got   chan int // what the reader got, as it came
	total int      // published so far
	have  int      // of these, what the reader got
}

// await waits until the reader has everything.
func (r *route) await(b testing.TB) {
	b.Helper()
	late := time.After(30 * time.Second)
	for r.have < r.total {
		select {
		case n := <-r.got:
			r.have += n
		case <-late:
			b.Fatalf("%s: the reader has %d of %d", r.name, r.have, r.total)
		}
	}
}

// newRoute returns a route, and a function that its reader calls with the
// number of messages that came.
func newRoute(b testing.TB, name string) (*route, func(int)) {
	r := &route{name: name, got: make(chan int)}
	return r, func(n int) {
		select {
		case r.got <- n:
		case <-b.Context().Done():
		}
	}
}

// reading runs a reader until the benchmark ends.
func reading(b testing.TB, read func(context.Context)) {
	ctx, cancel := context.WithCancel(b.Context())
	var reader sync.WaitGroup
	reader.Go(func() { read(ctx) })
	b.Cleanup(func() { cancel(); reader.Wait() })
}

// sharedLog is a log of package redislog in two processes.
func sharedLog(b testing.TB, aof string) *route {
	server := redistest.Start(b, "--appendonly", aof)
	open := func() *history.Log {
		engine, err := redislog.New(redislog.Config{Client: redistest.Client(b, server.Addr)})
		if err != nil {
			b.Fatal(err)
		}
		log, err := engine.Open(b.Context(), "room", history.Config{Keep: kept})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { log.Close() })
		return log
	}
	writer, other := open(), open()
	r, got := newRoute(b, "redislog")
	r.publish = func() error { _, err := writer.Append(context.Background(), payload); return err }
	r.cpu = server.CPU
	reading(b, func(ctx context.Context) {
		for reader := other.Reader(history.Latest()); ; {
			batch, err := reader.Next(ctx)
			if err != nil {
				return
			}
			got(len(batch.Entries) + int(batch.Missed))
		}
	})
	return r
}

// bareStream is an XADD, and the XREAD of another process.
func bareStream(b testing.TB, aof string) *route {
	server := redistest.Start(b, "--appendonly", aof)
	writer, other := redistest.Client(b, server.Addr), redistest.Client(b, server.Addr)
	text := string(payload)
	r, got := newRoute(b, "XADD")
	r.publish = func() error {
		add := writer.B().Xadd().Key("bare").Maxlen().Almost().Threshold(strconv.Itoa(kept)).Id("*").FieldValue().FieldValue("d", text)
		return writer.Do(context.Background(), add.Build()).Error()
	}
	r.cpu = server.CPU
	reading(b, func(ctx context.Context) {
		conn, release := other.Dedicate()
		defer release()
		for pos := "0"; ; {
			lists, err := conn.Do(ctx, conn.B().Xread().Count(1000).Block(0).Streams().Key("bare").Id(pos).Build()).AsXReadSlices()
			if err != nil {
				return
			}
			page := lists["bare"]
			pos = page[len(page)-1].ID
			got(len(page))
		}
	})
	return r
}

// jetStream is a stream of NATS in a file, and an ordered consumer of another
// process.
func jetStream(b testing.TB) *route {
	server := startNATS(b)
	connect := func() jetstream.JetStream {
		conn, err := nats.Connect(server.url)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(conn.Close)
		js, err := jetstream.New(conn)
		if err != nil {
			b.Fatal(err)
		}
		return js
	}
	writer, other := connect(), connect()
	stream, err := writer.CreateStream(b.Context(), jetstream.StreamConfig{Name: "room", Subjects: []string{"room"}, Storage: jetstream.FileStorage, MaxMsgs: kept})
	if err != nil {
		b.Fatal(err)
	}
	consumer, err := other.OrderedConsumer(b.Context(), stream.CachedInfo().Config.Name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	r, got := newRoute(b, "JetStream")
	r.publish = func() error { _, err := writer.Publish(context.Background(), "room", payload); return err }
	r.cpu = server.cpu
	consuming, err := consumer.Consume(func(jetstream.Msg) { got(1) })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { consuming.Stop(); <-consuming.Closed() })
	return r
}

// turn publishes n messages, with so many under way, until the reader has them.
// It returns the rate a second, and the engine's CPU time a message.
func (r *route) turn(b testing.TB, n, flying int) (rate float64, cpu time.Duration) {
	before, began := r.cpu(), time.Now()
	var all sync.WaitGroup
	for range flying {
		all.Go(func() {
			for range n / flying {
				if err := r.publish(); err != nil {
					b.Errorf("%s: %v", r.name, err)
					return
				}
			}
		})
	}
	r.total += n
	r.await(b)
	all.Wait()
	return float64(n) / time.Since(began).Seconds(), (r.cpu() - before) / time.Duration(n)
}

// one publishes a message, and returns the time until the reader has it.
func (r *route) one(b testing.TB) time.Duration {
	began, done := time.Now(), make(chan error, 1)
	go func() { done <- r.publish() }()
	r.total++
	r.await(b)
	took := time.Since(began)
	if err := <-done; err != nil {
		b.Fatalf("%s: %v", r.name, err)
	}
	return took
}

// routes returns all ways. JetStream writes its messages to a file, which is
// synced now and then and not for each message. If aof is "yes", so does Redis.
func routes(b testing.TB, aof string) []*route {
	return []*route{sharedLog(b, aof), bareStream(b, aof), jetStream(b)}
}

// Each way brings every message to its reader.
func TestRoutes(t *testing.T) {
	for _, r := range routes(t, "no") {
		r.turn(t, 64, 8)
		if r.one(t); r.have != 65 {
			t.Errorf("%s: %d messages came, want 65", r.name, r.have)
		}
	}
}

// BenchmarkLog publishes by each way, with 64 messages under way and one at a
// time, in turns. It reports the median of their rates, as a multiple of
// redislog's, and of their engines' CPU times, of which redislog takes that
// multiple.
func BenchmarkLog(b *testing.B) {
	for _, row := range []struct {
		name      string
		n, flying int
	}{{"64-in-flight", 12_800, 64}, {"alone", 1_000, 1}} {
		b.Run(row.name, func(b *testing.B) {
			all := routes(b, "yes")
			rates, cpus := make([][]float64, len(all)), make([][]float64, len(all))
			var mine []float64
			for _, r := range all { // the first turn warms up
				r.turn(b, row.n, row.flying)
			}
			for b.Loop() {
				var rate, cpu []float64
				for _, r := range all {
					per, took := r.turn(b, row.n, row.flying)
					rate, cpu = append(rate, per), append(cpu, float64(took))
				}
				mine = append(mine, rate[0])
				for i := range all {
					rates[i], cpus[i] = append(rates[i], rate[0]/rate[i]), append(cpus[i], cpu[0]/cpu[i])
				}
			}
			b.ReportMetric(0, "ns/op")
			for i, r := range all[1:] {
				b.ReportMetric(median(rates[i+1]), "rate-over-"+r.name)
				b.ReportMetric(median(cpus[i+1]), "engine-over-"+r.name)
			}
			b.Logf("redislog: %.0f messages a second", median(mine))
		})
	}
}

// BenchmarkPacedLog compares the time from a publish until the reader of
// another process has the message, at 25 a second by each way. The budgets are
// 2 times a bare stream and 1.25 times JetStream. Redis keeps its messages in
// memory only, or also in a file as JetStream does.
func BenchmarkPacedLog(b *testing.B) {
	for name, aof := range map[string]string{"in-memory": "no", "in-a-file": "yes"} {
		b.Run(name, func(b *testing.B) { paced(b, routes(b, aof)) })
	}
}

func paced(b *testing.B, all []*route) {
	tick := time.NewTicker(40 * time.Millisecond / time.Duration(len(all)))
	defer tick.Stop()
	ratios := make([][]float64, len(all))
	var p50 []time.Duration
	for b.Loop() {
		times := make([][]float64, len(all))
		for range 50 {
			for i, r := range all {
				<-tick.C
				times[i] = append(times[i], float64(r.one(b)))
			}
		}
		p50 = nil
		for i := range all {
			slices.Sort(times[i])
			p50 = append(p50, time.Duration(median(times[i])))
			ratios[i] = append(ratios[i], median(times[0])/median(times[i]))
		}
	}
	b.ReportMetric(0, "ns/op")
	var names []string
	for i, r := range all {
		names = append(names, r.name)
		if i > 0 {
			b.ReportMetric(median(ratios[i]), "p50-over-"+r.name)
		}
	}
	b.Logf("the last p50 of %s: %v", strings.Join(names, ", "), p50)
}
