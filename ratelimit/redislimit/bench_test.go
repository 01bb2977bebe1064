package redislimit_test

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
)

// BenchmarkDecision makes decisions of the engine, one at a time and with 64 in
// flight, and beside them as many GETs. It reports the rate of the decisions as
// a part of that of the GETs. Nothing is given back, so that the engine only
// decides.
func BenchmarkDecision(b *testing.B) {
	server := redistest.Start(b, "--save", "")
	client := redistest.Client(b, server.Addr)
	n := prepare(b, client, settings{})
	n.meets()
	rules := ratelimit.Rules{Limit: 1 << 20, MaxAttempts: 1 << 20, MaxOpen: 1 << 20, Window: time.Hour}
	var serial atomic.Uint32
	decide := func() error {
		var addr [4]byte
		binary.BigEndian.PutUint32(addr[:], serial.Add(1)%10_000)
		_, _, err := n.shared.Take(ctx0, ratelimit.Client{Network: netip.PrefixFrom(netip.AddrFrom4(addr), 32)}, rules)
		return err
	}
	get := func() error {
		err := client.Do(ctx0, client.B().Get().Key("limit:{0123456789abcdef}").Build()).Error()
		if rueidis.IsRedisNil(err) {
			return nil
		}
		return err
	}
	for name, flight := range map[string]int{"alone": 1, "64-in-flight": 64} {
		b.Run(name, func(b *testing.B) {
			var deciding, getting time.Duration
			var decided, got time.Duration // CPU time of the engine
			// Both take turns, so that a busy machine slows both down.
			const turns = 20
			each := max(1, b.N/turns)
			for range turns {
				start := server.CPU()
				getting += timed(b, flight, each, get)
				middle := server.CPU()
				deciding += timed(b, flight, each, decide)
				got, decided = got+middle-start, decided+server.CPU()-middle
			}
			b.ReportMetric(getting.Seconds()/deciding.Seconds(), "of-GET")
			b.ReportMetric(float64(turns*each)/deciding.Seconds(), "decisions/s")
			b.ReportMetric(decided.Seconds()*1e6/float64(turns*each), "engine-µs")
			b.ReportMetric(decided.Seconds()/got.Seconds(), "engine-of-GET")
		})
	}
}

// timed does something n times, by so many goroutines.
func timed(b *testing.B, flight, n int, do func() error) time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	began := time.Now()
	var work sync.WaitGroup
	for range flight {
		work.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	return time.Since(began)
}
