package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
	sselog "github.com/relayguard/relayguard/history/sse"
	"github.com/tmaxmax/go-sse"
)

// mark is a byte that each message contains once and no frame contains.
const mark = 1

var message = append(bytes.Repeat([]byte("m"), 149), mark)

// audience is a number of clients of one log.
type audience struct {
	server *httptest.Server
	got    atomic.Int64 // messages that arrived, at all clients together
	want   atomic.Int64
	all    chan struct{} // gets one when got is want
	wg     sync.WaitGroup
	conns  []net.Conn
}

func watch(b *testing.B, clients int, handler http.Handler) *audience {
	a := &audience{server: httptest.NewServer(handler), all: make(chan struct{}, 1)}
	for range clients {
		conn, err := net.Dial("tcp", a.server.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		a.conns = append(a.conns, conn)
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: server.example\r\n\r\n")
		r := bufio.NewReader(conn)
		if _, err := r.ReadString('\n'); err != nil { // the head is sent: it follows
			b.Fatal(err)
		}
		a.wg.Go(func() {
			buf := make([]byte, 16<<10)
			for {
				n, err := r.Read(buf)
				if err != nil {
					return
				}
				marks := int64(bytes.Count(buf[:n], []byte{mark}))
				if marks > 0 && a.got.Add(marks) == a.want.Load() {
					a.all <- struct{}{}
				}
			}
		})
	}
	return a
}

func (a *audience) close() {
	for _, conn := range a.conns {
		conn.Close()
	}
	a.wg.Wait()
	a.server.Close()
}

// cpu returns the processor time that this process has used, with its clients.
func cpu(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkFollowers publishes to 500 followers of one log, over HTTP/1.1 on
// loopback. One op is one message that has arrived at all of them: in lockstep,
// each one before the next is published; in a stream, without waiting. The
// ratio is that of processor time, since other work on the machine hardly
// changes it.
func BenchmarkFollowers(b *testing.B) {
	const clients, kept = 500, 1 << 16
	var ours [2]float64
	for i, how := range []string{"lockstep", "stream"} {
		run := func(b *testing.B, handler http.Handler, publish func()) float64 {
			a := watch(b, clients, handler)
			defer a.close()
			b.ReportAllocs()
			b.ResetTimer()
			begin := cpu(b)
			if how == "stream" {
				a.want.Store(int64(b.N) * clients)
			}
			for n := range b.N {
				if how == "lockstep" {
					a.want.Store(int64(n+1) * clients)
				}
				publish()
				if how == "lockstep" {
					<-a.all
				}
			}
			if how == "stream" {
				<-a.all
			}
			b.StopTimer()
			each := float64(cpu(b)-begin) / float64(b.N*clients)
			b.ReportMetric(each, "cpu-ns/delivery")
			return each
		}
		for _, wake := range []struct {
			name string
			cfg  history.Config
		}{{"-unpaced", history.Config{Keep: kept, Wake: -1}}, {"", history.Config{Keep: kept}}} {
			if how == "lockstep" && wake.name == "" {
				continue // it would measure the pace
			}
			b.Run(how+"/history"+wake.name, func(b *testing.B) {
				log, err := history.Open(context.Background(), wake.cfg)
				if err != nil {
					b.Fatal(err)
				}
				events, err := sselog.New(sselog.Config{})
				if err != nil {
					b.Fatal(err)
				}
				ours[i] = run(b, events.Handler(log), func() {
					if _, err := log.Append(context.Background(), message); err != nil {
						b.Error(err)
					}
				})
				log.Close()
			})
		}
		b.Run(how+"/go-sse", func(b *testing.B) {
			replayer, err := sse.NewFiniteReplayer(kept, true)
			if err != nil {
				b.Fatal(err)
			}
			joe := &sse.Joe{Replayer: replayer}
			joe.Publish(&sse.Message{}, topic) // with the id 0
			theirs := run(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				session, err := sse.Upgrade(w, r)
				if err != nil {
					b.Error(err)
					return
				}
				session.Flush()
				joe.Subscribe(r.Context(), sse.Subscription{Client: session, LastEventID: sse.ID("0"), Topics: topic})
			}), func() {
				m := &sse.Message{}
				m.AppendData(string(message))
				if err := joe.Publish(m, topic); err != nil {
					b.Error(err)
				}
			})
			if ours[i] > 0 {
				b.ReportMetric(theirs/ours[i], "times-history")
			}
			joe.Shutdown(context.Background())
		})
	}
}
