package main

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
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/ratelimit"
)

// maxBlocks is how many networks may be blocked by hand; more are a firewall's work.
const maxBlocks = 10_000

// blocks are the networks that the operator has blocked. Those with an end are in a
// file, if there is a directory for it, and outlast a restart. Only the server
// writes it.
type blocks struct {
	limiter    *ratelimit.Limiter
	proxies    []netip.Prefix
	disconnect func(match func(netip.Addr) bool) int
	log        *slog.Logger
	trail      *trail.Trail
	path       string // "": in memory only

	mu sync.Mutex // one change at a time
}

// load puts in force what the file holds.
func (b *blocks) load(dir string) error {
	if dir == "" {
		return nil
	}
	b.path = filepath.Join(dir, "blocks.json")
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
			err = b.limiter.Block(network, until)
		}
	}
	if err != nil {
		return fmt.Errorf("the blocks cannot be read: %w (mend or remove %s)", err, b.path)
	}
	return nil
}

// Block implements operate.Blocks.
func (b *blocks) Block(network netip.Prefix, until time.Time, force bool) (operate.Blocked, error) {
	if err := b.check(network, force); err != nil {
		return operate.Blocked{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.limiter.Blocks()
	if _, again := now[network]; !again && len(now) >= maxBlocks {
		return operate.Blocked{}, operate.RefusedError(fmt.Sprintf("%d networks are blocked already: use the firewall for more", maxBlocks))
	}
	if err := b.limiter.Block(network, until); err != nil {
		return operate.Blocked{}, err
	}
	done := operate.Blocked{Block: b.entry(network, until)}
	done.Connections = b.disconnect(func(addr netip.Addr) bool { return network.Contains(addr.Unmap().WithZone("")) })
	b.log.Warn("network blocked", "network", network, "until", until, "connections", done.Connections)
	b.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "operator", Addr: network.String(), Until: done.Until, Count: uint64(done.Connections)})
	return done, b.save()
}

// check keeps a slip of the hand from shutting everybody out.
func (b *blocks) check(network netip.Prefix, force bool) error {
	if network.Bits() == 0 {
		if force {
			return nil
		}
		return operate.RefusedError(fmt.Sprintf("%s is every address there is; force it (-force) if that is meant", network))
	}
	for _, proxy := range b.proxies {
		if proxy.Overlaps(network) {
			return operate.RefusedError(fmt.Sprintf("%s holds addresses of a trusted proxy (%s, of TRUSTED_PROXIES), from which everybody's connections come: "+
				"block the visitor's own address, or take it out of TRUSTED_PROXIES", network, proxy))
		}
	}
	return nil
}

// Unblock implements operate.Blocks.
func (b *blocks) Unblock(network netip.Prefix) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.limiter.Unblock(network) {
		for wider := range b.limiter.Blocks() {
			if wider.Overlaps(network) {
				return false, operate.RefusedError(fmt.Sprintf("%s is not blocked by itself, but %s is", network, wider))
			}
		}
		return false, nil
	}
	b.log.Info("network unblocked", "network", network)
	b.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "lifted", Addr: network.String()})
	return true, b.save()
}

// Blocks implements operate.Blocks.
func (b *blocks) Blocks() (list []operate.Block) {
	for network, until := range b.limiter.Blocks() {
		list = append(list, b.entry(network, until))
	}
	slices.SortFunc(list, func(x, y operate.Block) int { return strings.Compare(x.Prefix.String(), y.Prefix.String()) })
	return list
}

func (b *blocks) entry(network netip.Prefix, until time.Time) operate.Block {
	if until.IsZero() {
		return operate.Block{Prefix: network}
	}
	return operate.Block{Prefix: network, Until: &until, Lasting: b.path != ""}
}

// save writes all that has an end. What was blocked for ever in a hurry is not to be
// in force years later, where nobody remembers it.
func (b *blocks) save() error {
	if b.path == "" {
		return nil
	}
	lasting := make(map[netip.Prefix]time.Time)
	for network, until := range b.limiter.Blocks() {
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
