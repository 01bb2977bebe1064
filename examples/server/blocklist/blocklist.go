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

// maxBlocks is how many networks an operator can block by hand. A firewall is
// the tool for more.
const maxBlocks = 10_000

// Block is a network that the operator has blocked.
type Block struct {
	Prefix  netip.Prefix `json:"prefix"`
	Until   *time.Time   `json:"until,omitempty"`  // nil: forever
	Lasting bool         `json:"lasting"`          // the block outlasts a restart of the server
	Tokens  bool         `json:"tokens,omitempty"` // a penalty: the client may watch, and not send tokens
}

// Blocked is a block that has just been made.
type Blocked struct {
	Block
	Connections int `json:"connections"` // open connections that the block has ended
}

// Config configures a [List]. All fields but Dir, Shared and Proxies are
// required.
type Config struct {
	Limiter    *ratelimit.Limiter                    // refuses new connections
	Disconnect func(match func(netip.Addr) bool) int // ends open ones, and counts them
	Proxies    []netip.Prefix                        // trusted, and never blocked
	Penalties  func() map[netip.Prefix]time.Time     // clients that may not send tokens, and until when
	Forgive    func(netip.Prefix) bool               // ends the penalties in a network, if there are any
	Dir        string                                // keeps blocks that end; if empty, they are in memory only
	Shared     bool                                  // an engine keeps the blocks for all servers
	Log        *slog.Logger
	Trail      *trail.Trail
}

// List holds the blocks. If Config.Dir is set, a file keeps the blocks that
// end, and they outlast a restart. Only the server writes the file. A List is
// safe for concurrent use.
type List struct {
	cfg  Config
	path string // "": in memory only

	mu sync.Mutex // one change at a time
}

// New returns a List, and enforces the blocks in its file.
func New(cfg Config) (*List, error) {
	if cfg.Limiter == nil || cfg.Disconnect == nil || cfg.Penalties == nil || cfg.Forgive == nil || cfg.Log == nil || cfg.Trail == nil {
		return nil, errors.New("blocklist: every field of Config but Dir, Shared and Proxies is required")
	}
	b := &List{cfg: cfg}
	if cfg.Dir != "" {
		b.path = filepath.Join(cfg.Dir, "blocks.json")
	}
	return b, b.load()
}

// load enforces the blocks in the file that have not ended.
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
		return fmt.Errorf("the blocks cannot be read: %w (fix or remove %s)", err, b.path)
	}
	return nil
}

// Block refuses new connections from a network until a time, or forever if
// until is zero, and ends its open connections. network must be a prefix that
// [ParsePrefix] returned. force allows a prefix that contains every address. If
// the error is a [RefusedError], nothing has changed. With any other error the
// network is blocked, but the file does not have the block, or, if the error
// wraps [ratelimit.ErrLocal], other servers do not know of it yet.
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
	local := b.cfg.Limiter.Block(network, until)
	if local != nil && !errors.Is(local, ratelimit.ErrLocal) {
		return Blocked{}, local
	}
	done := Blocked{Block: b.entry(network, until), Connections: b.disconnect(network)}
	b.cfg.Log.Warn("network blocked", "network", network, "until", until, "connections", done.Connections)
	b.cfg.Trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "operator", Addr: network.String(), Until: done.Until, Count: uint64(done.Connections)})
	return done, errors.Join(local, b.save())
}

// disconnect ends the open connections of a network, and counts them.
func (b *List) disconnect(network netip.Prefix) int {
	return b.cfg.Disconnect(func(addr netip.Addr) bool {
		// A translated IPv4 address is in its IPv4 network too.
		client := ratelimit.Fold(addr).Addr()
		return network.Contains(addr.Unmap().WithZone("")) || client.Is4() && network.Contains(client)
	})
}

// Changed takes a change that another server has made, which is in force
// already. It is for OnShared of the limiter's [ratelimit.Config].
func (b *List) Changed(c ratelimit.SharedChange) {
	switch c.Kind {
	case ratelimit.SharedBlock:
		connections := b.disconnect(c.Network)
		e := b.entry(c.Network, c.Until)
		b.cfg.Log.Warn("network blocked", "network", c.Network, "until", c.Until, "connections", connections, "by", "another server")
		b.cfg.Trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "operator", Addr: c.Network.String(), Until: e.Until, Count: uint64(connections)})
	case ratelimit.SharedUnblock:
		b.cfg.Log.Info("network unblocked", "network", c.Network, "by", "another server")
		b.cfg.Trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "lifted", Addr: c.Network.String()})
	}
}

// check refuses a network that would shut out every visitor, because it is
// probably a mistake.
func (b *List) check(network netip.Prefix, force bool) error {
	if network.Bits() == 0 {
		if force {
			return nil
		}
		return RefusedError(fmt.Sprintf("%s contains every address; set force (-force) if you mean that", network))
	}
	for _, proxy := range b.cfg.Proxies {
		if proxy.Overlaps(network) {
			return RefusedError(fmt.Sprintf("%s contains addresses of a trusted proxy (%s in TRUSTED_PROXIES), through which all visitors connect: "+
				"block the visitor's own address, or remove the proxy from TRUSTED_PROXIES", network, proxy))
		}
	}
	return nil
}

// Unblock ends the block of exactly this network, and clears the failures and
// penalties of all addresses in the network. It reports whether there was a
// block, a failure or a penalty.
func (b *List) Unblock(network netip.Prefix) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	forgiven := b.cfg.Forgive(network)
	if !b.cfg.Limiter.Unblock(network) && !forgiven {
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

// All returns the current blocks and penalties, sorted by the text of their
// prefixes.
func (b *List) All() (list []Block) {
	for network, until := range b.cfg.Limiter.Blocks() {
		list = append(list, b.entry(network, until))
	}
	for client, until := range b.cfg.Penalties() {
		list = append(list, Block{Prefix: client, Until: &until, Tokens: true})
	}
	slices.SortFunc(list, func(x, y Block) int { return strings.Compare(x.Prefix.String(), y.Prefix.String()) })
	return list
}

func (b *List) entry(network netip.Prefix, until time.Time) Block {
	if until.IsZero() {
		return Block{Prefix: network, Lasting: b.cfg.Shared}
	}
	return Block{Prefix: network, Until: &until, Lasting: b.path != "" || b.cfg.Shared}
}

// save writes the blocks that end. A block forever is not saved: if an operator
// made it in a hurry, it must not be enforced years later, when no one
// remembers it.
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

// RefusedError is the reason why a network is not blocked, or not unblocked.
type RefusedError string

func (e RefusedError) Error() string { return string(e) }

// ParsePrefix parses a prefix or an address. For an address it returns the
// network that counts as one client: the address itself, or the /64 of an IPv6
// address. The error is a [RefusedError].
func ParsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return ratelimit.Fold(addr), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, RefusedError(fmt.Sprintf("%q is neither an address nor a prefix such as 192.0.2.0/24", text))
	}
	return ratelimit.FoldPrefix(p), nil
}
