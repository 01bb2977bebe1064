package clientip

import (
	"encoding/json"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/relayguard/relayguard/ratelimit/internal/embedded"
)

// parseNode reads an address in the forms that proxies write: bare, with a
// port, in brackets, or with a zone.
func parseNode(s string) (addr netip.Addr, reason Reason) {
	host := s
	switch {
	case s == "" || strings.EqualFold(s, "unknown") || s[0] == '_':
		return netip.Addr{}, ReasonObfuscated
	case s[0] == '[':
		end := strings.IndexByte(s, ']')
		if end < 0 || !isPort(s[end+1:]) {
			return netip.Addr{}, ReasonNotAnAddress
		}
		if host = s[1:end]; !strings.Contains(host, ":") {
			return netip.Addr{}, ReasonNotAnAddress
		}
	case strings.Count(s, ":") == 1:
		colon := strings.IndexByte(s, ':')
		if !isPort(s[colon:]) {
			return netip.Addr{}, ReasonNotAnAddress
		}
		host = s[:colon]
	case strings.Count(s, ":") == 8 && !strings.Contains(s, "::"):
		// Eight parts and a port, without the brackets that it needs.
		if b, ok := bracketed(s); ok {
			return parseNode(b)
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Unmap().IsUnspecified() {
		return netip.Addr{}, ReasonNotAnAddress
	}
	return plain(addr), ""
}

// cloudFront is the header field in which there always is a port, and never a
// bracket: 2001:db8::1:443 is the address 2001:db8::1.
const cloudFront = "Cloudfront-Viewer-Address"

// bracketed returns an address with a port in the form that parseNode reads.
func bracketed(s string) (string, bool) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || !isPort(s[colon:]) {
		return "", false
	}
	if host := s[:colon]; strings.Contains(host, ":") && host[0] != '[' {
		return "[" + host + "]" + s[colon:], true
	}
	return s, true
}

// isPort reports whether s is empty, or a colon followed by a port number or by
// an obfuscated port of RFC 7239.
func isPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) == 1 {
		return false
	}
	if s[1] == '_' {
		return isToken(s[2:])
	}
	_, err := strconv.ParseUint(s[1:], 10, 16)
	return err == nil
}

// element is one element of a Forwarded field, written by one proxy.
type element struct{ node, proto string }

// maxPairs is the number of parameters that an element may have. RFC 7239
// defines four. Without a bound, the search for names that occur twice would
// take minutes for a header of a megabyte.
const maxPairs = 16

// parseForwarded reads one line of a Forwarded field (RFC 7239, section 4):
//
//	for=192.0.2.60;proto=http, for="[2001:db8:cafe::17]:4711"
func parseForwarded(s string) (elements []element, ok bool) {
	for {
		var e element
		var seen []string
		for {
			s = strings.TrimLeft(s, " \t")
			if s == "" || s[0] == ',' || s[0] == ';' {
				// Separators may follow each other directly.
			} else {
				var name, value string
				if name, value, s, ok = parsePair(s); !ok || len(seen) == maxPairs || slices.Contains(seen, name) {
					return nil, false
				}
				seen = append(seen, name)
				switch name {
				case "for":
					e.node = value
				case "proto":
					e.proto = value
				}
				s = strings.TrimLeft(s, " \t")
			}
			if s == "" || s[0] != ';' {
				break
			}
			s = s[1:]
		}
		if seen != nil {
			elements = append(elements, e)
		}
		if s == "" {
			return elements, true
		}
		if s[0] != ',' {
			return nil, false
		}
		s = s[1:]
	}
}

// parsePair reads token=token or token="quoted", and returns the name in lower
// case.
func parsePair(s string) (name, value, rest string, ok bool) {
	name, s, ok = strings.Cut(s, "=")
	if !ok || name == "" || !isToken(name) || s == "" {
		return "", "", "", false
	}
	name = strings.ToLower(name)
	if s[0] != '"' {
		end := strings.IndexAny(s, ",; \t")
		if end < 0 {
			end = len(s)
		}
		// RFC 7239 requires quotes around an address with a port. Some senders
		// omit them, and the meaning is still clear.
		if value = s[:end]; value == "" || !isTokenOr(value, ":[]") {
			return "", "", "", false
		}
		return name, value, s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return name, b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", "", false
}

// isToken reports whether s consists of token characters (RFC 9110, section
// 5.6.2).
func isToken(s string) bool { return isTokenOr(s, "") }

// isTokenOr also allows the marks.
func isTokenOr(s, marks string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 || strings.IndexByte(marks, c) >= 0) {
			return false
		}
	}
	return true
}

// Loopback returns the networks of the machine itself: 127.0.0.0/8 and ::1/128.
func Loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// Private returns the private networks: 10.0.0.0/8, 172.16.0.0/12,
// 192.168.0.0/16 (RFC 1918) and fc00::/7 (RFC 4193). It does not include
// Loopback.
//
// To trust them is to believe every machine, container and pod that can reach
// the port, and it is safe only if no client's connection gets a private
// address on its way:
//
//   - Docker gives connections to a published port the address of the bridge's
//     gateway, such as 172.17.0.1, if they come through its userland proxy,
//     from Docker Desktop, from a rootless daemon, or over IPv6 into an
//     IPv4-only network. Publish only the port of the proxy, and let the proxy
//     run in the host's network, or trust its address alone.
//   - Kubernetes gives connections to a Service of type NodePort or
//     LoadBalancer the address of a node, unless externalTrafficPolicy is
//     Local. An ingress controller then appends the node's address for every
//     client, and a client chooses its own with a forged field. Set
//     externalTrafficPolicy: Local, or use the PROXY protocol in front of the
//     ingress, or [Hops].
//
// Otherwise use Hops, and know that all clients behind the SNAT count as one.
func Private() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
	}
}

