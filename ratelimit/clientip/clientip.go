// Package clientip finds the address of the client that sent a request, even if
// the request came through reverse proxies. It believes header fields only if a
// proxy that you trust has sent them, so no client can choose its own address.
//
//	package main
//
//	import (
//		"fmt"
//		"log"
//		"net/http"
//
//		"github.com/relayguard/relayguard/ratelimit/clientip"
//	)
//
//	func main() {
//		resolver := clientip.Behind(clientip.Loopback()...)
//		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
//			fmt.Fprintln(w, resolver.Addr(r))
//		})
//		log.Fatal(http.ListenAndServe("localhost:8080", nil))
//	}
//
// # Trust
//
// Any client can send X-Forwarded-For. So you give the networks of your trusted
// proxies to every [Resolver] except [Direct]. It ignores the header fields of
// a request whose peer, the other end of the TCP connection, is outside of
// these networks. It reads a list of addresses from the right, because each
// proxy appends the address of its own peer, and stops at the first address
// that it does not trust.
//
// A trusted proxy must itself set the header field, or append to it. If it
// passes on the field of the client, the client can choose its address. Test
// your proxy with a forged field.
//
// Nothing between the client and the first proxy may replace the client's
// address by a trusted one (SNAT). The proxy would append this address, the
// resolver would pass it over, and the next address in the list is whatever the
// client wrote. See [Private] for where this happens, and use [Hops] there: it
// counts addresses instead of trusting them.
//
// # Failures
//
// If a resolver cannot understand the header field of a trusted proxy, it fails
// closed: the result is the address of the peer, and Result.Err gives the
// reason. All clients for which this happens count as one client together with
// the proxy, and reach its limits together. So does every client of a proxy
// that does not send the field at all, which is no failure: a proxy may have
// requests of its own, such as health checks. [Resolver.Report] tells of the
// failures. If a limiter refuses an address that [Resolver.Trusts], the clients
// of that proxy have become one: say so in the log.
//
// # Concurrency
//
// A Resolver is immutable and safe for concurrent use.
package clientip

import (
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
	"time"

	"github.com/relayguard/relayguard/ratelimit/internal/embedded"
	"github.com/relayguard/relayguard/ratelimit/internal/thin"
)

// The header fields that resolvers read, and the word for none of them.
const (
	sourcePeer          = "peer"
	sourceXForwardedFor = "x-forwarded-for"
	sourceXRealIP       = "x-real-ip"
	sourceForwarded     = "forwarded"
)

// Reason is why a header field is not believed, or why an item of a list of
// networks is refused. The set is closed.
type Reason string

// The reasons of an [Error].
const (
	ReasonNotAnAddress Reason = "not an address"
	ReasonObfuscated   Reason = "obfuscated or unknown" // RFC 7239, 6.2 and 6.3
	ReasonMalformed    Reason = "malformed"
	ReasonAmbiguous    Reason = "more than one value"
	ReasonNoAddress    Reason = "peer without an address" // as on a unix socket
	ReasonTooFew       Reason = "fewer addresses than hops"
)

// Error reports a header field that is not believed. It never holds the value
// of the field.
type Error struct {
	Source string // as in Result
	Reason Reason
}

func (e *Error) Error() string { return "clientip: " + e.Source + ": " + string(e.Reason) }

// Result is the answer of [Resolver.Resolve].
type Result struct {
	// Addr is the address of the client, without a zone. An IPv4-mapped IPv6
	// address is given as IPv4. Addr is invalid only if the peer has no
	// address, as on a unix socket.
	Addr netip.Addr
	// Source is the name of the header field that Addr was read from, in lower
	// case, or "peer" if Addr is the address of the peer.
	Source string
	// Err is an [*Error] if the header field of a trusted peer could not be
	// understood, or if the peer has no address. In the first case Addr is the
	// address of the peer.
	Err error
}

// Resolver finds the address of the client that sent a request. The zero value
// is [Direct].
type Resolver struct {
	trusted []netip.Prefix
	unix    bool
	kind    kind
	header  string
	hops    int
	report  *thin.Thinner[reportKey, failure] // nil: no one is told
}

type kind int

const (
	direct kind = iota
	behind
	hops
	fromHeader
	forwarded
)

// Direct returns a resolver that ignores all header fields: the client is the
// peer.
func Direct() *Resolver { return &Resolver{} }

// Behind returns a resolver that reads X-Forwarded-For from trusted peers, all
// lines as one list. The client is the right-most address of the list that is
// not trusted, or the left-most if all of them are. X-Real-IP counts only if
// there is no X-Forwarded-For, or an empty one: a proxy that writes the one
// passes on what a client writes into the other. Without both, the client is
// the peer.
//
// Without trusted networks, Behind is [Direct].
func Behind(trusted ...netip.Prefix) *Resolver {
	return &Resolver{kind: behind, trusted: plainPrefixes(trusted)}
}

