// Package clientip says which address a request really comes from, behind declared proxies.
//
// Anybody can send X-Forwarded-For. It means something only where the peer of the TCP connection is a proxy that is
// known to set it, and only the part that known proxies have written. So every [Resolver] but [Direct] is given the
// networks of the trusted proxies, ignores headers from anyone else, and reads lists from the right, where the nearest
// proxy has added its word, up to the first address that is not trusted.
//
// What cannot be understood there fails closed: the answer is then the peer's own address, and [Result] says why. The
// price is that such clients are counted as one with their proxy; the gain is that nobody chooses his own address.
//
// A trusted proxy must itself set or append to the header that the resolver reads. One that passes on what clients send
// hands them the choice; test it with a forged header.
//
// A Resolver is immutable and safe for concurrent use.
package clientip

import (
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
)

// Source says what an address was read from.
type Source string

// The sources. [FromHeader] has its header's name, in lower case, as source.
const (
	SourcePeer          Source = "peer"
	SourceXForwardedFor Source = "x-forwarded-for"
	SourceXRealIP       Source = "x-real-ip"
	SourceForwarded     Source = "forwarded"
)

// Reason says why a header was not believed, or an item of a list of networks
// refused. The set is closed.
type Reason string

// The reasons of an [Error].
const (
	ReasonNotAnAddress Reason = "not an address"
	ReasonObfuscated   Reason = "obfuscated or unknown" // RFC 7239, sections 6.2 and 6.3
	ReasonMalformed    Reason = "malformed"
	ReasonAmbiguous    Reason = "more than one value"
	ReasonNoAddress    Reason = "peer without an address" // a unix socket, or a RemoteAddr that is none
)

// Error says which header was not believed, and why. It never repeats the header's value.
type Error struct {
	Source Source
	Reason Reason
}

func (e *Error) Error() string { return "clientip: " + string(e.Source) + ": " + string(e.Reason) }

// Result is the answer of a [Resolver].
type Result struct {
	// Addr is the client's address, without zone, IPv4 where it was mapped into IPv6. It is invalid only if the peer
	// has none, as on a unix socket.
	Addr   netip.Addr
	Source Source
	// Err is a *[Error] if a trusted peer's header was not understood, and Addr therefore is the peer's own.
	Err error
}

// Resolver finds the address of a request's client. The zero value is [Direct].
type Resolver struct {
	trusted []netip.Prefix
	unix    bool
	kind    kind
	header  string
}

type kind int

const (
	direct kind = iota
	behind
	fromHeader
	forwarded
)

// Direct believes no header: the client is the peer.
func Direct() *Resolver { return &Resolver{} }

// Behind believes the X-Forwarded-For of trusted peers: the client is its right-most address that is not trusted, over
// all its lines; where there is none, X-Real-IP; else the left-most of the trusted, which then is the client. With no
// trusted networks it is [Direct].
func Behind(trusted ...netip.Prefix) *Resolver {
	return &Resolver{kind: behind, trusted: plainPrefixes(trusted)}
}

// FromHeader believes a header of trusted peers that holds a single address, like CF-Connecting-IP. More than one line
// or value is ambiguous and not believed.
func FromHeader(name string, trusted ...netip.Prefix) *Resolver {
	return &Resolver{kind: fromHeader, header: textproto.CanonicalMIMEHeaderKey(name), trusted: plainPrefixes(trusted)}
}

// Forwarded believes the Forwarded header (RFC 7239) of trusted peers: the client is the right-most "for" that is not
// trusted.
func Forwarded(trusted ...netip.Prefix) *Resolver {
	return &Resolver{kind: forwarded, trusted: plainPrefixes(trusted)}
}

// TrustUnix returns a resolver that also trusts peers on a unix socket, which have no address that a prefix could
// match. Whoever may open the socket's file is then trusted.
func (c *Resolver) TrustUnix() *Resolver {
	d := *c
	d.unix = true
	return &d
}

// Addr returns the client's address; invalid only if the peer has none. It fits ratelimit.Config.ClientIP.
func (c *Resolver) Addr(r *http.Request) netip.Addr { return c.Resolve(r).Addr }

// Resolve returns the client's address, where it was found, and whether a trusted peer's header was not understood.
func (c *Resolver) Resolve(r *http.Request) Result {
	peer, trusted := c.peer(r)
	own := Result{Addr: peer, Source: SourcePeer}
	if !trusted || c.kind == direct {
		if !peer.IsValid() {
			own.Err = &Error{SourcePeer, ReasonNoAddress}
		}
		return own
	}
	var found Result
	switch c.kind {
	case behind:
		found = c.list(r.Header["X-Forwarded-For"])
		if found.Err == nil && !c.isClient(found) {
			other := c.single(r.Header["X-Real-Ip"], SourceXRealIP)
			if other.Err != nil || c.isClient(other) || !found.Addr.IsValid() {
				found = other
			}
		}
	case fromHeader:
		found = c.single(r.Header[c.header], Source(strings.ToLower(c.header)))
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
		own.Err = &Error{SourcePeer, ReasonNoAddress}
	}
	return own
}

// Scheme returns "https" if the client used TLS and otherwise "http": the connection's own TLS counts, and a trusted
// peer's X-Forwarded-Proto (Forwarded's "proto" for a resolver made by that name), if all its values say so.
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

// isSecure knows wss as well: some proxies name the protocol that follows the upgrade.
func isSecure(proto string) bool {
	return strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
}

// Trusts says whether addr lies within a trusted network.
func (c *Resolver) Trusts(addr netip.Addr) bool {
	addr = plain(addr)
	for _, p := range c.trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// peer returns the address of the connection's other end, and whether its headers count.
func (c *Resolver) peer(r *http.Request) (addr netip.Addr, trusted bool) {
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		addr = plain(ap.Addr())
		return addr, c.Trusts(addr)
	}
	if !c.unix {
		return netip.Addr{}, false
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return netip.Addr{}, local != nil && local.Network() == "unix"
}

// isClient says whether an address was found that is no proxy's.
func (c *Resolver) isClient(found Result) bool { return found.Addr.IsValid() && !c.Trusts(found.Addr) }

// list reads X-Forwarded-For: all lines are one list, as RFC 9110, section 5.3, says, read from its end.
func (c *Resolver) list(lines []string) (found Result) {
	found.Source = SourceXForwardedFor
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			item := rest
			var comma int
			if comma = strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, item = rest[:comma], rest[comma+1:]
			}
			more = comma >= 0
			if item = trim(item); item == "" {
				continue
			}
			addr, reason := parseNode(item)
			if reason != "" {
				found.Err = &Error{SourceXForwardedFor, reason}
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

// single reads a header that holds one address.
func (c *Resolver) single(lines []string, source Source) (found Result) {
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
	addr, reason := parseNode(item)
	if reason != "" {
		found.Err = &Error{source, reason}
	}
	found.Addr = addr
	return found
}

// elements reads Forwarded. A line that does not parse makes the whole header doubtful: a quotation mark that a client
// leaves open would otherwise swallow what the proxy appended.
func (c *Resolver) elements(lines []string) (found Result) {
	found.Source = SourceForwarded
	for i := len(lines) - 1; i >= 0; i-- {
		parsed, ok := parseForwarded(lines[i])
		if !ok {
			found.Err = &Error{SourceForwarded, ReasonMalformed}
			return found
		}
		for j := len(parsed) - 1; j >= 0; j-- {
			addr, reason := parseNode(parsed[j].node)
			if reason != "" {
				found.Err = &Error{SourceForwarded, reason}
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
