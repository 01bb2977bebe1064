package site

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/relayguard/relayguard/ratelimit"
)

// maxIdle is the number of idle HTTP connections of one client. A browser holds
// six, and an address may be that of many visitors.
const maxIdle = 100

// idle bounds the HTTP connections that each client keeps open between
// requests. Every such connection takes a file descriptor until idleWait has
// passed. Connections in a request are bounded by the other waits, and
// WebSocket connections by the limiter.
type idle struct {
	exempt func(netip.Addr) bool // trusted proxies, whose connections are those of many clients
	closed atomic.Uint64         // connections that were closed

	mu    sync.Mutex
	lists map[netip.Prefix]*list.List // by client; of net.Conn, the oldest first
	of    map[net.Conn]place
}

// place is where a connection is in the list of its client.
type place struct {
	client netip.Prefix
	at     *list.Element
}

func newIdle(exempt func(netip.Addr) bool) *idle {
	return &idle{exempt: exempt, lists: make(map[netip.Prefix]*list.List), of: make(map[net.Conn]place)}
}

// len returns how many connections are idle, those of proxies not included.
func (i *idle) len() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.of)
}

// changed is the ConnState of an [http.Server]. If a client has more idle
// connections than it may have, changed closes the oldest. A client that sends
// a request at this moment must send it again, as after any other end of an
// idle connection (RFC 9112, section 9.3.1).
func (i *idle) changed(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew: // nothing is known of it
	case http.StateIdle:
		addr, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err != nil || i.exempt(addr.Addr()) {
			return
		}
		if oldest := i.add(conn, ratelimit.Fold(addr.Addr())); oldest != nil {
			i.closed.Add(1)
			if c, ok := oldest.(interface{ NetConn() net.Conn }); ok {
				oldest = c.NetConn() // the close of a TLS connection would wait for its peer
			}
			_ = oldest.Close()
		}
	default:
		i.mu.Lock()
		defer i.mu.Unlock()
		i.remove(conn)
	}
}

// add returns the oldest connection of the client if it is one too many.
func (i *idle) add(conn net.Conn, client netip.Prefix) (oldest net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.remove(conn)
	all := i.lists[client]
	if all == nil {
		all = list.New()
		i.lists[client] = all
	}
	i.of[conn] = place{client, all.PushBack(conn)}
	if all.Len() > maxIdle {
		oldest = all.Front().Value.(net.Conn)
		i.remove(oldest)
	}
	return oldest
}

func (i *idle) remove(conn net.Conn) {
	p, known := i.of[conn]
	if !known {
		return
	}
	delete(i.of, conn)
	all := i.lists[p.client]
	if all.Remove(p.at); all.Len() == 0 {
		delete(i.lists, p.client)
	}
}
