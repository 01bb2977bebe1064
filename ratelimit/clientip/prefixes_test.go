package clientip_test

import (
	"errors"
	"fmt"
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
		{"10.0.0.0/8 192.168.0.0/16", []clientip.Reason{clientip.ReasonNotAPrefix}},
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
		{"10.0.0.0/8 192.168.0.0/16", "commas"},
		{"10.0.0.0/8;192.168.0.0/16", "commas"},
		{"loopback private", "commas"},
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
