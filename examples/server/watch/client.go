package watch

import "github.com/relayguard/relayguard/ratelimit"

// clientOf returns how the client of a decision is shown. An invalid Client is
// not a network, and must not look like one.
func clientOf(d ratelimit.Decision) string {
	switch {
	case d.Client.IsValid():
		return d.Client.String()
	case d.Coarse:
		return "others" // more clients than are counted one by one
	}
	return "unknown" // a peer without an address
}
