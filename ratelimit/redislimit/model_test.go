package redislimit_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
)

// Three nodes decide as one Limiter does in a process alone, for any order of
// connections, ends, failures and pardons.
func TestAsOneProcess(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		for _, count := range []ratelimit.Count{ratelimit.CountConnections, ratelimit.CountRequests} {
			cfg := ratelimit.Config{
				Limit: 3, MaxAttempts: 6, MaxOpen: 5, Window: time.Hour, Count: count,
				Penalty: ratelimit.Penalty{Failures: 2},
			}
			one, err := ratelimit.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			s := settings{Config: redislimit.Config{Prefix: "model" + string(rune('a'+count))}}
			nodes := []*node{start(t, server.Addr, s), start(t, server.Addr, s), start(t, server.Addr, s)}
			testAsOne(t, one, nodes, cfg)
		}
	})
}

// held is a connection of one process, and of one of the nodes.
type held struct {
	slot *ratelimit.Slot
	give func(undo bool)
}

func testAsOne(t *testing.T, one *ratelimit.Limiter, nodes []*node, cfg ratelimit.Config) {
	t.Helper()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 2))
	rules := ratelimit.Rules{
		Limit: cfg.Limit, MaxAttempts: cfg.MaxAttempts, MaxOpen: cfg.MaxOpen, Window: cfg.Window,
		Requests: cfg.Count == ratelimit.CountRequests, Penalty: true,
	}
	open := map[netip.Addr][]held{}
	seen := map[ratelimit.Reason]int{}
	for step := range 900 {
		// A few clients at a time: each has used up its attempts at some point.
		addr, n := netip.AddrFrom4([4]byte{192, 0, 2, byte(step/100*2 + rnd.IntN(2))}), nodes[rnd.IntN(len(nodes))]
		c, key := ratelimit.Client{Network: ratelimit.Fold(addr)}, ratelimit.Key{Addr: addr}
		switch p := rnd.IntN(100); {
		case p < 55:
			asking := rules
			asking.Ask = p < 15
			var want ratelimit.Decision
			slot := new(ratelimit.Slot)
			if asking.Ask {
				want = one.Check(key)
			} else {
				var s ratelimit.Slot
				s, want = one.Admit(key)
				slot = &s
			}
			got, give, err := n.shared.Take(ctx0, c, asking)
			if err != nil || got.Reason != want.Reason || want.Allowed && got.Remaining != want.Remaining ||
				(got.RetryAfter-want.RetryAfter).Abs() > patient && got.Reason != ratelimit.ReasonOpen || (got.Reset-want.Reset).Abs() > patient {
				t.Fatalf("seed %d, step %d: %+v, %v\nwant %+v", seed, step, got, err, want)
			}
			seen[got.Reason]++
			if want.Allowed && !asking.Ask {
				open[addr] = append(open[addr], held{slot, give})
			}
		case p < 92:
			if len(open[addr]) == 0 {
				continue
			}
			i := rnd.IntN(len(open[addr]))
			h := open[addr][i]
			open[addr] = append(open[addr][:i:i], open[addr][i+1:]...)
			h.slot.Release()
			h.give(false)
			h.give(false) // the second has no effect
			for _, n := range nodes {
				n.settle()
			}
		case p < 98:
			_, want := one.Fail(key)
			if _, blocked, err := n.shared.Fail(ctx0, c, ratelimit.Penalty{Failures: 2, Within: 10 * time.Minute, Block: 10 * time.Minute, MaxBlock: 24 * time.Hour}); blocked != want || err != nil {
				t.Fatalf("seed %d, step %d: blocked %v, %v, want %v", seed, step, blocked, err, want)
			}
		default:
			one.Forgive(key)
			n.shared.Forgive(c)
			n.settle()
		}
	}
	for _, reason := range []ratelimit.Reason{ratelimit.ReasonNone, ratelimit.ReasonAttempts, ratelimit.ReasonPenalty, ratelimit.ReasonLimit} {
		// A request counts until its window ends, so Limit says it all.
		if seen[reason] == 0 && (reason != ratelimit.ReasonAttempts || !rules.Requests) {
			t.Errorf("seed %d: %q never happened: %v", seed, reason, seen)
		}
	}
}

