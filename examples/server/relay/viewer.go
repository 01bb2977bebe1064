package relay

import (
	"net/http"
	"sync/atomic"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// viewer is a connection as a courier sees it. The fields that are not atomic
// belong to the courier.
type viewer struct {
	conn    *wsconn.Conn
	courier *courier
	taken   func(error) // gets the result of a write that had to wait; made once

	pos     history.Position
	begun   bool // it has been given a frame
	fresh   bool // its first frame replaces the page's content, because there is a history
	resumed bool // the client claims that its page shows everything before pos
	busy    bool // a write is under way, or has failed
	pending load // the frame of that write
	listed  bool // it is one of the courier's viewers

	gone atomic.Bool
}

// newViewer returns a viewer that continues at the position in the request's
// parameter since. A position that cannot be parsed counts as none: the client
// then gets the whole history, which is correct in every case.
func (r *Relay) newViewer(req *http.Request) *viewer {
	since, err := history.ParsePosition(req.URL.Query().Get("since"))
	if err != nil {
		since = history.Oldest()
	}
	v := &viewer{pos: r.cfg.Log.Reader(since).Position(), resumed: since != history.Oldest()}
	v.fresh = !v.resumed && len(r.cfg.Log.Since(history.Oldest()).Entries) > 0
	v.taken = func(err error) {
		if err == nil {
			v.courier.wrote(v)
		} // else the connection is gone, and the read from it fails
	}
	return v
}
