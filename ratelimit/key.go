package ratelimit

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/relayguard/relayguard/ratelimit/internal/embedded"
)

// Key is what a [Limiter] counts by: an address, a string, or both. With both,
// each ID has limits of its own for each client that uses it, such as a login
// name for each address that tries its password. With an ID alone, anyone who
// can send the ID can use up the limit of its owner. The zero Key is a client
// without an address.
//
// The limiter never keeps the ID, only a 64-bit hash of it with a random seed.
// Of a million IDs, no two have the same hash, except with a probability of one
// in 37 million.
type Key struct {
	// Addr is the address of a client. It counts as its network: see [Fold],
	// Config.PrefixV4 and Config.PrefixV6.
	Addr netip.Addr
	// ID is an account, an API key or a tenant, of any length. If the service
	// takes Alice and alice for the same account, make them the same ID.
	// Otherwise each form of the name has limits of its own.
	ID string
}

// Fold returns the network that counts as one client by default: the /32 of an
// IPv4 address, or the /64 of an IPv6 address, which is the least that a
// provider gives to one subscriber. It drops zones. For an invalid address it
// returns the zero Prefix, which counts as one client too.
//
// An IPv6 address that a translator or a tunnel has made of an IPv4 address
// counts as that IPv4 address: IPv4-mapped and IPv4-compatible (RFC 4291),
// IPv4-translated (SIIT, RFC 2765), NAT64 (RFC 6052 and RFC 8215), 6to4 (RFC
// 3056) and Teredo (RFC 4380). ISATAP addresses (RFC 5214) do not, because the
// owner of a /64 could choose any IPv4 address in them. Neither do those of a
// translator with a prefix of its own: if yours has one, let Config.ClientIP
// return the IPv4 address.
func Fold(addr netip.Addr) netip.Prefix { return fold(addr, defaultV4, defaultV6) }

// FoldPrefix returns the network in the form in which [Limiter.Blocks] lists
// it: masked, and as an IPv4 network if all its addresses count as addresses of
// that network, as those of 64:ff9b::c000:200/120 count as 192.0.2.0/24. Use it
// to compare a network with others. It does not widen an IPv6 network to a /64.
// For an invalid network it returns the zero Prefix.
func FoldPrefix(network netip.Prefix) netip.Prefix {
	p, _ := embedded.PlainPrefix(network)
	return p
}

// client returns the network that counts as one client, and its key.
func (l *Limiter) client(addr netip.Addr) (netip.Prefix, uint64) {
	p := fold(addr, l.cfg.PrefixV4, l.cfg.PrefixV6)
	return p, keyOf(p)
}

// crowd returns the network whose clients share one bucket if MaxKeys clients
// are known already.
func (l *Limiter) crowd(addr netip.Addr) netip.Prefix {
	return fold(addr, min(l.cfg.PrefixV4, coarseV4), min(l.cfg.PrefixV6, coarseV6))
}

const (
	defaultV4, defaultV6 = 32, 64
	coarseV4, coarseV6   = 24, 48
)

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
// connection comes. The key of an ID may be any number.
const (
	key4       = 0xff00 << 48
	keyCoarse  = 0xff01 << 48
	keyNone    = 0xff02 << 48
	keyNetwork = 0xff03 << 48
)

// keyOf returns the key of a client's network.
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

// idKey returns the key of an ID, of the client if that is valid.
func (l *Limiter) idKey(id string, client netip.Prefix) uint64 {
	key := maphash.String(l.ids, id)
	if client.IsValid() {
		key = l.hash(key ^ l.hash(keyOf(client)))
	}
	return key
}

// coarseKey maps the keys to a fixed number of buckets, so that they take a
// limited amount of memory.
func (l *Limiter) coarseKey(key uint64) uint64 {
	n, _ := bits.Mul64(l.hash(key+1), uint64(l.coarse))
	return keyCoarse | n
}

// hash mixes the key with the random seed of the limiter. Without the seed,
// attackers could choose addresses that all fall into one shard.
func (l *Limiter) hash(key uint64) uint64 {
	hi, lo := bits.Mul64(key^l.seed[0], l.seed[1])
	return hi ^ lo
}

// shard returns the shard of the key, and the key's place in it as a fraction
// of 2⁶⁴.
func (l *Limiter) shard(key uint64) (s *shard, place uint64) {
	n, place := bits.Mul64(l.hash(key), uint64(len(l.shards)))
	return &l.shards[n], place
}

// bounds are the limits of one client.
type bounds struct{ limit, attempts, open uint32 }

// unlimited is a bound that no one reaches, and an int on every machine.
const unlimited = math.MaxInt32

// network is one of Config.Networks.
type network struct {
	netip.Prefix
	bounds
}

// networks returns Config.Networks, the longest prefixes first. Their bounds
// have the proportions of the others.
func (c *Config) networks() (all []network) {
	for p, limit := range c.Networks {
		n := network{FoldPrefix(p), bounds{unlimited, unlimited, unlimited}}
		if limit > 0 {
			scale := func(v, most int) uint32 {
				return uint32(max(int64(limit), min(int64(v)*int64(limit)/int64(c.Limit), int64(most))))
			}
			n.bounds = bounds{uint32(limit), scale(c.MaxAttempts, 6*maxLimit), scale(c.MaxOpen, 5*maxLimit)}
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b network) int {
		return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
	})
	return all
}

// network returns the index of the network with limits of its own that addr is
// in, or -1.
func (l *Limiter) network(addr netip.Addr) int {
	if len(l.networks) == 0 {
		return -1
	}
	addr = plain(addr)
	return slices.IndexFunc(l.networks, func(n network) bool { return n.Contains(addr) })
}
