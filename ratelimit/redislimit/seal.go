package redislimit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	"net/netip"
	"strconv"
	"sync"

	"github.com/relayguard/relayguard/ratelimit"
)

var errSealed = errors.New("redislimit: a block in the engine does not open with Config.Key: every node needs the same Key, and no other program may write to the keys")

// sealer encrypts records, and makes names of clients unreadable.
type sealer struct {
	aead cipher.AEAD
	macs sync.Pool // of hash.Hash
}

func newSealer(key []byte, prefix string) *sealer {
	derive := func(purpose string) []byte {
		derived, err := hkdf.Key(sha256.New, key, nil, "relayguard redislimit "+purpose+"\x00"+prefix, KeySize)
		if err != nil {
			panic(err) // the length is a constant
		}
		return derived
	}
	block, err := aes.NewCipher(derive("values"))
	if err != nil {
		panic(err) // the length is a constant
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // the block size is AES's
	}
	names := derive("names")
	s := &sealer{aead: aead}
	s.macs.New = func() any { return hmac.New(sha256.New, names) }
	return s
}

// The purposes of names.
const (
	nameClient  = 'c'
	nameGroup   = 'g' // one of Config.Networks
	nameBlock   = 'b'
	namePenalty = 'p'
)

// name returns 16 characters by which the engine knows a network or a client.
// Of a million clients, two have the same with a probability of 10⁻¹⁷.
func (s *sealer) name(purpose byte, network netip.Prefix, id string) string {
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	var buf [64]byte
	text := append(appendPrefix(append(buf[:0], purpose), network), id...)
	mac.Write(text)
	sum := mac.Sum(buf[:0])
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// prefixSize is the length of what appendPrefix appends.
const prefixSize = 18

// appendPrefix appends the network: its address, its length and the version of
// its address. All are 0 if it is invalid.
func appendPrefix(b []byte, p netip.Prefix) []byte {
	if !p.IsValid() {
		return append(b, make([]byte, prefixSize)...)
	}
	a, version := p.Addr().As16(), byte(6)
	if p.Addr().Is4() {
		version = 4
	}
	return append(append(b, a[:]...), byte(p.Bits()), version)
}

// cutPrefix is the reverse of appendPrefix, of a valid network.
func cutPrefix(b []byte) (p netip.Prefix, ok bool) {
	addr := netip.AddrFrom16([16]byte(b[:16]))
	switch b[17] {
	case 4:
		if !addr.Is4In6() {
			return p, false
		}
		addr = addr.Unmap()
	case 6:
	default:
		return p, false
	}
	p = netip.PrefixFrom(addr, int(b[16]))
	return p, p.IsValid()
}

// record is what all nodes know of a network or a client. Times are in µs of
// the engine's clock.
type record struct {
	kind    ratelimit.SharedKind
	network netip.Prefix
	at      int64 // when it was made; of two records of the same name, the newer one counts
	until   int64 // of a block or a penalty; 0 is forever
	forget  int64 // when it has no more meaning; 0 is never

	sealed  string // as the engine has it; empty: not yet sealed
	pending bool   // the engine must still be told
}

// kinds are the kinds of record, by the byte that is stored.
var kinds = [...]ratelimit.SharedKind{ratelimit.SharedBlock, ratelimit.SharedUnblock, ratelimit.SharedPenalty, ratelimit.SharedForgiven}

func (r *record) name(s *sealer) string {
	if r.kind == ratelimit.SharedBlock || r.kind == ratelimit.SharedUnblock {
		return s.name(nameBlock, r.network, "")
	}
	return s.name(namePenalty, r.network, "")
}

// timeSize is the length of the time before a sealed record, in digits, so that
// scripts can compare it.
const timeSize = 16

func stamp(at int64) string { return fmt.Sprintf("%0*d", timeSize, at) }

// seal returns the record as the engine has it under a name.
func (s *sealer) seal(name string, r *record) string {
	text := make([]byte, 1, 1+prefixSize+16)
	for i, kind := range kinds {
		if kind == r.kind {
			text[0] = byte(i)
		}
	}
	text = appendPrefix(text, r.network)
	text = binary.BigEndian.AppendUint64(text, uint64(r.until))
	text = binary.BigEndian.AppendUint64(text, uint64(r.forget))
	at := stamp(r.at)
	return at + string(s.aead.Seal(nil, nil, text, []byte(name+at)))
}

// open is the reverse of seal.
func (s *sealer) open(name, sealed string) (*record, error) {
	if len(sealed) < timeSize {
		return nil, errSealed
	}
	at, err := strconv.ParseUint(sealed[:timeSize], 10, 63)
	if err != nil {
		return nil, errSealed
	}
	text, err := s.aead.Open(nil, nil, []byte(sealed[timeSize:]), []byte(name+sealed[:timeSize]))
	if err != nil || len(text) != 1+prefixSize+16 || int(text[0]) >= len(kinds) {
		return nil, errSealed
	}
	network, ok := cutPrefix(text[1:])
	until, forget := binary.BigEndian.Uint64(text[1+prefixSize:]), binary.BigEndian.Uint64(text[1+prefixSize+8:])
	if !ok || until > math.MaxInt64 || forget > math.MaxInt64 {
		return nil, errSealed
	}
	return &record{kind: kinds[text[0]], network: network, at: int64(at), until: int64(until), forget: int64(forget), sealed: sealed}, nil
}
