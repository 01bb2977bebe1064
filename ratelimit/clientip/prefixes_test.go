package clientip_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/ratelimit/clientip"
)

func TestParsePrefixes(t *testing.T) {
	for _, test := range []struct{ in, want, why string }{
		{"", "[]", "no network"},
		{"none", "[]", "no network, by name"},
		{" , ", "[]", "no network"},
		{"loopback", "[127.0.0.0/8 ::1/128]", "a word"},
		{"Private", "[10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7]", "another, in any case"},
		{"10.0.0.0/8, 2001:db8::/32", "[10.0.0.0/8 2001:db8::/32]", "networks"},
		{"192.0.2.1,2001:db8::1,", "[192.0.2.1/32 2001:db8::1/128]", "single addresses, a comma at the end"},
		{"10.1.2.3/8", "[10.0.0.0/8]", "host bits do not matter"},
		{"::ffff:10.0.0.0/104", "[10.0.0.0/8]", "a mapped network matches IPv4"},
		{"loopback,203.0.113.7", "[127.0.0.0/8 ::1/128 203.0.113.7/32]", "both"},
		{"10.0.0.0/8 192.168.0.0/16", "[10.0.0.0/8 192.168.0.0/16]", "a space"},
		{"10.0.0.0/8\r\n192.168.0.0/16\n\n", "[10.0.0.0/8 192.168.0.0/16]", "lines, as on Windows"},
		{"# ours\n10.0.0.1/32, \t2001:db8::/32 # the office\n#192.0.2.1\n", "[10.0.0.1/32 2001:db8::/32]", "comments"},
		{"10.0.0.1#x 10.0.0.2\n10.0.0.3", "[10.0.0.1/32 10.0.0.3/32]", "a comment ends with its line"},
		{"# nothing", "[]", "only a comment"},
		{` {"addresses": ["10.0.0.0/8"]} ` + "\n", "[10.0.0.0/8]", "JSON of one family"},
	} {
		got, err := clientip.ParsePrefixes(test.in)
		if err != nil || fmt.Sprint(got) != test.want {
			t.Errorf("%q: %v, %v, want %s: %s", test.in, got, err, test.want, test.why)
		}
	}
	for _, test := range []struct {
		in   string
		want []clientip.Reason
	}{
		{"localhost", []clientip.Reason{clientip.ReasonNotAPrefix}},
		{"10.0.0.0/33", []clientip.Reason{clientip.ReasonNotAPrefix}},
		{"fe80::1%eth0", []clientip.Reason{clientip.ReasonNotAPrefix}},
		{"10.0.0.0/8;192.168.0.0/16", []clientip.Reason{clientip.ReasonNotAPrefix}},
		{`{"addresses":["10.0.0.0/8","x"],"ipv6_addresses":["::/0"]}`, []clientip.Reason{clientip.ReasonNotAPrefix, clientip.ReasonTrustsAll}},
		{`{"prefixes":[{"ip_prefix":"10.0.0.0/8"}]}`, []clientip.Reason{clientip.ReasonNotAPrefix}}, // another provider's
		{`{"addresses":[]}`, []clientip.Reason{clientip.ReasonNotAPrefix}},
		{`{"addresses":["10.0.0.0/8"]} 10.0.0.0/8`, []clientip.Reason{clientip.ReasonNotAPrefix}},
		{`{"addresses":["10.0.0.0/8", "192.168.0.0/16"`, []clientip.Reason{clientip.ReasonNotAPrefix}}, // cut off
		{"0.0.0.0/0", []clientip.Reason{clientip.ReasonTrustsAll}},
		{"::/0", []clientip.Reason{clientip.ReasonTrustsAll}},
		{"::ffff:0:0/96", []clientip.Reason{clientip.ReasonTrustsAll}},
		{"64:ff9b::/96", []clientip.Reason{clientip.ReasonTrustsAll}},
		{"64:ff9b:1:fffe::/96", []clientip.Reason{clientip.ReasonTrustsAll}},
		{"2002::/16", []clientip.Reason{clientip.ReasonTrustsAll}},
		{"2000::/3", []clientip.Reason{clientip.ReasonTrustsAll}},
		{"none,loopback", []clientip.Reason{clientip.ReasonNoneWithMore}},
		{"x, 0.0.0.0/0, none", []clientip.Reason{clientip.ReasonNotAPrefix, clientip.ReasonTrustsAll, clientip.ReasonNoneWithMore}},
	} {
		got, err := clientip.ParsePrefixes(test.in)
		var reasons []clientip.Reason
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				var p *clientip.PrefixError
				if errors.As(e, &p) && strings.Contains(e.Error(), p.Item) {
					reasons = append(reasons, p.Reason)
				}
			}
		}
		if got != nil || fmt.Sprint(reasons) != fmt.Sprint(test.want) {
			t.Errorf("%q: %v, %v, want %v", test.in, got, err, test.want)
		}
	}
}

