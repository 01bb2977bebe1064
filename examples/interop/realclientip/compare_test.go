package realclientip_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	peer "github.com/realclientip/realclientip-go"

	"github.com/relayguard/relayguard/ratelimit/clientip"
)

const trusted = "10.0.0.0/8, 127.0.0.0/8, ::1/128, 2001:db8:ff::/48"

// TestCompare gives both libraries the same requests. If the results differ,
// the row has the reason for ours.
func TestCompare(t *testing.T) {
	prefixes, err := clientip.ParsePrefixes(trusted)
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := peer.AddressesAndRangesToIPNets("10.0.0.0/8", "127.0.0.0/8", "::1/128", "2001:db8:ff::/48")
	if err != nil {
		t.Fatal(err)
	}
	byXFF := peer.NewChainStrategy(
		peer.Must(peer.NewRightmostTrustedRangeStrategy("X-Forwarded-For", ranges)),
		peer.Must(peer.NewSingleIPHeaderStrategy("X-Real-IP")),
		peer.RemoteAddrStrategy{})
	byForwarded := peer.NewChainStrategy(
		peer.Must(peer.NewRightmostTrustedRangeStrategy("Forwarded", ranges)),
		peer.RemoteAddrStrategy{})
	hops := func(n int) peer.Strategy {
		return peer.Must(peer.NewRightmostTrustedCountStrategy("X-Forwarded-For", n))
	}
	pairs := map[string]struct {
		ours   *clientip.Resolver
		theirs peer.Strategy
	}{
		"X-Forwarded-For": {clientip.Behind(prefixes...), byXFF},
		"X-Real-IP":       {clientip.Behind(prefixes...), byXFF},
		"Forwarded":       {clientip.Forwarded(prefixes...), byForwarded},
		"Hops(1)":         {clientip.Hops(1), hops(1)},
		"Hops(2)":         {clientip.Hops(2), hops(2)},
	}

	const (
		tooFew    = "fewer addresses than proxies: it came past one of them; theirs has no answer"
		proxy     = "10.0.0.1:40000"
		stranger  = "203.0.113.9:40000"
		noPeer    = "a header counts only from a trusted peer; theirs does not check the peer"
		noZone    = "a zone does not identify a client, and each zone would make another key"
		farthest  = "a request from the trusted network has a client too; theirs ignores the whole list"
		ambiguous = "two values are ambiguous; theirs takes the last"
	)
	for _, row := range []struct {
		peer, name   string
		lines        []string
		ours, theirs string
		why          string
	}{
		{proxy, "X-Forwarded-For", []string{"192.0.2.1"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Forwarded-For", []string{"6.6.6.6, 192.0.2.1"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Forwarded-For", []string{"6.6.6.6, 192.0.2.1, 10.0.0.9"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Forwarded-For", []string{"6.6.6.6", "192.0.2.1"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Forwarded-For", []string{"nonsense, 192.0.2.1"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Forwarded-For", []string{"192.0.2.1:5555"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Forwarded-For", []string{"[2001:db8::1]:5555"}, "2001:db8::1", "2001:db8::1", ""},
		{proxy, "X-Forwarded-For", []string{"[2001:db8::1]"}, "2001:db8::1", "2001:db8::1", ""},
		{proxy, "X-Forwarded-For", []string{"::ffff:192.0.2.1"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Forwarded-For", []string{"192.0.2.1, 2001:db8:ff::7"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Forwarded-For", []string{"0.0.0.0"}, "10.0.0.1", "10.0.0.1", ""},
		{proxy, "X-Forwarded-For", []string{"192.000.002.001"}, "10.0.0.1", "10.0.0.1", ""},
		{proxy, "X-Forwarded-For", nil, "10.0.0.1", "10.0.0.1", ""},
		{proxy, "X-Forwarded-For", []string{"192.0.2.1,"}, "192.0.2.1", "10.0.0.1", "a comma at the end does not hide the client"},
		{proxy, "X-Forwarded-For", []string{"fe80::1%eth0"}, "fe80::1", "fe80::1%eth0", noZone},
		{proxy, "X-Forwarded-For", []string{"10.0.0.7"}, "10.0.0.7", "10.0.0.1", farthest},
		{stranger, "X-Forwarded-For", []string{"192.0.2.1"}, "203.0.113.9", "192.0.2.1", noPeer},
		{stranger, "X-Forwarded-For", nil, "203.0.113.9", "203.0.113.9", ""},

		{proxy, "X-Real-IP", []string{"192.0.2.1"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "X-Real-IP", []string{"6.6.6.6", "192.0.2.1"}, "10.0.0.1", "192.0.2.1", ambiguous},
		{stranger, "X-Real-IP", []string{"192.0.2.1"}, "203.0.113.9", "192.0.2.1", noPeer},

		{proxy, "Forwarded", []string{"for=192.0.2.1;proto=https"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "Forwarded", []string{`For="[2001:db8:cafe::17]:4711"`}, "2001:db8:cafe::17", "2001:db8:cafe::17", ""},
		{proxy, "Forwarded", []string{"for=6.6.6.6, for=192.0.2.1, for=10.0.0.9"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "Forwarded", []string{"for=_hidden"}, "10.0.0.1", "10.0.0.1", ""},
		{proxy, "Forwarded", []string{`by="a,for=6.6.6.6"`}, "10.0.0.1", "10.0.0.1", ""},
		{stranger, "Forwarded", []string{"for=192.0.2.1"}, "203.0.113.9", "192.0.2.1", noPeer},

		{proxy, "Hops(1)", []string{"6.6.6.6, 192.0.2.1"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "Hops(1)", []string{"6.6.6.6, 10.0.0.9"}, "10.0.0.9", "10.0.0.9", ""},
		{proxy, "Hops(1)", []string{"6.6.6.6", "192.0.2.1"}, "192.0.2.1", "192.0.2.1", ""},
		{stranger, "Hops(1)", []string{"6.6.6.6, 192.0.2.1:80"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "Hops(2)", []string{"6.6.6.6, 192.0.2.1, 203.0.113.5"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "Hops(2)", []string{"6.6.6.6, 192.0.2.1", "203.0.113.5"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "Hops(2)", []string{"6.6.6.6, 192.0.2.1, nonsense"}, "192.0.2.1", "192.0.2.1", ""},
		{proxy, "Hops(2)", []string{"192.0.2.1"}, "10.0.0.1", "", tooFew},
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.RemoteAddr = row.peer
		header := row.name
		if strings.HasPrefix(header, "Hops") {
			header = "X-Forwarded-For"
		}
		r.Header[http.CanonicalHeaderKey(header)] = row.lines
		pair := pairs[row.name]
		ours, theirs := pair.ours.Addr(r).String(), pair.theirs.ClientIP(r.Header, r.RemoteAddr)
		if ours != row.ours || theirs != row.theirs {
			t.Errorf("%s: %q from %s: ours %s, theirs %s; want %s and %s", row.name, row.lines, row.peer, ours, theirs, row.ours, row.theirs)
		}
		if (ours == theirs) != (row.why == "") {
			t.Errorf("%s: %q from %s: ours %s, theirs %s: %q explains it?", row.name, row.lines, row.peer, ours, theirs, row.why)
		}
	}
}