// The reasons of a [PrefixError].
const (
	ReasonNotAPrefix   Reason = "is neither a network like 10.0.0.0/8, nor an address like 192.0.2.1, nor one of the words loopback, private and none"
	ReasonTrustsAll    Reason = "would trust every address"
	ReasonNoneWithMore Reason = "must be alone in the list"
)

// PrefixError is one item of a list of networks that [ParsePrefixes] refuses.
type PrefixError struct {
	Item   string
	Index  int // of the item in the list, from 0; empty items do not count
	Reason Reason
	// Hint says what to write instead, without the item. It is empty if nothing
	// is known to help.
	Hint string
}

func (e *PrefixError) Error() string {
	text := "clientip: " + strconv.Quote(e.Item) + " " + string(e.Reason)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}

// hint returns what to write in place of an item that is not a network.
func hint(item string) string {
	addr, length, slash := strings.Cut(item, "/")
	_, err := netip.ParseAddr(addr)
	_, mask := netip.ParseAddr(length)
	_, node := parseNode(item)
	letters := strings.ContainsFunc(item, func(r rune) bool { return r > 'f' && r <= 'z' || r > 'F' && r <= 'Z' })
	switch {
	case strings.HasPrefix(item, "{"):
		return "of lists in JSON, only that of Fastly is read, an object with addresses and ipv6_addresses"
	case strings.Contains(item, ";"):
		return "separate the items by commas, spaces or lines"
	case strings.Contains(item, "://"):
		return "leave out the scheme"
	case strings.Contains(item, "%"):
		return "leave out the zone"
	case slash && mask == nil:
		return "write the length of the mask in bits, such as /8 for 255.0.0.0"
	case slash && err == nil:
		return "the length is 1 to 32 bits for IPv4, and 1 to 128 for IPv6"
	case node == "" || strings.HasPrefix(item, "["):
		return "leave out the port and the brackets"
	case strings.ContainsAny(item, "*-") && !letters:
		return "write a range as networks, such as 10.0.0.0/24"
	case letters:
		return "host names are not looked up, so write the address"
	}
	return "write all parts of an address, without leading zeros"
}

// ParsePrefixes reads a list of networks, separated by commas, spaces or lines.
// An item is a prefix, a single address, or one of the words loopback, private
// and none. The word none must be alone. It is the empty list, as is the empty
// string. A # begins a comment, which ends with its line.
//
// So you can paste the list that a CDN publishes, such as Cloudflare's
// (https://www.cloudflare.com/ips-v4 and ips-v6). ParsePrefixes also reads
// Fastly's, which is JSON (https://api.fastly.com/public-ip-list). These lists
// change: read them again from time to time.
//
// ParsePrefixes returns all problems at once, joined with [errors.Join], each a
// [*PrefixError].
func ParsePrefixes(s string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	var errs []error
	none, items := -1, 0
	for item := range prefixItems(s) {
		items++
		switch strings.ToLower(item) {
		case "loopback":
			prefixes = append(prefixes, Loopback()...)
		case "private":
			prefixes = append(prefixes, Private()...)
		case "none":
			none = items - 1
		default:
			p, reason := parsePrefix(item)
			if reason != "" {
				e := &PrefixError{Item: item, Index: items - 1, Reason: reason}
				if reason == ReasonNotAPrefix {
					e.Hint = hint(item)
				}
				errs = append(errs, e)
				continue
			}
			prefixes = append(prefixes, p)
		}
	}
	if none >= 0 && items > 1 {
		errs = append(errs, &PrefixError{Item: "none", Index: none, Reason: ReasonNoneWithMore})
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return prefixes, nil
}

// prefixItems yields the items of a list. What looks like JSON and is not
// Fastly's list is one item, which is not a prefix.
func prefixItems(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if strings.HasPrefix(strings.TrimSpace(s), "{") {
			var list struct {
				V4 []string `json:"addresses"`
				V6 []string `json:"ipv6_addresses"`
			}
			items := []string{"{"}
			if err := json.Unmarshal([]byte(s), &list); err == nil && len(list.V4)+len(list.V6) > 0 {
				items = append(list.V4, list.V6...)
			}
			for _, item := range items {
				if !yield(item) {
					return
				}
			}
			return
		}
		for line := range strings.Lines(s) {
			line, _, _ = strings.Cut(line, "#")
			for item := range strings.FieldsFuncSeq(line, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
				if !yield(item) {
					return
				}
			}
		}
	}
}

func parsePrefix(s string) (netip.Prefix, Reason) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return p, ReasonNotAPrefix
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if embedded.Whole(p) {
		return p, ReasonTrustsAll
	}
	return plainPrefix(p), ""
}

func trim(s string) string { return strings.Trim(s, " \t") }

func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// plainPrefix masks a network, and makes an IPv6 network of a translator the
// IPv4 network that it stands for, since Trusts compares addresses in the same
// way.
func plainPrefix(p netip.Prefix) netip.Prefix {
	v4, kind := embedded.PlainPrefix(p)
	if kind == embedded.Translated && (p.Addr().Is4In6() || !v4.Addr().IsLoopback()) {
		return v4
	}
	return p.Masked()
}

func plainPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	plain := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.IsValid() {
			plain = append(plain, plainPrefix(p))
		}
	}
	return plain
}
