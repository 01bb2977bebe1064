package relay

import (
	"net/http"
	"sync/atomic"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// viewer is a connection as a courier sees it. What is not atomic belongs to
// the courier.
type viewer struct {
	conn    *wsconn.Conn
	courier *courier
	taken   func(error) // what a write that had to wait ends with; made once

	pos     history.Position
	begun   bool // it has had a frame
	fresh   bool // its first frame replaces what it shows, because there is a history
	resumed bool // it shows what led to pos, as it says
	busy    bool // a write is under way, or has failed
	pending load // what that write carries
	listed  bool // the courier comes by in every round

	gone atomic.Bool
}

// newViewer goes on where the client says that it was. A position that cannot
// be read counts as none: the client then gets the history, which is right in
// every case.
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
		} // else the connection is gone, and whoever reads from it finds out
	}
	return v
}
