package ratelimit

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/relayguard/relayguard/ratelimit/internal/embedded"
)

// Fold returns the network that counts as one client: the /32 of an IPv4
// address, or the /64 of an IPv6 address, which is the least that a provider
// gives to one subscriber. It drops zones. For an invalid address it returns
// the zero Prefix, which counts as one client too.
//
// An IPv6 address that a translator or a tunnel has made of an IPv4 address
// counts as that IPv4 address: IPv4-mapped and IPv4-compatible (RFC 4291),
// IPv4-translated (SIIT, RFC 2765), NAT64 (RFC 6052 and RFC 8215), 6to4 (RFC
// 3056) and Teredo (RFC 4380). ISATAP addresses (RFC 5214) do not, because the
// owner of a /64 could choose any IPv4 address in them. Neither do those of a
// translator with a prefix of its own: if yours has one, let Config.ClientIP
// return the IPv4 address.
func Fold(addr netip.Addr) netip.Prefix { return fold(addr, 32, 64) }

// FoldPrefix returns the network in the form in which [Limiter.Blocks] lists
// it: masked, and as an IPv4 network if all its addresses count as addresses of
// that network, as those of 64:ff9b::c000:200/120 count as 192.0.2.0/24. Use it
// to compare a network with others. It does not widen an IPv6 network to a /64.
// For an invalid network it returns the zero Prefix.
func FoldPrefix(network netip.Prefix) netip.Prefix {
	p, _ := embedded.PlainPrefix(network)
	return p
}

// coarse returns the network whose clients share one bucket if MaxKeys clients
// are known already.
func coarse(addr netip.Addr) netip.Prefix { return fold(addr, 24, 48) }

func fold(addr netip.Addr, bits4, bits6 int) netip.Prefix {
	addr = plain(addr)
	n := bits6
	if addr.Is4() {
		n = bits4
	}
	p, err := addr.Prefix(n)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func plain(addr netip.Addr) netip.Addr {
	addr, _ = embedded.Plain(addr)
	return addr
}

// The key of an IPv6 network is the first 64 bits of its address. Other keys
// use prefixes from ff00::/8: those are multicast addresses, from which no
// connection comes.
const (
	key4      = 0xff00 << 48
	keyCoarse = 0xff01 << 48
	keyNone   = 0xff02 << 48
)

// keyOf returns the key of a client's network, as Fold returns it.
func keyOf(client netip.Prefix) uint64 {
	switch addr := client.Addr(); {
	case addr.Is4():
		b := addr.As4()
		return key4 | uint64(binary.BigEndian.Uint32(b[:]))
	case addr.Is6():
		b := addr.As16()
		return binary.BigEndian.Uint64(b[:])
	}
	return keyNone
}

// coarseKey maps the networks to a fixed number of buckets, so that they take a
// limited amount of memory.
func (l *Limiter) coarseKey(network netip.Prefix) uint64 {
	n, _ := bits.Mul64(l.hash(keyOf(network)+1), uint64(l.coarse))
	return keyCoarse | n
}

// hash mixes the key with the random seed of the limiter. Without the seed,
// attackers could choose addresses that all fall into one shard.
func (l *Limiter) hash(key uint64) uint64 {
	hi, lo := bits.Mul64(key^l.seed[0], l.seed[1])
	hi, lo = bits.Mul64(hi^lo^l.seed[0], l.seed[1])
	return hi ^ lo
}

func (l *Limiter) shard(key uint64) *shard {
	n, _ := bits.Mul64(l.hash(key), shards)
	return &l.shards[n]
}