// TestPrefixHints holds the messages for what people write into such a list.
// None quotes the item beside what Item says, so that it may be shown where
// values may not.
func TestPrefixHints(t *testing.T) {
	for _, test := range []struct{ item, want string }{
		{"10.0.0.0/8;192.168.0.0/16", "commas"},
		{"10.0.0.0/33", "1 to 32 bits"},
		{"2001:db8::/129", "1 to 128"},
		{"10.0.0.0/", "1 to 32 bits"},
		{"10.0.0.0/255.0.0.0", "the length of the mask"},
		{"10.0.0.1:80", "the port"},
		{"[2001:db8::1]", "the brackets"},
		{"[2001:db8::1]:443", "the port"},
		{"[10.0.0.1]", "the brackets"},
		{"fe80::1%eth0", "the zone"},
		{"fe80::/10%eth0", "the zone"},
		{"10.0.0.*", "a range"},
		{"10.0.0.1-10.0.0.9", "a range"},
		{"https://proxy.example", "the scheme"},
		{"nginx", "not looked up"},
		{"proxy-1.example", "not looked up"},
		{"localhost", "not looked up"},
		{"docker", "not looked up"},
		{"{", "that of Fastly"},
		{"10.0.0", "all parts"},
		{"010.0.0.1", "leading zeros"},
	} {
		for _, list := range []string{test.item, "127.0.0.1, ,loopback," + test.item} {
			_, err := clientip.ParsePrefixes(list)
			var e *clientip.PrefixError
			if !errors.As(err, &e) || e.Reason != clientip.ReasonNotAPrefix || !strings.Contains(e.Hint, test.want) || !strings.HasSuffix(e.Error(), e.Hint) {
				t.Errorf("%q: %v, want a hint with %q", list, err, test.want)
				continue
			}
			if want := strings.Count(list, "loopback,") * 2; e.Item != test.item || e.Index != want {
				t.Errorf("%q: item %d is %q, want %d", list, e.Index, e.Item, want)
			}
		}
	}
}

// TestPublishedLists pastes what CDNs publish, as it was in November 2026.
func TestPublishedLists(t *testing.T) {
	const cloudflare = `173.245.48.0/20
103.21.244.0/22
103.22.200.0/22
103.31.4.0/22
141.101.64.0/18
108.162.192.0/18
190.93.240.0/20
188.114.96.0/20
197.234.240.0/22
198.41.128.0/17
162.158.0.0/15
104.16.0.0/13
104.24.0.0/14
172.64.0.0/13
131.0.72.0/22
2400:cb00::/32
2606:4700::/32
2803:f800::/32
2405:b500::/32
2405:8100::/32
2a06:98c0::/29
2c0f:f248::/32`
	const fastly = `{"addresses":["23.235.32.0/20","43.249.72.0/22","103.244.50.0/24","103.245.222.0/23","103.245.224.0/24",` +
		`"104.156.80.0/20","140.248.64.0/18","140.248.128.0/17","146.75.0.0/17","151.101.0.0/16","157.52.64.0/18",` +
		`"167.82.0.0/17","167.82.128.0/20","167.82.160.0/20","167.82.224.0/20","172.111.64.0/18","185.31.16.0/22",` +
		`"199.27.72.0/21","199.232.0.0/16"],"ipv6_addresses":["2a04:4e40::/32","2a04:4e42::/32"]}`
	for _, test := range []struct {
		list  string
		count int
		in    string
	}{{cloudflare, 22, "2a06:98c7::1"}, {cloudflare, 22, "162.159.255.1"}, {fastly, 21, "151.101.1.1"}, {fastly, 21, "2a04:4e42::1"}} {
		trusted, err := clientip.ParsePrefixes(test.list)
		if err != nil || len(trusted) != test.count {
			t.Errorf("%d networks, %v", len(trusted), err)
		}
		if !clientip.Behind(trusted...).Trusts(netip.MustParseAddr(test.in)) {
			t.Errorf("%s is not trusted", test.in)
		}
	}
}
