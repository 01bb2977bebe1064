package operate

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// DefaultBlock is how long a block lasts that says nothing about it.
const DefaultBlock = time.Hour

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

// Blocks is the list of blocked networks. Prefixes are given to it as [ParseNetwork]
// returns them.
type Blocks interface {
	// Block refuses a network until a time, zero meaning for ever, and ends its open
	// connections. A RefusedError changes nothing; force is for what would be one for
	// its size alone.
	Block(network netip.Prefix, until time.Time, force bool) (Blocked, error)
	// Unblock also forgives whoever is in the network. It says whether there was
	// anything to end.
	Unblock(network netip.Prefix) (bool, error)
	Blocks() []Block
}

// RefusedError says why a network is not blocked, or not unblocked.
type RefusedError string

func (e RefusedError) Error() string { return string(e) }

// ParseNetwork reads a prefix, or an address, which stands for what counts as one
// client: itself, or the /64 of an IPv6 address.
func ParseNetwork(text string) (netip.Prefix, error) {
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

func (c *Config) handleBlocks(mux *http.ServeMux) {
	mux.HandleFunc("GET /blocks", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, append([]Block{}, c.Blocks.Blocks()...))
	})
	mux.HandleFunc("POST /blocks", func(w http.ResponseWriter, r *http.Request) {
		done, err := c.block(r.URL.Query(), time.Now())
		if refused(w, err) {
			return
		}
		if err != nil {
			// The network is blocked all the same; what failed is to make it last.
			http.Error(w, "Blocked, but it will be forgotten at the next start: "+err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, done)
	})
	mux.HandleFunc("DELETE /blocks/{prefix...}", func(w http.ResponseWriter, r *http.Request) {
		network, err := ParseNetwork(r.PathValue("prefix"))
		if refused(w, err) {
			return
		}
		ok, err := c.Blocks.Unblock(network)
		if refused(w, err) {
			return
		}
		found(w, ok, err)
	})
}

func (c *Config) block(query url.Values, now time.Time) (Blocked, error) {
	network, err := ParseNetwork(query.Get("prefix"))
	if err != nil {
		return Blocked{}, err
	}
	until, err := blockEnd(query, now)
	if err != nil {
		return Blocked{}, err
	}
	force, err := flagged(query, "force")
	if err != nil {
		return Blocked{}, err
	}
	return c.Blocks.Block(network, until, force)
}

// blockEnd is when a block ends, zero meaning never, which has to be spelt.
func blockEnd(query url.Values, now time.Time) (time.Time, error) {
	ever, err := flagged(query, "forever")
	if err != nil {
		return time.Time{}, err
	}
	length, end := query.Get("for"), query.Get("until")
	switch {
	case ever && (length != "" || end != "") || length != "" && end != "":
		return time.Time{}, RefusedError("for, until and forever exclude each other")
	case ever:
		return time.Time{}, nil
	case end != "":
		until, err := time.Parse(time.RFC3339, end)
		if err != nil || !until.After(now) {
			return time.Time{}, RefusedError("until must be a time to come, like 2026-11-24T18:00:00Z")
		}
		return until, nil
	case length != "":
		d, err := time.ParseDuration(length)
		if err != nil || d <= 0 {
			return time.Time{}, RefusedError("for must be a duration like 90m or 24h")
		}
		return now.Add(d), nil
	}
	return now.Add(DefaultBlock), nil
}

func flagged(query url.Values, name string) (bool, error) {
	text := query.Get(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, RefusedError(name + " must be true or false")
	}
	return on, nil
}

// refused answers a RefusedError, and says whether err is one.
func refused(w http.ResponseWriter, err error) bool {
	why, ok := errors.AsType[RefusedError](err)
	if ok {
		http.Error(w, "Nothing was changed: "+why.Error(), http.StatusBadRequest)
	}
	return ok
}
