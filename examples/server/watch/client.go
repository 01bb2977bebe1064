package watch

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/relayguard/relayguard/ratelimit"
)

// withClient appends to a record the network that counts as the client of its
// addr, so that programs that read the log can count as the limiter does. It
// appends the room too, unless that is empty.
type withClient struct {
	slog.Handler
	room string
}

func (h withClient) Handle(ctx context.Context, r slog.Record) error {
	var client netip.Prefix
	r.Attrs(func(a slog.Attr) bool {
		addr, ok := a.Value.Any().(netip.Addr)
		if ok && a.Key == "addr" {
			client = clientOf(addr)
		}
		return !client.IsValid()
	})
	r = r.Clone()
	if client.IsValid() {
		r.AddAttrs(slog.Any("client", client))
	}
	if h.room != "" {
		r.AddAttrs(slog.String("room", h.room))
	}
	return h.Handler.Handle(ctx, r)
}

// clientOf returns the network of [ratelimit.Fold]. This machine is no network:
// the /64 of ::1 would be a prefix that firewalls and their tools do not take.
func clientOf(addr netip.Addr) netip.Prefix {
	if addr.IsLoopback() {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
	}
	return ratelimit.Fold(addr)
}

// clientName returns how the client of a decision is shown. An invalid Client
// is not a network, and must not look like one.
func clientName(d ratelimit.Decision) string {
	switch {
	case d.Client.IsValid():
		return d.Client.String()
	case d.Coarse:
		return "others" // more clients than are counted one by one
	}
	return "unknown" // a peer without an address
}
