package clientip_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/ratelimit/clientip"
)

// proxies are the trusted networks of most tests: this machine, and the network
// of a load balancer in IPv4 and IPv6.
var proxies = append(clientip.Loopback(),
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ff::/48"))

const proxy = "10.0.0.1:40000"

// request returns a request from the given peer, with header fields as "Name:
// value" lines.
func request(peer string, lines ...string) *http.Request {
	r := httptest.NewRequest("GET", "/ws", nil)
	r.RemoteAddr = peer
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		r.Header.Add(name, strings.TrimPrefix(value, " "))
	}
	return r
}

type row struct {
	peer    string
	headers []string
	want    string
	source  string
	reason  clientip.Reason
	why     string
}

func check(t *testing.T, c *clientip.Resolver, rows []row) {
	t.Helper()
	for _, row := range rows {
		got := c.Resolve(request(row.peer, row.headers...))
		var reason clientip.Reason
		var e *clientip.Error
		if errors.As(got.Err, &e) {
			reason = e.Reason
		}
		if got.Addr.String() != row.want || got.Source != row.source || reason != row.reason {
			t.Errorf("%s: %q from %s:\n got %v from %s (%v)\nwant %s from %s (%s)",
				row.why, row.headers, row.peer, got.Addr, got.Source, got.Err, row.want, row.source, row.reason)
		}
	}
}

const (
	peer = "peer"
	xff  = "x-forwarded-for"
	xri  = "x-real-ip"
	fwd  = "forwarded"
)

func TestDirect(t *testing.T) {
	rows := []row{
		{"192.0.2.1:1234", nil, "192.0.2.1", peer, "", "the peer, without its port"},
		{"192.0.2.1:1234", []string{"X-Forwarded-For: 1.1.1.1", "X-Real-IP: 1.1.1.1", "Forwarded: for=1.1.1.1"},
			"192.0.2.1", peer, "", "no header counts"},
		{"[::ffff:192.0.2.1]:1", nil, "192.0.2.1", peer, "", "v4-mapped, as a dual-stack listener has it"},
		{"[fe80::1%eth0]:1", nil, "fe80::1", peer, "", "the zone is dropped"},
		{"@", nil, "invalid IP", peer, clientip.ReasonNoAddress, "a unix socket"},
		{"", nil, "invalid IP", peer, clientip.ReasonNoAddress, "nothing at all"},
		{"192.0.2.1", nil, "invalid IP", peer, clientip.ReasonNoAddress, "no port: middleware has changed RemoteAddr"},
	}
	check(t, clientip.Direct(), rows)
	check(t, new(clientip.Resolver), rows)
	check(t, clientip.Behind(), rows)
	check(t, clientip.Behind(netip.Prefix{}), rows)
	check(t, clientip.Forwarded(), rows)
}

