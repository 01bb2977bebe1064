package ratelimit_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// forms are the IPv6 addresses that stand for an IPv4 address, each for
// 192.0.2.1, and for the next client, 198.51.100.7.
var forms = []struct{ first, second, why string }{
	{"::ffff:192.0.2.1", "::ffff:198.51.100.7", "IPv4-mapped (RFC 4291, 2.5.5.2)"},
	{"::192.0.2.1", "::198.51.100.7", "IPv4-compatible (RFC 4291, 2.5.5.1)"},
	{"::ffff:0:192.0.2.1", "::ffff:0:198.51.100.7", "SIIT (RFC 2765)"},
	{"64:ff9b::192.0.2.1", "64:ff9b::198.51.100.7", "NAT64, well-known prefix (RFC 6052, 2.1)"},
	{"64:ff9b:1:c000:2:100::", "64:ff9b:1:c633:64:700::", "NAT64, local prefix of 48 bits (RFC 8215; RFC 6052, 2.4)"},
	{"64:ff9b:1:abc0:0:201::", "64:ff9b:1:abc6:33:6407::", "local prefix of 56 bits"},
	{"64:ff9b:1:abcd:c0:2:100:0", "64:ff9b:1:abcd:c6:3364:700:0", "local prefix of 64 bits"},
	{"64:ff9b:1:fffe::192.0.2.1", "64:ff9b:1:fffe::198.51.100.7", "local prefix of 96 bits"},
	{"64:ff9b:1::192.0.2.1", "64:ff9b:1::198.51.100.7", "the first of them"},
	{"2002:c000:201::1", "2002:c633:6407::1", "6to4 (RFC 3056)"},
	{"2002:c000:201:ffff:a:b:c:d", "2002:c633:6407:1::", "the last network of the same 6to4 site"},
	{"2001:0:53aa:64c:0:f227:3fff:fdfe", "2001:0:53aa:64c:0:f227:39cc:9bf8", "Teredo (RFC 4380)"},
	{"2001:0:1:2:8000:1:3fff:fdfe%eth0", "2001:0:1:2:8000:1:39cc:9bf8", "Teredo by another server, with a zone"},
}

// TestEmbedded expects one client for all forms of an IPv4 address, whatever
// asks: behind a translator, one client is not all of IPv4; with a 6to4
// network, one client is not 65,536 of them.
func TestEmbedded(t *testing.T) {
	for _, row := range forms {
		first, second := netip.MustParseAddr(row.first), netip.MustParseAddr(row.second)
		if a, b := ratelimit.Fold(first), ratelimit.Fold(second); a != ratelimit.Fold(alice) || b != ratelimit.Fold(bob) {
			t.Errorf("%s: clients %v and %v", row.why, a, b)
		}
		l := newLimiter(t, ratelimit.Config{Limit: 1, Penalty: ratelimit.Penalty{Failures: 1}})
		admit(l, alice, start, 1)
		if _, d := l.AdmitAt(first, start); d.Reason != ratelimit.ReasonLimit {
			t.Errorf("%s: is a client of its own: %+v", row.why, d)
		}
		if _, d := l.AdmitAt(second, start); !d.Allowed {
			t.Errorf("%s: shares the place of another: %+v", row.why, d)
		}
		l.FailAt(first, start)
		if _, blocked := l.BlockedAt(alice, start); !blocked {
			t.Errorf("%s: the penalty is another client's", row.why)
		}
		if !l.Unblock(netip.PrefixFrom(first.WithZone(""), 128)) {
			t.Errorf("%s: the penalty cannot be lifted by this form", row.why)
		}

		// Blocks, in either form against either form.
		for _, network := range []netip.Prefix{netip.PrefixFrom(first.WithZone(""), 128), netip.MustParsePrefix("192.0.2.0/24")} {
			for _, addr := range []netip.Addr{first, alice} {
				l.BlockAt(network, time.Time{}, start)
				if _, d := l.AdmitAt(addr, start); d.Reason != ratelimit.ReasonBlocked {
					t.Errorf("%s: %v gets around the block of %v: %+v", row.why, addr, network, d)
				}
				if _, blocked := l.BlockedAt(second, start); blocked {
					t.Errorf("%s: the block of %v holds another", row.why, network)
				}
				if !l.Unblock(network) {
					t.Errorf("%s: %v was not blocked", row.why, network)
				}
			}
		}

		// Crowded, it shares the bucket of the IPv4 network.
		crowded := newLimiter(t, ratelimit.Config{MaxKeys: 1})
		admit(crowded, bob, start, 1)
		if _, d := crowded.AdmitAt(first, start); d.Client.String() != "192.0.2.0/24" {
			t.Errorf("%s: coarse client %v", row.why, d.Client)
		}
	}
}