// Hops returns a resolver for a chain of n proxies, each of which appends the
// address of its own peer to X-Forwarded-For. The client is the n-th address of
// the list from the right, whatever it is: Hops(1) is the address that the only
// proxy saw. Use it if the addresses of the proxies are not known, or are not
// different from those of clients, as behind SNAT.
//
// The request must have come through all of the proxies. Fewer addresses are an
// error ([ReasonTooFew]). If a client can reach the second proxy directly, it
// can choose its address. Without trusted networks, every peer is believed, so
// no client may reach the server itself. If n is less than 1, Hops is [Direct].
func Hops(n int, trusted ...netip.Prefix) *Resolver {
	if n < 1 {
		return Direct()
	}
	return &Resolver{kind: hops, hops: n, trusted: plainPrefixes(trusted)}
}

// FromHeader returns a resolver that reads a header field with a single address
// from trusted peers, such as CF-Connecting-IP. A field with more than one line
// or value is an error ([ReasonAmbiguous]). In CloudFront-Viewer-Address, the
// last colon separates the port, also behind an IPv6 address without brackets.
func FromHeader(name string, trusted ...netip.Prefix) *Resolver {
	return &Resolver{kind: fromHeader, header: textproto.CanonicalMIMEHeaderKey(name), trusted: plainPrefixes(trusted)}
}

// Forwarded returns a resolver that reads the header field Forwarded (RFC 7239)
// from trusted peers. The client is the right-most address in a "for" parameter
// that is not trusted, or the left-most if all of them are trusted.
func Forwarded(trusted ...netip.Prefix) *Resolver {
	return &Resolver{kind: forwarded, trusted: plainPrefixes(trusted)}
}

// TrustUnix returns a copy of the resolver that also trusts peers on a unix
// socket. Such a peer has no address that could be in a trusted network. Every
// process that may open the socket's file is then trusted.
func (c *Resolver) TrustUnix() *Resolver {
	d := *c
	d.unix = true
	return &d
}

// Report returns a copy of the resolver that calls f if a Result has an Err,
// for a log: all clients for which this happens count as one. f gets ten
// requests at once, then one in ten seconds, and suppressed, the number of
// failures left out since the previous call, of the same peer and reason only.
// What was left out when the failures end is reported twenty seconds later, by
// a call in a goroutine of its own, in which r has no context, header or body,
// and of each text the first 1,024 bytes.
//
// f may be called by several goroutines at once. Give the copy to one reader of
// each request, such as ratelimit.Config.ClientIP, so that a request counts
// once.
func (c *Resolver) Report(f func(r *http.Request, res Result, suppressed uint64)) *Resolver {
	d := *c
	d.report = nil
	if f != nil {
		d.report = thin.New(reportEvery,
			func(v failure, left uint64) { f(v.r, v.res, left) },
			func(k reportKey) reportKey { return reportKey{err: k.err} },
			func(k reportKey, v failure) failure {
				return failure{thin.Request(v.r), Result{k.peer, v.res.Source, v.res.Err}}
			})
	}
	return &d
}

const reportEvery = 10 * time.Second

// reportKey is what is counted apart for Report.
type reportKey struct {
	peer netip.Addr
	err  Error
}

type failure struct {
	r   *http.Request
	res Result
}

// Addr returns the address of the client. It is invalid only if the peer has no
// address. Use this method as ratelimit.Config.ClientIP.
func (c *Resolver) Addr(r *http.Request) netip.Addr { return c.Resolve(r).Addr }

// Resolve returns the address of the client, its source, and an error if the
// header field of a trusted peer could not be understood.
func (c *Resolver) Resolve(r *http.Request) Result {
	res := c.resolve(r)
	if c.report != nil && res.Err != nil {
		c.report.Add(reportKey{res.Addr, *res.Err.(*Error)}, failure{r, res})
	}
	return res
}

func (c *Resolver) resolve(r *http.Request) Result {
	peer, trusted := c.peer(r)
	own := Result{Addr: peer, Source: sourcePeer}
	if !trusted || c.kind == direct {
		if !peer.IsValid() {
			own.Err = &Error{sourcePeer, ReasonNoAddress}
		}
		return own
	}
	var found Result
	switch c.kind {
	case behind:
		found = c.list(r.Header["X-Forwarded-For"])
		if found.Err == nil && !found.Addr.IsValid() {
			found = c.single(r.Header["X-Real-Ip"], sourceXRealIP)
		}
	case hops:
		found = c.nth(r.Header["X-Forwarded-For"])
	case fromHeader:
		found = c.single(r.Header[c.header], strings.ToLower(c.header))
	case forwarded:
		found = c.elements(r.Header["Forwarded"])
	}
	switch {
	case found.Err != nil:
		own.Err = found.Err
		return own
	case found.Addr.IsValid():
		return found
	case !peer.IsValid():
		own.Err = &Error{sourcePeer, ReasonNoAddress}
	}
	return own
}

// Scheme returns "https" if the connection itself uses TLS, or if a trusted
// peer reports that the client used TLS. Otherwise it returns "http". The peer
// reports it in X-Forwarded-Proto, or, if the resolver was made by [Forwarded],
// in the "proto" parameters of Forwarded. If there are several values, all must
// be https or wss.
func (c *Resolver) Scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	if _, trusted := c.peer(r); trusted && c.kind != direct && c.secure(r) {
		return "https"
	}
	return "http"
}

