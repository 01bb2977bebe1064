package history_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
)

// message is as long as a token of text with memory figures is on the wire.
var message = bytes.Repeat([]byte("m"), 150)

func full(t testing.TB, cfg history.Config) *history.Log {
	l := open(t, cfg)
	for range 1000 {
		l.Append(context.Background(), message)
	}
	return l
}

func TestReadingAllocatesNothing(t *testing.T) {
	l := full(t, history.Config{})
	r, from := l.Reader(history.Oldest()), l.Reader(history.Oldest()).Position()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var n int
	for what, f := range map[string]func(){
		"a snapshot of 1,000": func() { n += len(l.Since(history.Oldest()).Entries) },
		"what is new":         func() { n += len(l.Since(from).Entries) },
		"nothing new":         func() { r.TryNext() },
	} {
		if a := testing.AllocsPerRun(100, f); a != 0 {
			t.Errorf("%s: %v allocations", what, a)
		}
	}
	if n != 2*101*1000 {
		t.Errorf("%d entries read", n)
	}
	// The state, the copy of the message, and what array growth comes to.
	if a := testing.AllocsPerRun(2000, func() { l.Append(ctx, message); r.Next(ctx) }); a > 2 {
		t.Errorf("an append and its reading: %v allocations", a)
	}
}

// BenchmarkAppend shows that an append costs the same however many wait. The
// readers' own work is bounded by the pace and is not part of what a publisher
// waits for.
func BenchmarkAppend(b *testing.B) {
	for _, readers := range []int{0, 100, 1000} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			l := full(b, history.Config{Wake: 100 * time.Millisecond})
			var wg sync.WaitGroup
			for range readers {
				wg.Go(func() {
					r := l.Reader(history.Latest())
					for {
						if _, err := r.Next(context.Background()); err != nil {
							return
						}
					}
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				l.Append(context.Background(), message)
			}
			b.StopTimer()
			l.Close()
			wg.Wait()
		})
	}
}

// BenchmarkPublish compares publishing to 1,000 that wait: a log, and a queue
// for each with the publisher filling them, as hubs commonly do. The hub also
// loses messages where a queue is full. One op is one message handed over.
func BenchmarkPublish(b *testing.B) {
	const readers = 1000
	var perLog float64
	b.Run("log", func(b *testing.B) {
		l := open(b, history.Config{})
		var wg sync.WaitGroup
		for range readers {
			wg.Go(func() {
				r := l.Reader(history.Latest())
				for {
					if _, err := r.Next(context.Background()); err != nil {
						return
					}
				}
			})
		}
		b.ReportAllocs()
		for b.Loop() {
			l.Append(context.Background(), message)
		}
		b.StopTimer()
		perLog = float64(b.Elapsed()) / float64(b.N)
		l.Close()
		wg.Wait()
	})
	b.Run("queues", func(b *testing.B) {
		var wg sync.WaitGroup
		queues := make([]chan []byte, readers)
		for i := range queues {
			queues[i] = make(chan []byte, 256)
			wg.Go(func() {
				for range queues[i] {
				}
			})
		}
		b.ReportAllocs()
		for b.Loop() {
			for _, q := range queues {
				select {
				case q <- message:
				default:
				}
			}
		}
		b.StopTimer()
		if perLog > 0 {
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/perLog, "times-log")
		}
		for _, q := range queues {
			close(q)
		}
		wg.Wait()
	})
}

func BenchmarkSnapshot(b *testing.B) {
	l := full(b, history.Config{})
	b.ReportAllocs()
	for b.Loop() {
		l.Since(history.Oldest())
	}
}

// BenchmarkCopy is what a snapshot would cost under a lock, as a ring buffer
// needs it.
func BenchmarkCopy(b *testing.B) {
	entries := full(b, history.Config{}).Since(history.Oldest()).Entries
	var mu sync.Mutex
	b.ReportAllocs()
	for b.Loop() {
		mu.Lock()
		_ = append([]history.Entry(nil), entries...)
		mu.Unlock()
	}
}

func BenchmarkPosition(b *testing.B) {
	p := full(b, history.Config{}).Position()
	b.ReportAllocs()
	for b.Loop() {
		history.ParsePosition(p.String())
	}
}
