package clientip

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Unmap().IsUnspecified() {
		return netip.Addr{}, ReasonNotAnAddress
	}
	return plain(addr), ""
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
				if name, value, s, ok = parsePair(s); !ok || slices.Contains(seen, name) {
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
		if value = s[:end]; value == "" || !isToken(strings.NewReplacer(":", "", "[", "", "]", "").Replace(value)) {
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
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
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
func Private() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
	}
}

// The reasons of a [PrefixError].
const (
	ReasonNotAPrefix   Reason = "is neither a network, nor an address, nor one of the words loopback, private and none"
	ReasonTrustsAll    Reason = "would trust every address"
	ReasonNoneWithMore Reason = "must be alone in the list"
)

// PrefixError is one item of a list of networks that [ParsePrefixes] refuses.
type PrefixError struct {
	Item   string
	Reason Reason
}

func (e *PrefixError) Error() string {
	return "clientip: " + strconv.Quote(e.Item) + " " + string(e.Reason)
}

// ParsePrefixes reads a list of networks separated by commas. An item is a
// prefix, a single address, or one of the words loopback, private and none. The
// word none must be alone. It is the empty list, as is the empty string.
// ParsePrefixes returns all problems at once, joined with [errors.Join], each a
// [*PrefixError].
func ParsePrefixes(s string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	var errs []error
	none, items := false, 0
	for item := range strings.SplitSeq(s, ",") {
		item = trim(item)
		if item == "" {
			continue
		}
		items++
		switch strings.ToLower(item) {
		case "loopback":
			prefixes = append(prefixes, Loopback()...)
		case "private":
			prefixes = append(prefixes, Private()...)
		case "none":
			none = true
		default:
			p, reason := parsePrefix(item)
			if reason != "" {
				errs = append(errs, &PrefixError{item, reason})
				continue
			}
			prefixes = append(prefixes, p)
		}
	}
	if none && items > 1 {
		errs = append(errs, &PrefixError{"none", ReasonNoneWithMore})
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return prefixes, nil
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
	if p = plainPrefix(p); p.Bits() == 0 {
		return p, ReasonTrustsAll
	}
	return p, ""
}

func trim(s string) string { return strings.Trim(s, " \t") }

func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// plainPrefix masks a network, and makes an IPv4-mapped IPv6 network an IPv4
// network, since addresses are converted in the same way.
func plainPrefix(p netip.Prefix) netip.Prefix {
	if p.IsValid() && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
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
