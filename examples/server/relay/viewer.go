package relay

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// viewer is a connection. Those of its fields that are not atomic belong to the
// courier, from courier on, or to the goroutine of attend.
type viewer struct {
	conn    *wsconn.Conn // nil if it has a stream
	stream  *stream      // nil if it has a socket
	addr    netip.Addr
	since   time.Time
	session *wsauth.Session // nil before the first attend
	limit   *rate.Limiter   // nil until the first message: most peers never publish
	wake    func()          // attends to it again, after it was parked; made once

	courier *courier
	taken   func(error) // gets the result of a write that had to wait; made once

	pos     history.Position
	begun   bool // it has been given a frame
	fresh   bool // its first frame replaces the page's content
	blind   bool // it only publishes, and gets no frames
	busy    bool // a write is under way, or has failed
	pending load // the frame of that write
	listed  bool // it is one of the courier's viewers

	gone atomic.Bool
}

// newViewer returns a viewer that continues at the position in the request's
// parameter since, or in Last-Event-ID, which a browser sends when a stream was
// interrupted. A position that cannot be parsed counts as none: the client
// then gets the whole history, which is correct in every case, or with last=N
// its newest N messages. With watch=0 the client gets no frames.
//
// Whether the first frame replaces the content of the page is decided here, at
// the beginning: it does so if there is a history for a new page, or if the
// page shows another epoch or another server's log. If the page of a client
// that comes back shows this epoch, all that happens later is live to it, a
// restart signal included.
func (r *Relay) newViewer(req *http.Request, addr netip.Addr) *viewer {
	query := req.URL.Query()
	text := query.Get("since")
	if last := req.Header.Get("Last-Event-ID"); last != "" {
		text = last
	}
	since, err := history.ParsePosition(text)
	begins := err != nil || since == history.Oldest()
	if begins {
		since = history.Oldest()
		if n, err := strconv.Atoi(query.Get("last")); err == nil && n >= 0 {
			since = r.fanout.last(n)
		}
	}
	v := &viewer{addr: addr, since: time.Now(), pos: r.cfg.Log.Reader(since).Position(), blind: query.Get("watch") == "0"}
	if begins {
		missed := r.cfg.Log.Since(v.pos)
		v.fresh = len(missed.Entries) > 0 || len(missed.Pins()) > 0
	} else {
		v.fresh = r.cfg.Log.Since(since).Reset
	}
	v.wake = func() { r.attend(v) }
	v.taken = func(err error) {
		if err == nil {
			v.courier.wrote(v)
		} // else the connection is gone, and the read from it fails
	}
	return v
}

// start begins to write a frame. It returns what [wsconn.Conn.StartFrame] does.
func (v *viewer) start(s shared) (sent bool, err error) {
	if v.stream != nil {
		v.stream.frames <- s // has room: the courier waits for taken
		return false, nil
	}
	return v.conn.StartFrame(s.frame, v.taken)
}

// close ends the connection within its bounds.
func (v *viewer) close(code int, reason string) {
	if v.stream != nil {
		v.stream.close(code, reason)
		return
	}
	_ = v.conn.Close(code, reason)
}

// abort ends the connection at once.
func (v *viewer) abort() {
	if v.stream != nil {
		v.stream.abort()
		return
	}
	_ = v.conn.Abort()
}
