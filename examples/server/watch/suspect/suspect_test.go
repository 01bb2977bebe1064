package suspect_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/server/watch/suspect"
)

var (
	start    = time.Date(2026, 11, 24, 18, 0, 0, 0, time.UTC)
	stranger = netip.MustParseAddr("192.0.2.7")
)

// Each kind is reported once, when its bound is passed and not before, and
// again only after Quiet.
func TestOnce(t *testing.T) {
	for _, row := range []struct {
		kind suspect.Kind
		most int
		do   func(d *suspect.Detector, i int, now time.Time) (suspect.Event, bool)
	}{
		{suspect.KindFailures, 5, func(d *suspect.Detector, _ int, now time.Time) (suspect.Event, bool) { return d.Failed(stranger, now) }},
		{suspect.KindChurn, 30, func(d *suspect.Detector, _ int, now time.Time) (suspect.Event, bool) {
			return d.Ended(stranger, time.Second, now)
		}},
		{suspect.KindOrigins, 5, func(d *suspect.Detector, i int, now time.Time) (suspect.Event, bool) {
			return d.Foreign(stranger, fmt.Sprintf("https://evil%d.example", i), now)
		}},
		{suspect.KindFloods, 0, func(d *suspect.Detector, _ int, now time.Time) (suspect.Event, bool) { return d.Flooded(stranger, now) }},
	} {
		d, now := suspect.New(10), start
		for round := range 3 {
			for i := range 1000 {
				now = now.Add(100 * time.Millisecond)
				e, told := row.do(d, i, now)
				if told != (i == row.most) {
					t.Fatalf("%s, round %d: event %d reported: %v", row.kind, round, i+1, told)
				}
				if told && (e.Kind != row.kind || e.Addr != stranger || e.Count != row.most+1 || e.Within != time.Duration(row.most)*100*time.Millisecond) {
					t.Errorf("%+v", e)
				}
			}
			now = now.Add(suspect.Quiet)
		}
	}
}

func TestNotSuspicious(t *testing.T) {
	for _, row := range []struct {
		why  string
		step time.Duration
		do   func(d *suspect.Detector, i int, now time.Time) bool
	}{
		{"a connection that lasts", time.Millisecond, func(d *suspect.Detector, _ int, now time.Time) bool {
			_, told := d.Ended(stranger, suspect.Short, now)
			return told
		}},
		{"the same foreign page again and again", time.Millisecond, func(d *suspect.Detector, _ int, now time.Time) bool {
			_, told := d.Foreign(stranger, "https://evil.example", now)
			return told
		}},
		{"short connections that are rare", 2100 * time.Millisecond, func(d *suspect.Detector, _ int, now time.Time) bool {
			_, told := d.Ended(stranger, 0, now)
			return told
		}},
		{"failures that are rare", 3 * time.Minute, func(d *suspect.Detector, _ int, now time.Time) bool {
			_, told := d.Failed(stranger, now)
			return told
		}},
		{"failures of many clients", time.Millisecond, func(d *suspect.Detector, i int, now time.Time) bool {
			_, told := d.Failed(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now)
			return told
		}},
	} {
		d, now := suspect.New(10_000), start
		for i := range 2000 {
			now = now.Add(row.step)
			if row.do(d, i, now) {
				t.Errorf("%s is suspicious", row.why)
				break
			}
		}
	}
}

// One subscriber's IPv6 network is one client.
func TestNetworkIsOneClient(t *testing.T) {
	d, told := suspect.New(10), 0
	for i := range 100 {
		addr := netip.MustParsePrefix("2001:db8::/64").Addr().As16()
		addr[15] = byte(i)
		if _, ok := d.Failed(netip.AddrFrom16(addr), start); ok {
			told++
		}
	}
	if told != 1 || d.Len() != 1 {
		t.Errorf("reported %d times, of %d clients", told, d.Len())
	}
}

// FuzzBound compares a small detector with a model that remembers every client.
// The detector never holds more clients than its bound, and never reports a
// client twice within Quiet while it remembers that client.
func FuzzBound(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 250, 251, 252})
	f.Fuzz(func(t *testing.T, steps []byte) {
		const bound = 3
		d, now := suspect.New(bound), start
		type key struct {
			addr netip.Addr
			kind suspect.Kind
		}
		told := map[key]time.Time{}
		var recent []netip.Addr // the latest first
		for i, b := range steps {
			addr := netip.AddrFrom4([4]byte{192, 0, 2, b >> 5})
			now = now.Add(time.Duration(b&7) * time.Second)
			known := false
			for j, a := range recent {
				if a == addr {
					known = true
					recent = append(recent[:j], recent[j+1:]...)
					break
				}
			}
			if !known {
				for _, kind := range suspect.Kinds() {
					delete(told, key{addr, kind}) // the detector may have forgotten the client
				}
			}
			if recent = append([]netip.Addr{addr}, recent...); len(recent) > bound {
				recent = recent[:bound]
			}
			var e suspect.Event
			var ok bool
			switch b >> 3 & 3 {
			case 0:
				e, ok = d.Ended(addr, 0, now)
			case 1:
				e, ok = d.Foreign(addr, fmt.Sprint(i), now)
			case 2:
				e, ok = d.Flooded(addr, now)
			default:
				e, ok = d.Failed(addr, now)
			}
			if d.Len() != len(recent) {
				t.Fatalf("%d clients, want %d", d.Len(), len(recent))
			}
			if !ok {
				continue
			}
			k := key{addr, e.Kind}
			if last, before := told[k]; before && now.Sub(last) < suspect.Quiet {
				t.Fatalf("%v reported twice within %v", k, now.Sub(last))
			}
			told[k] = now
		}
	})
}