// FuzzStored lets a client have any value in the engine. The engine decides
// within the limits, whatever it finds.
func FuzzStored(f *testing.F) {
	server := redistest.Start(f)
	n := start(f, server.Addr, settings{})
	client := server.Client()
	c := ratelimit.Client{Network: ratelimit.Fold(alice)}
	rules := ratelimit.Rules{Limit: 3, MaxAttempts: 4, MaxOpen: 5, Window: time.Hour}
	now := uint64(time.Now().UnixMicro())
	value := func(start uint64, counted, tries uint32, pairs ...uint32) []byte {
		b := binary.BigEndian.AppendUint64(nil, start)[1:]
		for _, v := range append([]uint32{counted, tries}, pairs...) {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		return b
	}
	for _, v := range [][]byte{
		nil, {1}, value(now, 2, 3), value(now, 3, 3), value(now, 2, 4), value(0, 9, 9), value(now+1e9, 1, 1), value(1<<56-1, 1<<32-1, 1<<32-1),
		value(now, 1, 1, 5, 1), value(now, 1, 1, 5, 1)[:20], value(now, 0, 0, 1<<32-1, 1<<32-1), value(now, 0, 0, 1, 2, 1, 2), []byte("someone else's text"),
	} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		key := n.shared.KeyOf(c)
		if err := client.Do(ctx0, client.B().Set().Key(key).Value(string(v)).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		var gives []func(bool)
		for range 6 {
			got, give, err := n.shared.Take(ctx0, c, rules)
			if err != nil || got.Reset <= 0 || got.Reset > time.Hour || got.Remaining < 0 || got.Remaining > 2 {
				t.Fatalf("%q: %+v, %v", v, got, err)
			}
			if give != nil {
				gives = append(gives, give)
			}
		}
		if len(gives) > 3 {
			t.Fatalf("%q: admitted %d of 3", v, len(gives))
		}
		for _, give := range gives {
			give(true)
		}
		for !n.shared.Idle() {
			runtime.Gosched()
		}
		stored, err := client.Do(ctx0, client.B().Get().Key(key).Build()).AsBytes()
		if err == nil && len(gives) > 0 && len(stored)%8 != 7 {
			t.Fatalf("%q became %q", v, stored)
		}
	})
}

// FuzzRecord opens any text as a record. What opens is what was sealed.
func FuzzRecord(f *testing.F) {
	s, other := redislimit.NewSealer(key, "limit"), redislimit.NewSealer(key, "other")
	for i, network := range []string{"192.0.2.0/24", "2001:db8::/48", "::ffff:192.0.2.1/128", "0.0.0.0/0"} {
		f.Add("name", s.Seal("name", i, netip.MustParsePrefix(network), 1_790_000_000_000_000, int64(i), int64(i)))
	}
	f.Add("name", "")
	f.Add("name", "0001790000000000")
	f.Add("other", other.Seal("other", 0, office, 1, 0, 0))
	f.Fuzz(func(t *testing.T, name, text string) {
		kind, network, at, until, forget, err := s.Open(name, text)
		if err != nil {
			return
		}
		if !network.IsValid() || kind == "" || at < 0 || until < 0 || forget < 0 {
			t.Errorf("%q opens as %q %v %d %d %d", text, kind, network, at, until, forget)
		}
		if _, _, _, _, _, err := s.Open(name+"x", text); err == nil {
			t.Errorf("%q opens under another name", text)
		}
		if _, _, _, _, _, err := other.Open(name, text); err == nil {
			t.Errorf("%q opens with another key", text)
		}
	})
}

// FuzzTaken reads any answer of the engine.
func FuzzTaken(f *testing.F) {
	answer := func(why byte, remaining uint32, start, left uint64) []byte {
		b := binary.BigEndian.AppendUint32([]byte{why}, remaining)
		b = append(b, binary.BigEndian.AppendUint64(nil, start)[1:]...)
		return append(b, binary.BigEndian.AppendUint64(nil, left)[1:]...)
	}
	f.Add(answer(0, 2, 1, 5))
	f.Add(answer(4, 0, 0, 5))
	f.Add(answer(255, 0, 0, 5))
	f.Add(answer(5, 0, 0, 5))
	f.Add(answer(0, 1<<32-1, 1<<56-1, math.MaxInt64/1000))
	f.Add(answer(0, 0, 0, math.MaxInt64/1000+1)) // no Duration is so long
	f.Add(answer(1, 0, 0, 5)[:18])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, start, err := redislimit.Taken(string(b))
		if (err == nil) != (len(b) == 19 && b[0] <= 4 && binary.BigEndian.Uint64(append([]byte{0}, b[12:]...)) <= math.MaxInt64/1000) {
			t.Fatalf("%q: %+v, %v", b, got, err)
		}
		if err != nil {
			return
		}
		if got.Reason == ratelimit.ReasonPenalty {
			got.Reset = got.RetryAfter
		}
		if again := answer(b[0], uint32(got.Remaining), uint64(start), uint64(got.Reset.Microseconds())); (got.Reason == ratelimit.ReasonNone) != (b[0] == 0) || !bytes.Equal(again, b) {
			t.Errorf("%q: %+v from %d", b, got, start)
		}
	})
}