func TestBehind(t *testing.T) {
	check(t, clientip.Behind(proxies...), []row{
		{proxy, []string{"X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", xff, "", "one proxy"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1, 10.0.0.9, 10.0.0.8"}, "192.0.2.1", xff, "", "three proxies"},
		{proxy, []string{"X-Forwarded-For: 6.6.6.6, 192.0.2.1"}, "192.0.2.1", xff, "", "the client's own claim is on the left"},
		{proxy, []string{"X-Forwarded-For: 10.0.0.2, 192.0.2.1, 10.0.0.9"}, "192.0.2.1", xff, "", "a claim to be a proxy"},
		{proxy, []string{"X-Forwarded-For: <script>, 192.0.2.1"}, "192.0.2.1", xff, "", "the client's part is not read"},

		{proxy, []string{"X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", xff, "", "several lines are one list"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.0.0.9"}, "192.0.2.1", xff, "", "the walk goes on in the line before"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1,"}, "192.0.2.1", xff, "", "a comma at the end"},
		{proxy, []string{"X-Forwarded-For: ,, 192.0.2.1 ,\t, "}, "192.0.2.1", xff, "", "empty items (RFC 9110, 5.6.1)"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For:"}, "192.0.2.1", xff, "", "an empty line"},

		{proxy, []string{"X-Forwarded-For: 192.0.2.1:5555"}, "192.0.2.1", xff, "", "with a port, as Azure sends it"},
		{proxy, []string{"X-Forwarded-For: [2001:db8::1]:5555"}, "2001:db8::1", xff, "", "IPv6 with a port"},
		{proxy, []string{"X-Forwarded-For: [2001:db8::1]"}, "2001:db8::1", xff, "", "IPv6 in brackets"},
		{proxy, []string{"X-Forwarded-For: 2001:db8::1"}, "2001:db8::1", xff, "", "IPv6 bare"},
		{proxy, []string{"X-Forwarded-For: fe80::1%eth0"}, "fe80::1", xff, "", "a zone is dropped"},
		{proxy, []string{"X-Forwarded-For: ::ffff:192.0.2.1"}, "192.0.2.1", xff, "", "v4-mapped"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1, ::ffff:10.0.0.9"}, "192.0.2.1", xff, "", "a v4-mapped proxy is trusted like its IPv4"},
		{"[::ffff:10.0.0.1]:1", []string{"X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", xff, "", "as peer too"},
		{"[2001:db8:ff::1]:1", []string{"X-Forwarded-For: 192.0.2.1, 2001:db8:ff:1::2"}, "192.0.2.1", xff, "", "IPv6 proxies"},
		{"127.0.0.1:1", []string{"X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", xff, "", "a proxy on this machine"},

		{"6.6.6.6:1", []string{"X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.1"}, "6.6.6.6", peer, "", "the peer is not trusted"},
		{"[::ffff:6.6.6.6]:1", []string{"X-Forwarded-For: 10.0.0.1"}, "6.6.6.6", peer, "", "nor is an IPv4-mapped one"},
		{"@", []string{"X-Forwarded-For: 192.0.2.1"}, "invalid IP", peer, clientip.ReasonNoAddress, "a unix socket is trusted only by TrustUnix"},

		{proxy, []string{"X-Forwarded-For: unknown"}, "10.0.0.1", peer, clientip.ReasonObfuscated, "the proxy does not say"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1, nonsense"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "garbage where a proxy should have written"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1 10.0.0.9"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "no comma"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1:99999"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "no such port"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1:"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "a port is missing"},
		{proxy, []string{"X-Forwarded-For: 192.000.002.001"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "leading zeros: octal to some"},
		{proxy, []string{"X-Forwarded-For: 3221225985"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "an address as one number"},
		{proxy, []string{"X-Forwarded-For: [192.0.2.1]"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "brackets are for IPv6"},
		{proxy, []string{"X-Forwarded-For: [2001:db8::1"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "half a bracket"},
		{proxy, []string{"X-Forwarded-For: [2001:db8::1]x"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "junk behind the bracket"},
		{proxy, []string{"X-Forwarded-For: 0.0.0.0"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "the unspecified address"},
		{proxy, []string{"X-Forwarded-For: ::ffff:0.0.0.0"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "the unspecified address, mapped"},
		{proxy, []string{"X-Forwarded-For: \"192.0.2.1\""}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "quoted"},

		{proxy, nil, "10.0.0.1", peer, "", "a proxy's own request, like a health check"},
		{proxy, []string{"X-Forwarded-For: "}, "10.0.0.1", peer, "", "empty is absent"},
		{proxy, []string{"X-Forwarded-For: 10.0.0.7, 10.0.0.9"}, "10.0.0.7", xff, "", "nothing but trusted: the farthest"},
		{proxy, []string{"X-Forwarded-For: 127.0.0.1"}, "127.0.0.1", xff, "", "nothing but trusted"},

		{proxy, []string{"X-Real-IP: 192.0.2.1"}, "192.0.2.1", xri, "", "without X-Forwarded-For"},
		{proxy, []string{"X-Forwarded-For: ,", "X-Real-IP: 2001:db8::1"}, "2001:db8::1", xri, "", "with an empty one"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.2"}, "192.0.2.1", xff, "", "X-Forwarded-For goes first"},
		{proxy, []string{"X-Forwarded-For: 10.0.0.9", "X-Real-IP: 192.0.2.1"}, "10.0.0.9", xff, "", "SNAT in front: the client wrote X-Real-IP"},
		{proxy, []string{"X-Forwarded-For: 10.0.0.7, 10.0.0.9", "X-Real-IP: 192.0.2.1"}, "10.0.0.7", xff, "", "likewise, with two proxies"},
		{proxy, []string{"X-Forwarded-For: 10.0.0.9", "X-Real-IP: nonsense"}, "10.0.0.9", xff, "", "nor does garbage in it matter"},
		{proxy, []string{"X-Forwarded-For: 127.0.0.1", "X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.1"}, "127.0.0.1", xff, "", "whichever address is trusted"},
		{proxy, []string{"X-Forwarded-For: 10.0.0.9", "X-Real-IP: 10.0.0.8"}, "10.0.0.9", xff, "", "both trusted"},
		{proxy, []string{"X-Real-IP: 10.0.0.8"}, "10.0.0.8", xri, "", "a client within the trusted network"},
		{proxy, []string{"X-Forwarded-For: nonsense", "X-Real-IP: 192.0.2.1"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "no second try after garbage"},
		{proxy, []string{"X-Real-IP: 192.0.2.1", "X-Real-IP: 192.0.2.2"}, "10.0.0.1", peer, clientip.ReasonAmbiguous, "which of the two?"},
		{proxy, []string{"X-Real-IP: 192.0.2.1, 192.0.2.2"}, "10.0.0.1", peer, clientip.ReasonAmbiguous, "which of the two?"},
		{proxy, []string{"X-Real-IP: nonsense"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "garbage"},
		{proxy, []string{"Forwarded: for=192.0.2.1"}, "10.0.0.1", peer, "", "another header altogether"},
	})
}

func TestForwarded(t *testing.T) {
	check(t, clientip.Forwarded(proxies...), []row{
		{proxy, []string{"Forwarded: for=192.0.2.1"}, "192.0.2.1", fwd, "", "the simplest"},
		{proxy, []string{"Forwarded: FOR=192.0.2.1;Proto=https;by=10.0.0.1"}, "192.0.2.1", fwd, "", "names are case-insensitive"},
		{proxy, []string{`Forwarded: For="[2001:db8:cafe::17]:4711"`}, "2001:db8:cafe::17", fwd, "", "the RFC's own example"},
		{proxy, []string{`Forwarded: for="192.0.2.1:_port"`}, "192.0.2.1", fwd, "", "an obfuscated port"},
		{proxy, []string{`Forwarded: for=[2001:db8::1]`}, "2001:db8::1", fwd, "", "without the quotes that it needs"},
		{proxy, []string{`Forwarded: for="\1\9\2.0.2.1"`}, "192.0.2.1", fwd, "", "quoted pairs"},
		{proxy, []string{"Forwarded: for=6.6.6.6, for=192.0.2.1;by=x , for=10.0.0.9"}, "192.0.2.1", fwd, "", "right-most untrusted"},
		{proxy, []string{"Forwarded: for=192.0.2.1", "Forwarded: for=10.0.0.9"}, "192.0.2.1", fwd, "", "several lines"},
		{proxy, []string{"Forwarded: , for=192.0.2.1 ;; , "}, "192.0.2.1", fwd, "", "empty items and pairs"},
		{proxy, []string{"Forwarded: for=10.0.0.7, for=10.0.0.9"}, "10.0.0.7", fwd, "", "nothing but trusted: the farthest"},
		{proxy, []string{"Forwarded: for=unknown"}, "10.0.0.1", peer, clientip.ReasonObfuscated, "section 6.2"},
		{proxy, []string{"Forwarded: for=_hidden, for=10.0.0.9"}, "10.0.0.1", peer, clientip.ReasonObfuscated, "section 6.3"},
		{proxy, []string{"Forwarded: for=_hidden, for=192.0.2.1"}, "192.0.2.1", fwd, "", "obfuscated beyond the client"},
		{proxy, []string{"Forwarded: for=192.0.2.1, proto=https"}, "10.0.0.1", peer, clientip.ReasonObfuscated, "a proxy that does not say for whom"},
		{proxy, []string{"Forwarded: for=6.6.6.6;for=192.0.2.1"}, "10.0.0.1", peer, clientip.ReasonMalformed, "twice in one element"},
		{proxy, []string{`Forwarded: for="x, for=192.0.2.1`}, "10.0.0.1", peer, clientip.ReasonMalformed, "an open quote swallows what the proxy appended"},
		{proxy, []string{`Forwarded: for="192.0.2.1\`}, "10.0.0.1", peer, clientip.ReasonMalformed, "ends in a quoted pair"},
		{proxy, []string{`Forwarded: for="192.0.2.1"x`}, "10.0.0.1", peer, clientip.ReasonMalformed, "junk behind the quote"},
		{proxy, []string{"Forwarded: for"}, "10.0.0.1", peer, clientip.ReasonMalformed, "no value"},
		{proxy, []string{"Forwarded: for="}, "10.0.0.1", peer, clientip.ReasonMalformed, "an empty value"},
		{proxy, []string{"Forwarded: f r=192.0.2.1"}, "10.0.0.1", peer, clientip.ReasonMalformed, "no token"},
		{proxy, []string{"Forwarded: for=nonsense"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "garbage"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1"}, "10.0.0.1", peer, "", "another header altogether"},
		{"6.6.6.6:1", []string{"Forwarded: for=192.0.2.1"}, "6.6.6.6", peer, "", "the peer is not trusted"},
		{proxy, []string{"Forwarded: " + pairs(15) + "for=192.0.2.1"}, "192.0.2.1", fwd, "", "sixteen parameters"},
		{proxy, []string{"Forwarded: " + pairs(17) + "for=6.6.6.6, for=192.0.2.1"}, "10.0.0.1", peer, clientip.ReasonMalformed,
			"more than any proxy writes: to compare each with each would take minutes for a megabyte"},
	})
}

// pairs returns n parameters of an element of Forwarded.
func pairs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "ext%d=1;", i)
	}
	return b.String()
}

// TestHops counts addresses from the right. Which of them are trusted does not
// matter, so SNAT in front gives a client no choice.
func TestHops(t *testing.T) {
	one := []row{
		{proxy, []string{"X-Forwarded-For: 6.6.6.6, 10.0.0.9"}, "10.0.0.9", xff, "", "SNAT in front: not what the client wrote"},
		{proxy, []string{"X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", xff, "", "several lines are one list"},
		{proxy, []string{"X-Forwarded-For: 6.6.6.6, 192.0.2.1 ,, "}, "192.0.2.1", xff, "", "empty items do not count"},
		{proxy, []string{"X-Forwarded-For: nonsense, 192.0.2.1:80"}, "192.0.2.1", xff, "", "what is beyond is not read"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1, nonsense"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "garbage in its place"},
		{proxy, []string{"X-Forwarded-For: unknown"}, "10.0.0.1", peer, clientip.ReasonObfuscated, "the proxy does not say"},
		{proxy, nil, "10.0.0.1", peer, "", "a proxy's own request"},
		{proxy, []string{"X-Forwarded-For: ,"}, "10.0.0.1", peer, "", "an empty list"},
		{proxy, []string{"X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.1"}, "10.0.0.1", peer, "", "no second header"},
	}
	check(t, clientip.Hops(1), one)
	check(t, clientip.Hops(1, proxies...), one)
	check(t, clientip.Hops(1), []row{
		{"192.0.2.200:1", []string{"X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", xff, "", "without networks, every peer is believed"},
		{"@", []string{"X-Forwarded-For: 192.0.2.1"}, "invalid IP", peer, clientip.ReasonNoAddress, "but a unix socket only by TrustUnix"},
	})
	check(t, clientip.Hops(2, proxies...), []row{
		{proxy, []string{"X-Forwarded-For: 6.6.6.6, 192.0.2.1, 203.0.113.9"}, "192.0.2.1", xff, "", "the second from the right"},
		{proxy, []string{"X-Forwarded-For: 6.6.6.6, 192.0.2.1", "X-Forwarded-For: 203.0.113.9"}, "192.0.2.1", xff, "", "in the line before"},
		{proxy, []string{"X-Forwarded-For: 6.6.6.6, 192.0.2.1, unknown"}, "192.0.2.1", xff, "", "the proxies' own addresses do not matter"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1"}, "10.0.0.1", peer, clientip.ReasonTooFew, "it came past one of the proxies"},
		{"6.6.6.6:1", []string{"X-Forwarded-For: 192.0.2.1, 203.0.113.9"}, "6.6.6.6", peer, "", "the peer is not trusted"},
	})
	for _, n := range []int{0, -1} {
		check(t, clientip.Hops(n, proxies...), []row{{proxy, []string{"X-Forwarded-For: 192.0.2.1"}, "10.0.0.1", peer, "", "no proxy at all"}})
	}
	if got := clientip.Hops(1).Scheme(request("192.0.2.200:1", "X-Forwarded-Proto: https")); got != "https" {
		t.Errorf("Scheme of a believed peer: %s", got)
	}
	if got := clientip.Hops(1, proxies...).Scheme(request("192.0.2.200:1", "X-Forwarded-Proto: https")); got != "http" {
		t.Errorf("Scheme of a stranger: %s", got)
	}
}

// TestEmbedded trusts IPv4 networks, and looks at IPv6 addresses that stand for
// their addresses.
func TestEmbedded(t *testing.T) {
	for _, test := range []struct {
		trusted, addr string
		want          bool
		why           string
	}{
		{"10.0.0.0/8", "::ffff:10.0.0.1", true, "IPv4-mapped"},
		{"10.0.0.0/8", "::ffff:0:10.0.0.1", true, "SIIT"},
		{"10.0.0.0/8", "64:ff9b::10.0.0.1", true, "NAT64"},
		{"10.0.0.0/8", "64:ff9b:1::10.0.0.1", true, "NAT64 with the local prefix"},
		{"10.0.0.0/8", "64:ff9b:1:a00:0:100::", true, "in its short form"},
		{"10.0.0.0/8", "64:ff9b::192.0.2.1", false, "another network"},
		{"10.0.0.0/8", "2002:a00:1::1", false, "6to4: anyone may announce it"},
		{"10.0.0.0/8", "::10.0.0.1", false, "IPv4-compatible"},
		{"10.0.0.0/8", "2001:0:1:2:0:1:f5ff:fffe", false, "Teredo"},
		{"10.0.0.0/8", "2001:db8::5efe:10.0.0.1", false, "ISATAP"},
		{"127.0.0.0/8", "::ffff:127.0.0.1", true, "this machine, on a dual-stack listener"},
		{"127.0.0.0/8", "64:ff9b::127.0.0.1", false, "is not this machine"},
		{"127.0.0.0/8", "::ffff:0:127.0.0.1", false, "nor is this"},
		{"127.0.0.0/8", "::127.0.0.1", false, "nor is this"},
		{"64:ff9b::10.0.0.0/104", "64:ff9b::10.0.0.1", true, "as written"},
		{"64:ff9b::10.0.0.0/104", "10.0.0.1", true, "a network of NAT64 is an IPv4 network"},
		{"::ffff:0:10.0.0.1", "10.0.0.1", true, "a single address"},
		{"64:ff9b::127.0.0.1", "127.0.0.1", false, "but not loopback"},
		{"2002:a00::/24", "2002:a00:1::1", true, "6to4, as written"},
		{"2002:a00::/24", "10.0.0.1", false, "and no more than written"},
	} {
		trusted, err := clientip.ParsePrefixes(test.trusted)
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.MustParseAddr(test.addr)
		c := clientip.Behind(trusted...)
		if got := c.Trusts(addr); got != test.want {
			t.Errorf("%s trusted: %s is %v: %s", test.trusted, test.addr, got, test.why)
		}
		// As a peer, and as a hop in the list.
		want := addr.Unmap().String()
		if test.want {
			want = "192.0.2.1"
		}
		if got := c.Addr(request(netip.AddrPortFrom(addr, 1).String(), "X-Forwarded-For: 192.0.2.1")); got.String() != want {
			t.Errorf("%s trusted: peer %s gives %s, want %s: %s", test.trusted, test.addr, got, want, test.why)
		}
		c = clientip.Behind(append(trusted, netip.MustParsePrefix("203.0.113.1/32"))...)
		if got := c.Addr(request("203.0.113.1:1", "X-Forwarded-For: 192.0.2.1, "+test.addr)); got.String() != want {
			t.Errorf("%s trusted: hop %s gives %s, want %s: %s", test.trusted, test.addr, got, want, test.why)
		}
	}
}

// TestReport expects every failure to be told, thinned, beside the peer that it
// comes from, and nothing else.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct {
			addr   string
			reason clientip.Reason
		}
		var mu sync.Mutex
		calls, sums := 0, map[key]uint64{}
		c := clientip.Behind(proxies...).Report(func(r *http.Request, res clientip.Result, suppressed uint64) {
			mu.Lock()
			defer mu.Unlock()
			var e *clientip.Error
			if !errors.As(res.Err, &e) || r.URL.Path != "/ws" || r.Context() == nil {
				t.Errorf("told of %+v %+v", r, res)
				return
			}
			calls++
			sums[key{res.Addr.String(), e.Reason}] += 1 + suppressed
		})
		ask := func(n int, peer string, lines ...string) {
			for range n {
				before := clientip.Behind(proxies...).Resolve(request(peer, lines...))
				if got := c.Resolve(request(peer, lines...)); got.Addr != before.Addr || got.Source != before.Source || (got.Err == nil) != (before.Err == nil) {
					t.Fatalf("the copy resolves %+v, the original %+v", got, before)
				}
			}
		}
		ask(100, proxy, "X-Forwarded-For: unknown")
		ask(50, "10.0.0.2:1", "X-Forwarded-For: nonsense")
		ask(3, "10.0.0.2:1", "X-Real-IP: 192.0.2.1, 192.0.2.2")
		ask(2, "@")
		ask(100, proxy, "X-Forwarded-For: 192.0.2.1")        // understood
		ask(100, proxy)                                      // absent
		ask(100, "6.6.6.6:1", "X-Forwarded-For: nonsense")   // a stranger's
		c.Addr(request("10.0.0.3:1", "X-Forwarded-For: [x")) // Addr tells too
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		want := map[key]uint64{
			{"10.0.0.1", clientip.ReasonObfuscated}: 100, {"10.0.0.2", clientip.ReasonNotAnAddress}: 50,
			{"10.0.0.2", clientip.ReasonAmbiguous}: 3, {"invalid IP", clientip.ReasonNoAddress}: 2, {"10.0.0.3", clientip.ReasonNotAnAddress}: 1,
		}
		if !maps.Equal(sums, want) || calls > 15 {
			t.Errorf("%d calls speak of %v, want %v", calls, sums, want)
		}
	})
	// A nil function, and the original, tell no one.
	for _, c := range []*clientip.Resolver{clientip.Behind(proxies...).Report(nil), clientip.Behind(proxies...).Report(nil).TrustUnix()} {
		if got := c.Resolve(request(proxy, "X-Forwarded-For: unknown")); got.Err == nil {
			t.Errorf("%+v", got)
		}
	}
}

func TestCloudFront(t *testing.T) {
	const source string = "cloudfront-viewer-address"
	check(t, clientip.FromHeader("CloudFront-Viewer-Address", proxies...), []row{
		{proxy, []string{"CloudFront-Viewer-Address: 192.0.2.1:46532"}, "192.0.2.1", source, "", "IPv4"},
		{proxy, []string{"CloudFront-Viewer-Address: 2001:db8:0:0:0:0:0:1:46532"}, "2001:db8::1", source, "", "IPv6, without brackets"},
		{proxy, []string{"CloudFront-Viewer-Address: 2001:db8::1:46532"}, "2001:db8::1", source, "", "shortened"},
		{proxy, []string{"CloudFront-Viewer-Address: 2001:db8::1:443"}, "2001:db8::1", source, "", "a port that could be a part of the address"},
		{proxy, []string{"CloudFront-Viewer-Address: 2001:db8:a::1:c:d:e:1024"}, "2001:db8:a:0:1:c:d:e", source, "", "as long as it gets"},
		{proxy, []string{"CloudFront-Viewer-Address: [2001:db8::1]:443"}, "2001:db8::1", source, "", "with brackets, if that ever changes"},
		{proxy, []string{"CloudFront-Viewer-Address: 192.0.2.1"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "no port: not CloudFront's"},
		{proxy, []string{"CloudFront-Viewer-Address: 2001:db8::1:99999"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "no such port"},
		{proxy, []string{"CloudFront-Viewer-Address: 6.6.6.6:1, 192.0.2.1:1"}, "10.0.0.1", peer, clientip.ReasonAmbiguous, "two values"},
		{proxy, []string{"CloudFront-Viewer-Address: :443"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "a port alone"},
		{"6.6.6.6:1", []string{"CloudFront-Viewer-Address: 192.0.2.1:1"}, "6.6.6.6", peer, "", "the peer is not trusted"},
	})
	// Elsewhere, only an address with all eight parts can be told from a port.
	check(t, clientip.Behind(proxies...), []row{
		{proxy, []string{"X-Forwarded-For: 2001:db8:0:0:0:0:0:1:46532"}, "2001:db8::1", xff, "", "eight parts and a port"},
		{proxy, []string{"X-Forwarded-For: 2001:db8::1:443"}, "2001:db8::1:443", xff, "", "an address"},
		{proxy, []string{"X-Forwarded-For: ::2:3:4:5:6:7:8"}, "0:2:3:4:5:6:7:8", xff, "", "an address with as many colons"},
		{proxy, []string{"X-Forwarded-For: 1:2:3:4:5:6:7:8:9:10"}, "10.0.0.1", peer, clientip.ReasonNotAnAddress, "too many parts"},
	})
}

func TestFromHeader(t *testing.T) {
	const source string = "cf-connecting-ip"
	check(t, clientip.FromHeader("CF-Connecting-IP", proxies...), []row{
		{proxy, []string{"Cf-Connecting-Ip: 192.0.2.1"}, "192.0.2.1", source, "", "as sent"},
		{proxy, []string{"CF-CONNECTING-IP: 2001:db8::1"}, "2001:db8::1", source, "", "in any case"},
		{proxy, []string{"CF-Connecting-IP: 10.0.0.7"}, "10.0.0.7", source, "", "a trusted one, where nothing else is there"},
		{proxy, []string{"CF-Connecting-IP: 6.6.6.6", "CF-Connecting-IP: 192.0.2.1"}, "10.0.0.1", peer, clientip.ReasonAmbiguous, "two lines"},
		{proxy, []string{"CF-Connecting-IP: 6.6.6.6, 192.0.2.1"}, "10.0.0.1", peer, clientip.ReasonAmbiguous, "two values"},
		{proxy, []string{"X-Forwarded-For: 192.0.2.1"}, "10.0.0.1", peer, "", "another header altogether"},
		{"6.6.6.6:1", []string{"CF-Connecting-IP: 192.0.2.1"}, "6.6.6.6", peer, "", "the peer is not trusted"},
	})
	check(t, clientip.FromHeader("", proxies...), []row{
		{proxy, []string{"X-Forwarded-For: 192.0.2.1"}, "10.0.0.1", peer, "", "without a name nothing is read"},
	})
}

func TestTrustUnix(t *testing.T) {
	c := clientip.Behind().TrustUnix()
	ctx := func(addr net.Addr) context.Context {
		return context.WithValue(context.Background(), http.LocalAddrContextKey, addr)
	}
	r := request("@", "X-Forwarded-For: 6.6.6.6, 192.0.2.1", "X-Forwarded-Proto: https")
	onUnix := r.WithContext(ctx(&net.UnixAddr{Name: "/run/relay.sock", Net: "unix"}))
	if got := c.Resolve(onUnix); got.Addr.String() != "192.0.2.1" || got.Err != nil || c.Scheme(onUnix) != "https" {
		t.Errorf("on a unix socket: %+v, %s", got, c.Scheme(onUnix))
	}
	if got := c.Resolve(request("@").WithContext(onUnix.Context())); got.Addr.IsValid() || got.Err == nil {
		t.Errorf("without a header: %+v", got)
	}
	for _, other := range []*http.Request{r, r.WithContext(ctx(&net.TCPAddr{}))} {
		if got := c.Resolve(other); got.Addr.IsValid() || c.Scheme(other) != "http" {
			t.Errorf("RemoteAddr looks like one, the listener is none: %+v", got)
		}
	}
	if clientip.Behind(proxies...).Addr(onUnix).IsValid() {
		t.Error("trusted without being asked to")
	}
}

func TestScheme(t *testing.T) {
	for _, test := range []struct {
		resolver *clientip.Resolver
		peer     string
		headers  []string
		tls      bool
		want     string
		why      string
	}{
		{clientip.Direct(), proxy, nil, true, "https", "the connection's own TLS"},
		{clientip.Direct(), proxy, []string{"X-Forwarded-Proto: https"}, false, "http", "no header counts"},
		{clientip.Behind(proxies...), proxy, []string{"X-Forwarded-Proto: https"}, false, "https", "a proxy ended TLS"},
		{clientip.Behind(proxies...), proxy, []string{"X-Forwarded-Proto: HTTPS"}, false, "https", "schemes are case-insensitive"},
		{clientip.Behind(proxies...), proxy, []string{"X-Forwarded-Proto: wss"}, false, "https", "as some proxies call it for WebSockets"},
		{clientip.Behind(proxies...), proxy, []string{"X-Forwarded-Proto: http"}, false, "http", "a proxy without TLS"},
		{clientip.Behind(proxies...), proxy, nil, false, "http", "the proxy does not say"},
		{clientip.Behind(proxies...), proxy, []string{"X-Forwarded-Proto: https, http"}, false, "http", "not all the way"},
		{clientip.Behind(proxies...), proxy, []string{"X-Forwarded-Proto: https", "X-Forwarded-Proto: "}, false, "http", "not all lines"},
		{clientip.Behind(proxies...), "6.6.6.6:1", []string{"X-Forwarded-Proto: https"}, false, "http", "forged"},
		{clientip.Behind(proxies...), "6.6.6.6:1", []string{"X-Forwarded-Proto: http"}, true, "https", "forged the other way"},
		{clientip.Behind(proxies...), proxy, []string{"Forwarded: proto=https"}, false, "http", "another header altogether"},
		{clientip.FromHeader("X", proxies...), proxy, []string{"X-Forwarded-Proto: https"}, false, "https", "as Behind"},
		{clientip.Forwarded(proxies...), proxy, []string{"Forwarded: for=1.1.1.1;proto=https"}, false, "https", "RFC 7239"},
		{clientip.Forwarded(proxies...), proxy, []string{"Forwarded: proto=https, for=1.1.1.1"}, false, "https", "one hop says it"},
		{clientip.Forwarded(proxies...), proxy, []string{"Forwarded: proto=https, proto=http"}, false, "http", "not all the way"},
		{clientip.Forwarded(proxies...), proxy, []string{`Forwarded: proto=https;"`}, false, "http", "malformed"},
		{clientip.Forwarded(proxies...), proxy, []string{"X-Forwarded-Proto: https"}, false, "http", "another header altogether"},
	} {
		r := request(test.peer, test.headers...)
		if test.tls {
			r.TLS = new(tls.ConnectionState)
		}
		if got := test.resolver.Scheme(r); got != test.want {
			t.Errorf("%s: %q from %s: %s, want %s", test.why, test.headers, test.peer, got, test.want)
		}
	}
}

// TestErrorsHideTheValue checks that errors, which are logged, do not repeat
// the value of a header field, which any client may choose.
func TestErrorsHideTheValue(t *testing.T) {
	const secret = "\x1b[31mhunter2"
	for _, c := range []*clientip.Resolver{clientip.Behind(proxies...), clientip.Forwarded(proxies...)} {
		got := c.Resolve(request(proxy, "X-Forwarded-For: "+secret, "Forwarded: "+secret))
		if got.Err == nil || strings.Contains(got.Err.Error(), "hunter2") {
			t.Errorf("%v", got.Err)
		}
	}
}

func TestAllocations(t *testing.T) {
	c := clientip.Behind(proxies...)
	r := request(proxy, "X-Forwarded-For: 6.6.6.6, 2001:db8::1, 10.0.0.9")
	if n := testing.AllocsPerRun(100, func() { c.Addr(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
