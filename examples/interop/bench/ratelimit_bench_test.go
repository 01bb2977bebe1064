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
	never   = 1 << 24 // a limit that is not reached; the highest that relayguard accepts
)

var clients = sync.OnceValue(func() []client {
	all := make([]client, million)
	for i := range all {
		all[i] = clientAt(i)
	}
	return all
})

// BenchmarkAdmit compares decisions that admit: for the same client each time,
// and for a million known clients in turn.
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

// hijackable is a writer that implements http.Hijacker, like a real server's,
// so relayguard prepares for an upgrade.
type hijackable struct{ writer }

func (*hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.ErrUnsupported
}

// BenchmarkHandler compares middleware that admits a request of one client. It
// includes the parsing of RemoteAddr and the end of the request.
func BenchmarkHandler(b *testing.B) {
	serve := func(p peer, name string) contender {
		h, w, r := p.make(b, never, time.Hour).handler(nothing), &hijackable{*newWriter()}, requestFrom("192.0.2.1:4711")
		return contender{name, func(n int) {
			for range n {
				clear(w.h) // some limiters add values to the headers
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

// BenchmarkHeap reports the heap per client, including its key, when a million
// clients are known.
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

// BenchmarkLongestDecision reports the longest wait of a client for its
// decision. A million clients ask in turn for two and a half windows, so that
// clients are added, expire and are forgotten. Run it with -benchtime 5x.
//
// On a machine with other load, interruptions come at random. A stall that the
// limiter causes itself, such as a sweep, comes at the same moment of every
// pass. So the benchmark reports three numbers: the longest wait of all; the
// longest wait that comes in every pass, within the same tenth of a second; and
// the second number for reading the clock alone. A stall that is shorter than
// the third number cannot be measured. Reading the clock is faster than a
// decision, and thus interrupted less often. On a loaded machine, therefore,
// the second number is an upper bound: a limiter's own stall appears in every
// run, even on an idle machine.
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
