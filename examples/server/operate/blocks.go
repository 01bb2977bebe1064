package operate

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/relayguard/relayguard/examples/server/blocklist"
	"github.com/relayguard/relayguard/ratelimit"
)

// DefaultBlock is how long a block lasts if the call sets no end.
const DefaultBlock = time.Hour

func (c *Config) handleBlocks(mux *http.ServeMux) {
	mux.HandleFunc("GET /blocks", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, append([]blocklist.Block{}, c.Blocks.All()...))
	})
	mux.HandleFunc("POST /blocks", func(w http.ResponseWriter, r *http.Request) {
		done, err := c.block(r.URL.Query(), time.Now())
		if refused(w, err) {
			return
		}
		if errors.Is(err, ratelimit.ErrLocal) {
			http.Error(w, "Blocked on this server; the others will know of it when the engine answers again: "+err.Error(), http.StatusInternalServerError)
			return
		}
		if err != nil {
			// The network is blocked; only writing the block failed.
			http.Error(w, "Blocked, but it will be forgotten at the next start: "+err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, done)
	})
	mux.HandleFunc("DELETE /blocks/{prefix...}", func(w http.ResponseWriter, r *http.Request) {
		network, err := blocklist.ParsePrefix(r.PathValue("prefix"))
		if refused(w, err) {
			return
		}
		ok, err := c.Blocks.Unblock(network)
		if refused(w, err) {
			return
		}
		found(w, "block of "+network.String()+", and no failure or penalty in it", ok, err)
	})
}

func (c *Config) block(query url.Values, now time.Time) (blocklist.Blocked, error) {
	network, err := blocklist.ParsePrefix(query.Get("prefix"))
	if err != nil {
		return blocklist.Blocked{}, err
	}
	until, err := blockEnd(query, now)
	if err != nil {
		return blocklist.Blocked{}, err
	}
	force, err := flagged(query, "force")
	if err != nil {
		return blocklist.Blocked{}, err
	}
	return c.Blocks.Block(network, until, force)
}

// blockEnd returns the time at which a block ends. The zero time means never,
// which a call gets only with forever=true.
func blockEnd(query url.Values, now time.Time) (time.Time, error) {
	ever, err := flagged(query, "forever")
	if err != nil {
		return time.Time{}, err
	}
	length, end := query.Get("for"), query.Get("until")
	switch {
	case ever && (length != "" || end != "") || length != "" && end != "":
		return time.Time{}, blocklist.RefusedError("for, until and forever exclude each other")
	case ever:
		return time.Time{}, nil
	case end != "":
		until, err := time.Parse(time.RFC3339, end)
		if err != nil || !until.After(now) {
			return time.Time{}, blocklist.RefusedError("until must be a time in the future, like 2026-11-24T18:00:00Z")
		}
		return until, nil
	case length != "":
		d, err := time.ParseDuration(length)
		if err != nil || d <= 0 {
			return time.Time{}, blocklist.RefusedError("for must be a duration like 90m or 24h")
		}
		return now.Add(d), nil
	}
	return now.Add(DefaultBlock), nil
}

// flagged returns the boolean parameter of a query, which is false if missing.
func flagged(query url.Values, name string) (bool, error) {
	text := query.Get(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, blocklist.RefusedError(name + " must be true or false")
	}
	return on, nil
}

// refused answers 400 if err is a [blocklist.RefusedError], and reports whether
// it is.
func refused(w http.ResponseWriter, err error) bool {
	why, ok := errors.AsType[blocklist.RefusedError](err)
	if ok {
		http.Error(w, "Nothing was changed: "+why.Error(), http.StatusBadRequest)
	}
	return ok
}

// Blocks asks for the networks that are blocked by hand.
func (c *Client) Blocks(ctx context.Context) ([]blocklist.Block, error) {
	return get[[]blocklist.Block](ctx, c, http.MethodGet, "/blocks")
}

// Block blocks a network for a time, or forever if that is 0, and ends its open
// connections. force blocks a network that would be refused only for its size.
func (c *Client) Block(ctx context.Context, network netip.Prefix, length time.Duration, force bool) (blocklist.Blocked, error) {
	query := url.Values{"prefix": {network.String()}}
	if length == 0 {
		query.Set("forever", "true")
	} else {
		query.Set("for", length.String())
	}
	if force {
		query.Set("force", "true")
	}
	return get[blocklist.Blocked](ctx, c, http.MethodPost, "/blocks?"+query.Encode())
}

// Unblock ends a block, and forgives failures and penalties in it.
func (c *Client) Unblock(ctx context.Context, network netip.Prefix) error {
	return c.do(ctx, http.MethodDelete, "/blocks/"+network.String())
}
