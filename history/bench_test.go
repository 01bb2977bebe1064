package history_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
)

// message has the length of a typical message of the relay: one token of text
// with memory figures.
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
	// Two allocations are the state and the copy of the message. The growth of
	// the array is less than one per append.
	if a := testing.AllocsPerRun(2000, func() { l.Append(ctx, message); r.Next(ctx) }); a > 2 {
		t.Errorf("an append and its reading: %v allocations", a)
	}
}

// BenchmarkAppend shows that an append costs about the same with any number of
// waiting readers. The pace bounds the readers' own work, and the appender does
// not wait for it.
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

// BenchmarkPublish compares two ways to publish to 1,000 waiting readers: a
// log, and a queue for each reader that the publisher fills, as hubs commonly
// do. The hub also loses a message if a queue is full. One op is one published
// message.
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

// BenchmarkCopy measures a snapshot that copies the entries under a lock, as a
// ring buffer needs it.
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

// BenchmarkSet measures one use of one of 10,000 open logs, and reports the
// memory that an empty open log takes.
func BenchmarkSet(b *testing.B) {
	const logs = 10_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := newSet(b, history.SetConfig{MaxLogs: logs})
	names := make([]string, logs)
	for i := range names {
		names[i] = fmt.Sprint("build-", i)
		_, release := create(b, s, names[i])
		release()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		_, release, err := s.Acquire(context.Background(), names[i%logs])
		if err != nil {
			b.Fatal(err)
		}
		release()
		i++
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/logs, "B/log")
}
