package ratelimit

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Fold returns the network that counts as one client: an IPv4 address alone (/32), or the /64 of an IPv6 address, which
// is what one subscriber is given at least. Zones are dropped, and IPv4-mapped addresses are IPv4 addresses. For an
// invalid address it returns the zero Prefix, which is a client like any other.
func Fold(addr netip.Addr) netip.Prefix { return fold(addr, 32, 64) }

// coarse returns the network whose clients share one bucket when there are too many to know them one by one.
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

func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// Keys of IPv6 networks are their first 64 bits. The others borrow from ff00::/8: multicast addresses open no
// connections.
const (
	key4      = 0xff00 << 48
	keyCoarse = 0xff01 << 48
	keyNone   = 0xff02 << 48
)

// keyOf returns the key of a client's network, as returned by Fold.
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

// coarseKey spreads networks over a fixed number of buckets, so that the coarse ones are bounded as well.
func (l *Limiter) coarseKey(network netip.Prefix) uint64 {
	n, _ := bits.Mul64(l.hash(keyOf(network)+1), uint64(l.coarse))
	return keyCoarse | n
}

// hash mixes a key with the limiter's random seed: without it, clients could choose to meet in one shard.
func (l *Limiter) hash(key uint64) uint64 {
	hi, lo := bits.Mul64(key^l.seed[0], l.seed[1])
	hi, lo = bits.Mul64(hi^lo^l.seed[0], l.seed[1])
	return hi ^ lo
}

func (l *Limiter) shard(key uint64) *shard {
	n, _ := bits.Mul64(l.hash(key), shards)
	return &l.shards[n]
}