func (c *Resolver) secure(r *http.Request) (secure bool) {
	if c.kind == forwarded {
		for _, line := range r.Header["Forwarded"] {
			parsed, ok := parseForwarded(line)
			if !ok {
				return false
			}
			for _, e := range parsed {
				if e.proto == "" {
					continue
				}
				if !isSecure(e.proto) {
					return false
				}
				secure = true
			}
		}
		return secure
	}
	for _, line := range r.Header["X-Forwarded-Proto"] {
		for proto := range strings.SplitSeq(line, ",") {
			if !isSecure(trim(proto)) {
				return false
			}
			secure = true
		}
	}
	return secure
}

// isSecure also accepts wss, since some proxies name the protocol after the
// upgrade.
func isSecure(proto string) bool {
	return strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
}

// Trusts reports whether addr is in a trusted network. The IPv6 address that a
// translator has made of an IPv4 address (SIIT, NAT64) is in the networks of
// both. Addresses of tunnels (6to4, Teredo) are in IPv6 networks only, and so
// is an embedded loopback address: neither can be a proxy's that was meant as
// IPv4.
func (c *Resolver) Trusts(addr netip.Addr) bool {
	addr = plain(addr)
	v4, kind := embedded.Plain(addr)
	for _, p := range c.trusted {
		if p.Contains(addr) || kind == embedded.Translated && !v4.IsLoopback() && p.Contains(v4) {
			return true
		}
	}
	return false
}

// peer returns the address of the peer, and whether its header fields are
// believed.
func (c *Resolver) peer(r *http.Request) (addr netip.Addr, trusted bool) {
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		addr = plain(ap.Addr())
		return addr, c.Trusts(addr) || c.kind == hops && len(c.trusted) == 0
	}
	if !c.unix {
		return netip.Addr{}, false
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return netip.Addr{}, local != nil && local.Network() == "unix"
}

// fromEnd yields the items of a list from its end. All lines are one list (RFC
// 9110, section 5.3). It leaves out empty items (section 5.6.1).
func fromEnd(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := len(lines) - 1; i >= 0; i-- {
			for rest, more := lines[i], true; more; {
				item := rest
				comma := strings.LastIndexByte(rest, ',')
				if more = comma >= 0; more {
					rest, item = rest[:comma], rest[comma+1:]
				}
				if item = trim(item); item != "" && !yield(item) {
					return
				}
			}
		}
	}
}

// list reads X-Forwarded-For up to an address that is not trusted.
func (c *Resolver) list(lines []string) (found Result) {
	found.Source = sourceXForwardedFor
	for item := range fromEnd(lines) {
		addr, reason := parseNode(item)
		if reason != "" {
			found.Err = &Error{sourceXForwardedFor, reason}
			return found
		}
		found.Addr = addr
		if !c.Trusts(addr) {
			return found
		}
	}
	return found
}

// nth reads the address in X-Forwarded-For that is hops from the end. The
// addresses of the proxies themselves do not matter.
func (c *Resolver) nth(lines []string) (found Result) {
	found.Source = sourceXForwardedFor
	n := 0
	for item := range fromEnd(lines) {
		if n++; n < c.hops {
			continue
		}
		addr, reason := parseNode(item)
		if reason != "" {
			found.Err = &Error{sourceXForwardedFor, reason}
		}
		found.Addr = addr
		return found
	}
	if n > 0 {
		found.Err = &Error{sourceXForwardedFor, ReasonTooFew}
	}
	return found
}

// single reads a header field with one address.
func (c *Resolver) single(lines []string, source string) (found Result) {
	found.Source = source
	switch {
	case len(lines) == 0:
		return found
	case len(lines) > 1 || strings.Contains(lines[0], ","):
		found.Err = &Error{source, ReasonAmbiguous}
		return found
	}
	item := trim(lines[0])
	if item == "" {
		return found
	}
	if c.header == cloudFront {
		var ok bool
		if item, ok = bracketed(item); !ok {
			found.Err = &Error{source, ReasonNotAnAddress}
			return found
		}
	}
	addr, reason := parseNode(item)
	if reason != "" {
		found.Err = &Error{source, reason}
	}
	found.Addr = addr
	return found
}

// elements reads Forwarded. If one line is malformed, the whole field is
// refused: an opening quotation mark of the client could otherwise hide the
// part that the proxy has appended.
func (c *Resolver) elements(lines []string) (found Result) {
	found.Source = sourceForwarded
	for i := len(lines) - 1; i >= 0; i-- {
		parsed, ok := parseForwarded(lines[i])
		if !ok {
			found.Err = &Error{sourceForwarded, ReasonMalformed}
			return found
		}
		for j := len(parsed) - 1; j >= 0; j-- {
			addr, reason := parseNode(parsed[j].node)
			if reason != "" {
				found.Err = &Error{sourceForwarded, reason}
				return found
			}
			found.Addr = addr
			if !c.Trusts(addr) {
				return found
			}
		}
	}
	return found
}
