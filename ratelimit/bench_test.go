package ratelimit_test

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// address returns the i-th of many addresses. Half of them are IPv6, and they
// are spread over all networks.
func address(i uint64) netip.Addr {
	i *= 0x9e3779b97f4a7c15 // the factor is odd, so no two are equal
	if i&1 == 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(i>>32))
		return netip.AddrFrom4(b)
	}
	b := [16]byte{0: 0x20}
	binary.BigEndian.PutUint64(b[1:], i)
	return netip.AddrFrom16(b)
}

// BenchmarkAdmit opens and ends one connection.
func BenchmarkAdmit(b *testing.B) {
	const million = 1_000_000
	for name, clients := range map[string]uint64{"clients=1": 1, "clients=1000000": million} {
		b.Run(name, func(b *testing.B) {
			l := newLimiter(b, ratelimit.Config{Limit: 1 << 20, MaxAttempts: 1 << 24, Window: time.Hour})
			addrs := make([]netip.Addr, clients)
			for i := range addrs {
				addrs[i] = address(uint64(i))
				l.Admit(ratelimit.Key{Addr: addrs[i]})
			}
			b.ReportAllocs()
			for b.Loop() {
				slot, _ := l.Admit(ratelimit.Key{Addr: addrs[rand.Uint64N(clients)]})
				slot.Release()
			}
		})
	}
}

// BenchmarkAdmitParallel admits the same client on every core. All calls use
// one shard, which is the worst case.
func BenchmarkAdmitParallel(b *testing.B) {
	l := newLimiter(b, ratelimit.Config{Limit: 1 << 24})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			slot, _ := l.Admit(ratelimit.Key{Addr: alice})
			slot.Release()
		}
	})
}

// BenchmarkRefuse measures what a refusal costs the server.
func BenchmarkRefuse(b *testing.B) {
	l := newLimiter(b, ratelimit.Config{Limit: 1, Window: time.Hour})
	l.Admit(ratelimit.Key{Addr: alice})
	b.ReportAllocs()
	for b.Loop() {
		l.Admit(ratelimit.Key{Addr: alice})
	}
}

