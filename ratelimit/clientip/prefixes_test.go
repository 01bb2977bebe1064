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
