// Package blocklist is the list of networks that the operator has blocked.
package blocklist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/internal/files"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/ratelimit"
)

// maxBlocks is how many networks may be blocked by hand; more are a firewall's
// work.
const maxBlocks = 10_000

// Block is a network that the operator has blocked.
type Block struct {
	Prefix  netip.Prefix `json:"prefix"`
	Until   *time.Time   `json:"until,omitempty"` // nil: for ever
	Lasting bool         `json:"lasting"`         // also over a restart of the server
}

// Blocked is a block that was just made.
type Blocked struct {
	Block
	Connections int `json:"connections"` // that were open and are ended
}

// Config says where blocks are enforced and kept. All fields but Dir are
// required.
type Config struct {
	Limiter    *ratelimit.Limiter                    // refuses new connections
	Disconnect func(match func(netip.Addr) bool) int // ends open ones, and counts them
	Proxies    []netip.Prefix                        // trusted, and never blocked
	Dir        string                                // keeps blocks that have an end; empty: in memory only
	Log        *slog.Logger
	Trail      *trail.Trail
}

// List is the list. Blocks that have an end are in a file, if there is a
// directory for it, and outlast a restart. Only the server writes the file. A
// List is safe for concurrent use.
type List struct {
	cfg  Config
	path string // "": in memory only

	mu sync.Mutex // one change at a time
}

// New returns a List, with the blocks of the file in force.
func New(cfg Config) (*List, error) {
	if cfg.Limiter == nil || cfg.Disconnect == nil || cfg.Log == nil || cfg.Trail == nil {
		return nil, errors.New("blocklist: every field of Config but Dir and Proxies is required")
	}
	b := &List{cfg: cfg}
	if cfg.Dir != "" {
		b.path = filepath.Join(cfg.Dir, "blocks.json")
	}
	return b, b.load()
}

// load puts in force what the file holds.
func (b *List) load() error {
	if b.path == "" {
		return nil
	}
	text, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var saved map[netip.Prefix]time.Time
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	now := time.Now()
	for network, until := range saved {
		if err == nil && until.After(now) {
			err = b.cfg.Limiter.Block(network, until)
		}
	}
	if err != nil {
		return fmt.Errorf("the blocks cannot be read: %w (mend or remove %s)", err, b.path)
	}
	return nil
}

// Block refuses a network until a time, or forever if that is zero, and ends
// its open connections. The network is one that [ParsePrefix] returns. A
// [RefusedError] changes nothing; force is for a network that is refused for
// its size alone. With any other error the network is blocked, but not in the
// file.
func (b *List) Block(network netip.Prefix, until time.Time, force bool) (Blocked, error) {
	if err := b.check(network, force); err != nil {
		return Blocked{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.cfg.Limiter.Blocks()
	if _, again := now[network]; !again && len(now) >= maxBlocks {
		return Blocked{}, RefusedError(fmt.Sprintf("%d networks are blocked already: use the firewall for more", maxBlocks))
	}
	if err := b.cfg.Limiter.Block(network, until); err != nil {
		return Blocked{}, err
	}
	done := Blocked{Block: b.entry(network, until)}
	done.Connections = b.cfg.Disconnect(func(addr netip.Addr) bool {
		// A translated IPv4 address is in its IPv4 network too.
		client := ratelimit.Fold(addr).Addr()
		return network.Contains(addr.Unmap().WithZone("")) || client.Is4() && network.Contains(client)
	})
	b.cfg.Log.Warn("network blocked", "network", network, "until", until, "connections", done.Connections)
	b.cfg.Trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "operator", Addr: network.String(), Until: done.Until, Count: uint64(done.Connections)})
	return done, b.save()
}

// check keeps a slip of the hand from shutting everybody out.
func (b *List) check(network netip.Prefix, force bool) error {
	if network.Bits() == 0 {
		if force {
			return nil
		}
		return RefusedError(fmt.Sprintf("%s is every address there is; force it (-force) if that is meant", network))
	}
	for _, proxy := range b.cfg.Proxies {
		if proxy.Overlaps(network) {
			return RefusedError(fmt.Sprintf("%s holds addresses of a trusted proxy (%s, of TRUSTED_PROXIES), from which everybody's connections come: "+
				"block the visitor's own address, or take it out of TRUSTED_PROXIES", network, proxy))
		}
	}
	return nil
}

// Unblock ends a block, and forgives the failures and penalties of all
// addresses in it. It reports whether there was anything to end.
func (b *List) Unblock(network netip.Prefix) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.cfg.Limiter.Unblock(network) {
		for wider := range b.cfg.Limiter.Blocks() {
			if wider.Overlaps(network) {
				return false, RefusedError(fmt.Sprintf("%s is not blocked by itself, but %s is", network, wider))
			}
		}
		return false, nil
	}
	b.cfg.Log.Info("network unblocked", "network", network)
	b.cfg.Trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "lifted", Addr: network.String()})
	return true, b.save()
}

// All returns the blocks that are in force, in order.
func (b *List) All() (list []Block) {
	for network, until := range b.cfg.Limiter.Blocks() {
		list = append(list, b.entry(network, until))
	}
	slices.SortFunc(list, func(x, y Block) int { return strings.Compare(x.Prefix.String(), y.Prefix.String()) })
	return list
}

func (b *List) entry(network netip.Prefix, until time.Time) Block {
	if until.IsZero() {
		return Block{Prefix: network}
	}
	return Block{Prefix: network, Until: &until, Lasting: b.path != ""}
}

// save writes all that has an end. What was blocked for ever in a hurry is not
// to be in force years later, where nobody remembers it.
func (b *List) save() error {
	if b.path == "" {
		return nil
	}
	lasting := make(map[netip.Prefix]time.Time)
	for network, until := range b.cfg.Limiter.Blocks() {
		if !until.IsZero() {
			lasting[network] = until
		}
	}
	text, err := json.MarshalIndent(lasting, "", "  ")
	if err != nil {
		return err
	}
	return files.Replace(b.path, text)
}

// RefusedError says why a network is not blocked, or not unblocked.
type RefusedError string

func (e RefusedError) Error() string { return string(e) }

// ParsePrefix reads a prefix, or an address, which stands for what counts as
// one client: itself, or the /64 of an IPv6 address.
func ParsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return ratelimit.Fold(addr), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, RefusedError(fmt.Sprintf("%q is no address, nor a prefix like 192.0.2.0/24", text))
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
