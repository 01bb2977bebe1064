package clientip_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/ratelimit/clientip"
)

// FuzzResolve asserts for any header fields: an untrusted peer has no influence
// on the result; the result is a trusted address only if the list has no other;
// an address that the trusted proxy appended is always found; and after an
// error the result is the address of the peer.
func FuzzResolve(f *testing.F) {
	for _, seed := range []string{
		"", ",", "192.0.2.1", "192.0.2.1,", "10.0.0.1, 192.0.2.1:80", "[2001:db8::1]:443", "unknown", "::ffff:1.2.3.4",
		"for=192.0.2.1", `for="[2001:db8::1]:1";proto=https, for=_x`, `for="`, "fe80::1%eth0", "for=10.0.0.2,for=10.0.0.3",
	} {
		f.Add(seed, seed, true)
		f.Add(seed, "", false)
	}
	resolvers := []*clientip.Resolver{
		clientip.Direct(), clientip.Behind(proxies...), clientip.Forwarded(proxies...), clientip.FromHeader("X-Real-IP", proxies...),
		clientip.Hops(1, proxies...), clientip.FromHeader("CloudFront-Viewer-Address", proxies...),
	}
	stranger, own := netip.MustParseAddr("203.0.113.99"), netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, first, second string, split bool) {
		lines := []string{"X-Forwarded-For: " + first, "Forwarded: " + first, "X-Real-IP: " + second, "X-Forwarded-Proto: " + second, "CloudFront-Viewer-Address: " + first}
		if split {
			lines = append(lines, "X-Forwarded-For: "+second, "Forwarded: "+second)
		}
		for i, c := range resolvers {
			got := c.Resolve(request("203.0.113.99:1", lines...))
			if got.Addr != stranger || got.Source != "peer" || got.Err != nil || c.Scheme(request("203.0.113.99:1", lines...)) != "http" {
				t.Fatalf("resolver %d: %+v from an untrusted peer", i, got)
			}

			got = c.Resolve(request(proxy, lines...))
			switch {
			case !got.Addr.IsValid() || got.Addr.Zone() != "" || got.Addr.Is4In6():
				t.Fatalf("resolver %d: %+v is not in its plain form", i, got)
			case (got.Err != nil || got.Source == "peer") && got.Addr != own:
				t.Fatalf("resolver %d: %+v, but the peer is %v", i, got, own)
			case got.Err != nil && strings.ContainsFunc(got.Err.Error(), func(r rune) bool { return r < ' ' || r > '~' }):
				t.Fatalf("resolver %d: %q", i, got.Err)
			}

			// If there is no error and the result is a trusted address, the
			// list must not hold an untrusted one.
			if i == 1 && got.Err == nil && c.Trusts(got.Addr) {
				for _, line := range lines {
					name, value, _ := strings.Cut(line, ":")
					if name != "X-Forwarded-For" {
						continue
					}
					for item := range strings.SplitSeq(value, ",") {
						if addr, err := netip.ParseAddr(strings.Trim(item, " \t")); err == nil && !addr.Unmap().IsUnspecified() && !c.Trusts(addr) {
							t.Fatalf("answer %v, although %v was there", got.Addr, addr)
						}
					}
				}
			}

			// A second field never matters if the first one holds an address.
			if i == 1 && got.Err == nil && got.Source == "x-real-ip" && strings.Trim(first, ", \t") != "" {
				t.Fatalf("X-Real-IP although X-Forwarded-For was there: %+v", got)
			}

			appended := request(proxy, append(lines, "X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1")...)
			want := "192.0.2.1"
			if i == 0 {
				want = own.String()
			}
			if got := c.Resolve(appended); i != 3 && i != 5 && got.Addr.String() != want {
				t.Fatalf("resolver %d: %+v displaced what the proxy appended", i, got)
			}
		}
	})
}

// FuzzParsePrefixes asserts that the printed form of an accepted list is
// accepted again with an equal result, and that no accepted list trusts all
// addresses.
func FuzzParsePrefixes(f *testing.F) {
	for _, seed := range []string{"", "none", "loopback,private", "10.0.0.1/8", "::ffff:1.2.3.4", "0.0.0.0/0", "fe80::1%x",
		"10.0.0.0/8 192.168.0.0/16", "# a\n192.0.2.1 # b\r\n::1", `{"addresses":["10.0.0.0/8"],"ipv6_addresses":["2001:db8::/32","private"]}`, "{", "none # x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		prefixes, err := clientip.ParsePrefixes(s)
		if err != nil {
			if prefixes != nil {
				t.Fatalf("%q: both %v and %v", s, prefixes, err)
			}
			return
		}
		var items []string
		for _, p := range prefixes {
			if !p.IsValid() || p.Bits() == 0 || p != p.Masked() || p.Addr().Is4In6() {
				t.Fatalf("%q: %v", s, p)
			}
			items = append(items, p.String())
		}
		again, err := clientip.ParsePrefixes(strings.Join(items, ","))
		if err != nil || len(again) != len(prefixes) {
			t.Fatalf("%q: %v, then %v, %v", s, prefixes, again, err)
		}
	})
}
