package browser_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// door is a proxy in front of a server. A test sets its answer to requests for
// the WebSocket.
type door struct {
	url   string
	proxy http.Handler

	mu      sync.Mutex
	answer  func(http.ResponseWriter, *http.Request) // if nil, the server answers
	changed chan struct{}
	half    bool // the modules of the page are not there
	conns   map[net.Conn]struct{}
}

func newDoor(t *testing.T, server *relay.Server) *door {
	t.Helper()
	d := &door{changed: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Addr})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		answer, half := d.answer, d.half
		d.mu.Unlock()
		if half && strings.HasSuffix(r.URL.Path, ".js") && r.URL.Path != "/start.js" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if r.URL.Path == "/ws" && answer != nil {
			answer(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	d.proxy = proxy
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if state == http.StateNew {
			d.conns[c] = struct{}{}
		} else if state == http.StateClosed {
			delete(d.conns, c) // upgraded connections are never reported as closed
		}
	}
	s.Start()
	t.Cleanup(func() {
		d.open()
		d.cut()
		s.Close()
	})
	d.url = s.URL + "/"
	return d
}

func (d *door) set(answer func(http.ResponseWriter, *http.Request)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = answer
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *door) open() { d.set(nil) }

// noUpgrades passes requests for the WebSocket on as a proxy does that does not
// know of upgrades.
func (d *door) noUpgrades() {
	d.set(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Connection")
		r.Header.Del("Upgrade")
		d.proxy.ServeHTTP(w, r)
	})
}

// hold leaves requests for the WebSocket unanswered until the next change of
// the door.
func (d *door) hold() {
	d.set(func(_ http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		changed := d.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	})
}

// status answers requests for the WebSocket with a status and no body, and with
// Retry-After if seconds is not 0.
func (d *door) status(code, seconds int) {
	d.set(func(w http.ResponseWriter, _ *http.Request) {
		if seconds != 0 {
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
		}
		w.WriteHeader(code)
	})
}

// halve makes the modules of the page fail, or lets the server answer them.
func (d *door) halve(half bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.half = half
}

// slam closes the connections of requests for the WebSocket without an answer.
func (d *door) slam() {
	d.set(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

// cut ends all open connections, as a failing network does.
func (d *door) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		_ = c.Close()
	}
	clear(d.conns)
}