// BenchmarkLongestCall passes a million clients through three windows, so that
// keys are added, renewed and dropped, and reports the longest call. A call
// holds one lock at a time, so no lock is held longer than that.
//
// On a machine that others use, the clock also measures pauses by other
// processes. They occur at random, while a pause that the package causes, such
// as the growth of a map or the drop of a generation, occurs at the same place
// in every pass. So the benchmark reports three numbers: the longest call; the
// longest time that some group of ten thousand calls reached in every pass; and
// the longest time that it took only to read the clock. Run it with -benchtime
// 10x.
func BenchmarkLongestCall(b *testing.B) {
	const million, part = 1_000_000, 10_000
	var worst, idle time.Duration
	var every [3 * million / part]time.Duration
	for first := true; b.Loop(); first = false {
		l := newLimiter(b, ratelimit.Config{})
		for p := range every {
			var longest time.Duration
			for i := range uint64(part) {
				i += uint64(p) * part
				addr, now := address(i%million), start.Add(time.Duration(i/million)*time.Minute)
				t0 := time.Now()
				slot, _ := l.AdmitAt(addr, now)
				t1 := time.Now()
				slot.Release()
				longest = max(longest, t1.Sub(t0))
				t2 := time.Now()
				idle = max(idle, time.Since(t2))
			}
			worst = max(worst, longest)
			if first || longest < every[p] {
				every[p] = longest
			}
		}
	}
	b.ReportMetric(float64(worst.Microseconds()), "µs-longest")
	b.ReportMetric(float64(slices.Max(every[:]).Microseconds()), "µs-longest-in-every-pass")
	b.ReportMetric(float64(idle.Microseconds()), "µs-longest-idle")
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemory holds the memory to 64 bytes a key, for any number of keys, also
// if all of them return in the next window.
func TestMemory(t *testing.T) {
	sizes := []uint64{50_000, 140_000, 280_000, 1_000_000}
	if testing.Short() {
		sizes = sizes[:2]
	}
	for _, keys := range sizes {
		before := heap()
		l := newLimiter(t, ratelimit.Config{})
		for i := range keys {
			slot, _ := l.AdmitAt(address(i), start)
			slot.Release()
		}
		perKey := float64(heap()-before) / float64(keys)
		if got := l.StatsAt(start).Clients; uint64(got) < keys*99/100 {
			t.Errorf("%d keys known, want %d", got, keys)
		}
		t.Logf("%d keys: %.1f bytes each", keys, perKey)
		if perKey > 64 {
			t.Errorf("%d keys: %.1f bytes each, want at most 64", keys, perKey)
		}
		for i := range keys {
			slot, _ := l.AdmitAt(address(i), start.Add(time.Minute))
			slot.Release()
		}
		perKey = float64(heap()-before) / float64(keys)
		t.Logf("%d keys, twice: %.1f bytes each", keys, perKey)
		if perKey > 64 {
			t.Errorf("%d keys, twice: %.1f bytes each, want at most 64", keys, perKey)
		}
		runtime.KeepAlive(l)
	}
}

// TestShrink lets many keys come once. Later, few of them come back in each
// window. The memory of the others must be free then.
func TestShrink(t *testing.T) {
	before := heap()
	l := newLimiter(t, ratelimit.Config{})
	held, _ := admit(l, alice, start, 1)
	for w, keys := range []uint64{500_000, 3_000, 3_000, 3_000} {
		for i := range keys {
			slot, _ := l.AdmitAt(address(i), start.Add(time.Duration(w)*time.Minute))
			slot.Release()
		}
	}
	if left := int64(heap() - before); left > 1e6 {
		t.Errorf("%d bytes are left for 3,000 keys", left)
	}
	if !held[0].Release() {
		t.Error("the slot is gone")
	}
	runtime.KeepAlive(l)
}

var flood = flag.Uint64("flood", 3_000_000, "distinct addresses in TestFlood")

// TestFlood admits many more addresses than MaxKeys in two windows. Run it with
// -flood 10000000 for more.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("millions of steps")
	}
	before := heap()
	l := newLimiter(t, ratelimit.Config{})
	held, _ := l.AdmitAt(alice, start)
	var most uint64
	step := 2 * time.Minute / time.Duration(*flood)
	for i := range *flood {
		slot, _ := l.AdmitAt(address(i), start.Add(time.Duration(i)*step))
		slot.Release()
		if i%(*flood/5) == 0 {
			most = max(most, heap()-before)
		}
	}
	t.Logf("at most %.1f MB", float64(most)/1e6)
	if most > 128e6 {
		t.Errorf("%d bytes of heap", most)
	}
	end := start.Add(2 * time.Minute)
	if st := l.StatsAt(end); st.Open != 1 || st.Clients > 1_000_000+1_000_000/16 {
		t.Errorf("after the flood: %+v", st)
	}
	if _, d := l.AdmitAt(alice, end); d.Coarse || d.Remaining != 9 {
		t.Errorf("the client with an open connection: %+v", d)
	}
	if !held.Release() {
		t.Error("its slot is gone")
	}
	if st := l.StatsAt(end.Add(2 * time.Minute)); st.Open != 1 || st.Clients != 0 {
		t.Errorf("two windows later: %+v", st)
	}
	if left := heap() - before; int64(left) > 1e6 {
		t.Errorf("%d bytes are left two windows later", left)
	}
	runtime.KeepAlive(l)
}

func TestAdmitAllocates(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 5}})
	l.FailAt(alice, start)
	l.BlockAt(netip.MustParsePrefix("203.0.113.0/24"), time.Time{}, start)
	six := netip.MustParseAddr("2001:db8::1%eth0")
	for _, addr := range []netip.Addr{alice, six, netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("::ffff:192.0.2.77"), netip.MustParseAddr("64:ff9b:1:c000:2:100::"), netip.MustParseAddr("2001:0:53aa:64c:0:f227:3fff:fdfe")} {
		if n := testing.AllocsPerRun(1000, func() {
			slot, _ := l.AdmitAt(addr, start)
			slot.Release()
		}); n != 0 {
			t.Errorf("%s: %v allocations", addr, n)
		}
	}
}
