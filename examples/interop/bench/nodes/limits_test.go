// Package nodes compares what several nodes share by an engine with other ways
// to share it.
package nodes_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/ulule/limiter/v3"
	store "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
)

// many is a limit that is not reached.
const many = 1 << 20

// way is one way to decide about a client of all nodes.
type way struct {
	name   string
	decide func(ctx context.Context, client netip.Addr) error
}

// ways returns the ways to decide by the engine. Package redislimit applies
// three limits and counts open connections, the others apply one limit each.
func ways(b *testing.B, server *redistest.Server) []way {
	shared, err := redislimit.New(redislimit.Config{Client: redistest.Client(b, server.Addr), Key: bytes.Repeat([]byte{1}, redislimit.KeySize), Timeout: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { shared.Close() })
	shared.Follow(func(ratelimit.SharedChange) {})
	redistest.Wait(b, "a node", func() bool { return shared.Stats().Nodes == 1 })
	rules := ratelimit.Rules{Limit: many, MaxAttempts: many, MaxOpen: many, Window: time.Hour}

	bare := redistest.Client(b, server.Addr)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	b.Cleanup(func() { client.Close() })
	rates := redis_rate.NewLimiter(client)
	kept, err := store.NewStore(client)
	if err != nil {
		b.Fatal(err)
	}
	ulule := limiter.New(kept, limiter.Rate{Period: time.Hour, Limit: many})
	return []way{
		{"redislimit", func(ctx context.Context, addr netip.Addr) error {
			t, _, err := shared.Take(ctx, ratelimit.Client{Network: ratelimit.Fold(addr)}, rules)
			if err == nil && t.Reason != ratelimit.ReasonNone {
				err = fmt.Errorf("refused: %s", t.Reason)
			}
			return err
		}},
		{"GET", func(ctx context.Context, addr netip.Addr) error {
			_, err := bare.Do(ctx, bare.B().Get().Key("limit:"+addr.String()).Build()).ToString()
			if rueidis.IsRedisNil(err) {
				return nil
			}
			return err
		}},
		{"redis_rate", func(ctx context.Context, addr netip.Addr) error {
			r, err := rates.Allow(ctx, addr.String(), redis_rate.Limit{Rate: many, Burst: many, Period: time.Hour})
			if err == nil && r.Allowed == 0 {
				err = fmt.Errorf("refused")
			}
			return err
		}},
		{"ulule", func(ctx context.Context, addr netip.Addr) error {
			r, err := ulule.Get(ctx, addr.String())
			if err == nil && r.Reached {
				err = fmt.Errorf("refused")
			}
			return err
		}},
	}
}

// BenchmarkLimits makes decisions by each way, one at a time and with 64 in
// flight, in turns of a quarter of a second, so that a busy machine slows all
// of them down. It reports the median of their rates, and of their engine's CPU
// times, as a multiple of those of redislimit.
func BenchmarkLimits(b *testing.B) {
	server := redistest.Start(b, "--save", "")
	all := ways(b, server)
	for name, flight := range map[string]int{"alone": 1, "64-in-flight": 64} {
		b.Run(name, func(b *testing.B) {
			rate, cpu := make([][]float64, len(all)), make([][]float64, len(all))
			for range max(b.N, 5) {
				var rates, cpus []float64
				for _, w := range all {
					before, began := server.CPU(), time.Now()
					n := turn(b, flight, w)
					rates = append(rates, float64(n)/time.Since(began).Seconds())
					cpus = append(cpus, (server.CPU()-before).Seconds()/float64(n))
				}
				for i := range all {
					rate[i], cpu[i] = append(rate[i], rates[0]/rates[i]), append(cpu[i], cpus[i]/cpus[0])
				}
			}
			for i, w := range all[1:] {
				b.ReportMetric(median(rate[i+1]), "rate-over-"+w.name)
				b.ReportMetric(median(cpu[i+1]), "engine-of-"+w.name)
			}
		})
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// turn decides for a quarter of a second, by so many goroutines, and returns
// how often.
func turn(b *testing.B, flight int, w way) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
	defer cancel()
	var done atomic.Int64
	var work sync.WaitGroup
	for range flight {
		work.Go(func() {
			for ctx.Err() == nil {
				var addr [4]byte
				binary.BigEndian.PutUint32(addr[:], uint32(done.Add(1)%10_000))
				if err := w.decide(context.WithoutCancel(ctx), netip.AddrFrom4(addr)); err != nil {
					b.Errorf("%s: %v", w.name, err)
					return
				}
			}
		})
	}
	work.Wait()
	return done.Load()
}