// TestNotEmbedded uses addresses that only look as if they stood for one.
func TestNotEmbedded(t *testing.T) {
	for _, row := range []struct{ addr, want, why string }{
		{"::1", "::/64", "loopback"},
		{"::", "::/64", "unspecified"},
		{"::0.1.2.3", "::/64", "0.0.0.0/8 is no host"},
		{"2001:db8::5efe:192.0.2.1", "2001:db8::/64", "ISATAP: the owner of a /64 may choose any IPv4 address"},
		{"2001:db8::200:5efe:192.0.2.1", "2001:db8::/64", "ISATAP, global"},
		{"fe80::5efe:192.0.2.1%eth0", "fe80::/64", "ISATAP on the link"},
		{"2001:db8::192.0.2.1", "2001:db8::/64", "an address that is written like one"},
		{"2001:1:0:0:0:0:3fff:fdfe", "2001:1::/64", "next to Teredo"},
		{"2003:c000:201::1", "2003:c000:201::/64", "next to 6to4"},
		{"64:ff9b:2::192.0.2.1", "64:ff9b:2::/64", "next to NAT64"},
		{"64:ff9b::1:192.0.2.1", "64:ff9b::/64", "the well-known prefix has 96 bits"},
		{"::fffe:192.0.2.1", "::/64", "next to mapped"},
		{"::ffff:1:192.0.2.1", "::/64", "next to SIIT"},
	} {
		if got := ratelimit.Fold(netip.MustParseAddr(row.addr)).String(); got != row.want {
			t.Errorf("Fold(%s) = %s, want %s: %s", row.addr, got, row.want, row.why)
		}
	}
}

// TestEmbeddedBlocks blocks networks of such addresses.
func TestEmbeddedBlocks(t *testing.T) {
	for _, row := range []struct {
		network, addr string
		blocked       bool
		why           string
	}{
		{"64:ff9b::192.0.2.0/120", "192.0.2.1", true, "a network of NAT64 is an IPv4 network"},
		{"::ffff:0:192.0.2.0/120", "64:ff9b::192.0.2.1", true, "whichever form"},
		{"2002:c000:200::/40", "192.0.2.1", true, "6to4 has the network in front"},
		{"2002:c000:200::/40", "198.51.100.7", false, "and no other"},
		{"2002:c000:201:7::/64", "2002:c000:201:8::1", true, "a site of 6to4 is one client"},
		{"64:ff9b::/96", "64:ff9b::192.0.2.1", true, "all that comes through NAT64"},
		{"64:ff9b::/96", "192.0.2.1", false, "is not all of IPv4"},
		{"2002::/16", "2002:c000:201::1", true, "all of 6to4"},
		{"2002::/16", "192.0.2.1", false, "is not all of IPv4"},
		{"2001::/32", "2001:0:53aa:64c:0:f227:3fff:fdfe", true, "all of Teredo"},
		{"2001::/32", "192.0.2.1", false, "is not all of IPv4"},
		{"::/0", "2002:c000:201::1", true, "all of IPv6"},
		{"::/0", "192.0.2.1", false, "is not IPv4"},
		{"::/0", "::ffff:192.0.2.1", false, "nor is a mapped address IPv6"},
		{"::/96", "::1", true, "an IPv6 network that holds more than IPv4 addresses"},
		{"0.0.0.0/0", "2002:c000:201::1", true, "all of IPv4, in every form"},
	} {
		for _, until := range []time.Time{{}, start.Add(time.Hour)} {
			l := newLimiter(t, ratelimit.Config{})
			network := netip.MustParsePrefix(row.network)
			l.BlockAt(network, until, start)
			if _, listed := l.BlocksAt(start)[ratelimit.FoldPrefix(network)]; !listed {
				t.Errorf("%s is not listed as %s", row.network, ratelimit.FoldPrefix(network))
			}
			if _, d := l.AdmitAt(netip.MustParseAddr(row.addr), start); d.Allowed == row.blocked {
				t.Errorf("%s blocked: %s allowed %v: %s", row.network, row.addr, d.Allowed, row.why)
			}
			if !l.Unblock(network) {
				t.Errorf("%s was not blocked", row.network)
			}
		}
	}
	// Of two blocks, the one that ends last counts, whichever form it has.
	for _, networks := range [][2]string{{"2002::/16", "192.0.2.1/32"}, {"192.0.2.1/32", "2002::/16"}} {
		l := newLimiter(t, ratelimit.Config{})
		l.BlockAt(netip.MustParsePrefix(networks[0]), start.Add(time.Minute), start)
		for _, want := range []time.Time{start.Add(time.Hour), {}} {
			l.BlockAt(netip.MustParsePrefix(networks[1]), want, start)
			if until, _ := l.BlockedAt(netip.MustParseAddr("2002:c000:201::1"), start); !until.Equal(want) {
				t.Errorf("%v: blocked until %v, want %v", networks, until, want)
			}
		}
	}
}
