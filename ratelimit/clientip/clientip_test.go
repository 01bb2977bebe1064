package clientip_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

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
	source  clientip.Source
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
	peer = clientip.SourcePeer
	xff  = clientip.SourceXForwardedFor
	xri  = clientip.SourceXRealIP
	fwd  = clientip.SourceForwarded
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
		{proxy, []string{"X-Forwarded-For: 10.0.0.9", "X-Real-IP: 192.0.2.1"}, "192.0.2.1", xri, "", "rather than a trusted address"},
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
	})
}

func TestFromHeader(t *testing.T) {
	const source clientip.Source = "cf-connecting-ip"
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
