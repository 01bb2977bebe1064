package bench_test

import (
	"bufio"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	million = 1_000_000
	never   = 1 << 24 // a limit that is not reached; the highest that relayguard takes
)

var clients = sync.OnceValue(func() []client {
	all := make([]client, million)
	for i := range all {
		all[i] = clientAt(i)
	}
	return all
})

// BenchmarkAdmit compares decisions that admit: of one client again and again,
// and of a million that are known already, each in its turn.
func BenchmarkAdmit(b *testing.B) {
	decide := func(b *testing.B, p peer, all []client) contender {
		l, next := p.make(b, never, time.Hour), 0
		for i := range all {
			if !l.admit(&all[i]) {
				b.Fatalf("%s refuses %s", p.name, all[i].addr)
			}
		}
		return contender{p.name, func(n int) {
			for range n {
				if !l.admit(&all[next]) {
					b.Fatalf("%s refuses", p.name)
				}
				if next++; next == len(all) {
					next = 0
				}
			}
		}}
	}
	for _, bb := range []struct {
		name string
		all  []client
		n    int
	}{
		{"hot", clients()[:1], 5_000},
		{"million", clients(), 50_000},
	} {
		b.Run(bb.name, func(b *testing.B) {
			others := []contender{decide(b, admitRelease, bb.all)}
			for _, p := range peers {
				others = append(others, decide(b, p, bb.all))
			}
			compare(b, bb.n, decide(b, admit, bb.all), others...)
		})
	}
}

// hijackable is a writer that makes relayguard watch for the upgrade, as under
// a real server.
type hijackable struct{ writer }

func (*hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.ErrUnsupported
}

// BenchmarkHandler compares middleware that admits a request of one client,
// from RemoteAddr to the end of the request.
func BenchmarkHandler(b *testing.B) {
	serve := func(p peer, name string) contender {
		h, w, r := p.make(b, never, time.Hour).handler(nothing), &hijackable{*newWriter()}, requestFrom("192.0.2.1:4711")
		return contender{name, func(n int) {
			for range n {
				clear(w.h) // some of them add to what is there
				h.ServeHTTP(w, r)
			}
		}}
	}
	var others []contender
	for _, p := range peers {
		others = append(others, serve(p, p.name))
	}
	compare(b, 2_000, serve(admit, "relayguard"), others...)
}

// BenchmarkHeap reports how much heap a client takes, a million being known,
// with the keys that a limiter keeps.
func BenchmarkHeap(b *testing.B) {
	for _, p := range append([]peer{admitRelease, admit}, peers...) {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				l := p.make(b, never, time.Hour)
				for i := range million {
					c := clientAt(i)
					l.admit(&c)
				}
				b.ReportMetric(float64(heap()-before)/million, "B/client")
				runtime.KeepAlive(l)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkLongestDecision lets a million clients ask in turn for two and a
// half windows, so that clients are added, expire and are forgotten, and
// reports the longest that one had to wait for its decision. Run it with
// -benchtime 5x.
//
// A machine that others use interrupts at random, while a stall of a limiter's
// own making, as when it sweeps, returns at the same moment of every pass. So
// there are three numbers: the longest wait of all; the longest that returns in
// every pass, to a tenth of a second; and the same of merely reading the clock,
// below which nothing can be told. The clock is read faster than a decision is
// made, and interrupted less often. On a loaded machine, therefore, the second
// number is an upper bound: a limiter's own stall is there in every run, quiet
// ones included.
func BenchmarkLongestDecision(b *testing.B) {
	const window, part = 2 * time.Second, 100 * time.Millisecond
	all := clients()
	for _, p := range append([]peer{admitRelease}, peers...) {
		b.Run(p.name, func(b *testing.B) {
			var worst time.Duration
			var waits, idles [window * 5 / 2 / part]time.Duration
			for first := true; b.Loop(); first = false {
				var wait, idle [len(waits) + 1]time.Duration
				l, begin := p.make(b, never, window), time.Now()
				for i, now := 0, 0; now < len(waits); i++ {
					t0 := time.Now()
					l.admit(&all[i%million])
					t1 := time.Now()
					t2 := time.Now()
					wait[now], idle[now] = max(wait[now], t1.Sub(t0)), max(idle[now], t2.Sub(t1))
					now = int((t2.Sub(begin) + part/2) / part) // a window ends in the middle of a part
				}
				for i := range waits {
					worst = max(worst, wait[i])
					if first || wait[i] < waits[i] {
						waits[i] = wait[i]
					}
					if first || idle[i] < idles[i] {
						idles[i] = idle[i]
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(worst.Microseconds()), "µs-longest")
			b.ReportMetric(float64(slices.Max(waits[:]).Microseconds()), "µs-longest-in-every-pass")
			b.ReportMetric(float64(slices.Max(idles[:]).Microseconds()), "µs-idle-in-every-pass")
		})
	}
}
