// Package embedded finds the IPv4 address that an IPv6 address stands for.
// Translators and tunnels make such addresses, and each of them belongs to the
// client or to the proxy that has the IPv4 address.
package embedded

import (
	"encoding/binary"
	"net/netip"
)

// Kind is how an IPv6 address was made of an IPv4 address.
type Kind int

// The kinds.
const (
	None Kind = iota
	// Translated is an IPv4 host behind a translator: IPv4-mapped (RFC 4291,
	// section 2.5.5.2), IPv4-translated (SIIT, RFC 2765), or NAT64 with the
	// well-known prefix (RFC 6052) or the local one (RFC 8215).
	Translated
	// Tunnelled is an IPv6 host in a network that has the IPv4 address: 6to4
	// (RFC 3056), Teredo (RFC 4380), or IPv4-compatible (RFC 4291, section
	// 2.5.5.1).
	Tunnelled
)

// Plain returns the IPv4 address that addr stands for, or addr itself, without
// a zone.
//
// ISATAP (RFC 5214) is missing on purpose: it has the IPv4 address in the lower
// half, which the owner of any /64 chooses freely. The owner could therefore
// appear as any IPv4 address.
func Plain(addr netip.Addr) (netip.Addr, Kind) {
	if addr.Is4() || !addr.IsValid() {
		return addr, None
	}
	b := addr.As16()
	switch upper, lower := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]); {
	case upper == 0 && lower>>32 == 0xffff, // mapped
		upper == 0 && lower>>32 == 0xffff_0000, // SIIT
		upper == 0x0064_ff9b<<32 && lower>>32 == 0:
		return netip.AddrFrom4([4]byte(b[12:])), Translated
	case upper>>16 == 0x0064_ff9b_0001:
		return local(b), Translated
	case upper>>48 == 0x2002:
		return netip.AddrFrom4([4]byte(b[2:])), Tunnelled
	case upper>>32 == 0x2001_0000:
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), Tunnelled
	case upper == 0 && lower>>32 == 0 && b[12] != 0: // else ::1 would be 0.0.0.1
		return netip.AddrFrom4([4]byte(b[12:])), Tunnelled
	}
	return addr.WithZone(""), None
}

// local returns the IPv4 address in 64:ff9b:1::/48. It does not say how long
// the prefix is that the translator uses: 48, 56, 64 or 96 bits (RFC 6052,
// section 2.2). In the shorter forms, byte 8 and the last bytes are zero. With
// 96 bits, that would be the address of a network, such as 192.0.0.0.
func local(b [16]byte) netip.Addr {
	switch short := b[8] == 0 && b[13] == 0 && b[14] == 0 && b[15] == 0; {
	case short && b[11] == 0 && b[12] == 0:
		return netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]})
	case short && b[12] == 0:
		return netip.AddrFrom4([4]byte{b[7], b[9], b[10], b[11]})
	case short:
		return netip.AddrFrom4([4]byte(b[9:]))
	}
	return netip.AddrFrom4([4]byte(b[12:]))
}

// forms are the networks with a fixed place for the IPv4 address, and the
// length of what stands before it.
var forms = []struct {
	network netip.Prefix
	before  int
	kind    Kind
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 96, Translated},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 96, Translated},
	{netip.MustParsePrefix("64:ff9b::/96"), 96, Translated},
	{netip.MustParsePrefix("2002::/16"), 16, Tunnelled},
	{netip.MustParsePrefix("::/96"), 96, Tunnelled},
}

// PlainPrefix returns the IPv4 network that p stands for, or p itself. It masks
// both. A network larger than an IPv4 /8 stays as it is, unless it is
// IPv4-mapped, and so it holds only the addresses that were written: to block
// 64:ff9b::/96 is not to block all of IPv4.
func PlainPrefix(p netip.Prefix) (netip.Prefix, Kind) {
	p = p.Masked()
	if !p.IsValid() || p.Addr().Is4() {
		return p, None
	}
	for i, f := range forms {
		n := p.Bits() - f.before
		if i > 0 && n < 8 || n < 0 || !f.network.Contains(p.Addr()) {
			continue
		}
		addr, kind := Plain(p.Addr())
		if kind != f.kind {
			continue
		}
		return netip.PrefixFrom(addr, min(n, 32)).Masked(), kind
	}
	// Without a fixed place, only a single address is known to stand for one.
	if p.IsSingleIP() {
		if addr, kind := Plain(p.Addr()); kind != None {
			return netip.PrefixFrom(addr, 32), kind
		}
	}
	return p, None
}

// whole are the networks that hold every IPv4 address.
var whole = []netip.Prefix{
	netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("::ffff:0:0:0/96"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

// Whole reports whether p holds every address, or every IPv4 address in one of
// the forms. Any /96 of 64:ff9b:1::/48 may be the prefix of a translator.
func Whole(p netip.Prefix) bool {
	for _, w := range whole {
		if p.Bits() == 0 || p.Bits() <= w.Bits() && p.Contains(w.Addr()) {
			return true
		}
	}
	return p.Bits() <= 96 && whole[3].Contains(p.Addr())
}
