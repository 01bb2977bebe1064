// Package suspect detects clients that behave unlike a visitor: they show many
// refused tokens, open connections that end soon after they began, or use pages
// of many foreign origins. It does not block a client. It reports a client once
// and then not again for 10 minutes, so that an operator sees one line in the
// log and not thousands.
package suspect

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

// Kind is the behaviour for which a client is suspicious.
type Kind string

// The kinds.
const (
	KindFailures Kind = "failures" // many refused tokens
	KindChurn    Kind = "churn"    // many connections that end soon after they began
	KindOrigins  Kind = "origins"  // pages of many different foreign origins
	KindFloods   Kind = "floods"   // frames that deliver nothing, on one connection
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{KindFailures, KindChurn, KindOrigins, KindFloods} }

// A client is not suspicious up to these bounds. A page that is reloaded, a
// wall of screens behind one address and a mistyped token stay well within
// them.
const (
	Short = 10 * time.Second // a connection that ends within this counts as churn
	Quiet = 10 * time.Minute // after a report, the same client and kind are not reported for this long

	maxFailures = 5  // within failuresIn: half of the failures that block an address
	maxChurn    = 30 // within churnIn
	maxOrigins  = 5  // within originsIn
	maxFloods   = 0  // no visitor's browser sends one

	failuresIn = 10 * time.Minute
	churnIn    = time.Minute
	originsIn  = 10 * time.Minute
)

// Event reports a suspicious client.
type Event struct {
	Kind   Kind
	Addr   netip.Addr // of the last event that was counted
	Count  int
	Within time.Duration // since the first event that was counted
}

// Detector counts events by client. A client is one address or network, as in
// package ratelimit. A Detector holds a fixed number of clients: a new client
// replaces the one whose last event is the oldest. It is safe for concurrent
// use.
type Detector struct {
	mu    sync.Mutex
	max   int
	seed  maphash.Seed
	order *list.List // of *client, the latest first
	byNet map[netip.Prefix]*list.Element
}

// client has a fixed size, however many events it has.
type client struct {
	net                      netip.Prefix
	failures, churn, origins tally
	floods                   tally
	seen                     [maxOrigins]uint64 // hashes of the origins counted
}

// tally counts events in a window that begins with the first event.
type tally struct {
	since, quiet time.Time
	n            int
}

// New returns a Detector that holds this number of clients, at least one.
func New(clients int) *Detector {
	return &Detector{max: max(clients, 1), seed: maphash.MakeSeed(), order: list.New(), byNet: make(map[netip.Prefix]*list.Element)}
}

// Len returns the number of clients that d holds.
func (d *Detector) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.byNet)
}

// Failed counts a refused token. Failed, Ended and Foreign report whether the
// event makes the client suspicious.
func (d *Detector) Failed(addr netip.Addr, now time.Time) (Event, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.client(addr).failures.add(KindFailures, addr, maxFailures, failuresIn, now)
}

// Ended counts a connection if lasted is less than [Short].
func (d *Detector) Ended(addr netip.Addr, lasted time.Duration, now time.Time) (Event, bool) {
	if lasted >= Short {
		return Event{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.client(addr).churn.add(KindChurn, addr, maxChurn, churnIn, now)
}

// Flooded counts a connection that ended for a flood.
func (d *Detector) Flooded(addr netip.Addr, now time.Time) (Event, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.client(addr).floods.add(KindFloods, addr, maxFloods, 0, now)
}

// Foreign counts a refused origin, unless the window already counts it.
func (d *Detector) Foreign(addr netip.Addr, origin string, now time.Time) (Event, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, hash := d.client(addr), maphash.String(d.seed, origin)
	if now.Sub(c.origins.since) <= originsIn && slices.Contains(c.seen[:c.origins.n], hash) {
		return Event{}, false
	}
	e, suspicious := c.origins.add(KindOrigins, addr, maxOrigins, originsIn, now)
	if n := c.origins.n; n > 0 {
		c.seen[n-1] = hash
	}
	return e, suspicious
}

// client returns the client of addr and moves it to the front of order. If
// there is none, it makes one.
func (d *Detector) client(addr netip.Addr) *client {
	net := ratelimit.Fold(addr)
	if e, known := d.byNet[net]; known {
		d.order.MoveToFront(e)
		return e.Value.(*client)
	}
	if len(d.byNet) == d.max {
		last := d.order.Back()
		delete(d.byNet, d.order.Remove(last).(*client).net)
	}
	c := &client{net: net}
	d.byNet[net] = d.order.PushFront(c)
	return c
}

// add counts one event. It reports the client if there are more than most
// events within a time.
func (t *tally) add(kind Kind, addr netip.Addr, most int, within time.Duration, now time.Time) (Event, bool) {
	if now.Before(t.quiet) {
		return Event{}, false
	}
	if t.n == 0 || now.Sub(t.since) > within {
		t.since, t.n = now, 0
	}
	if t.n++; t.n <= most {
		return Event{}, false
	}
	e := Event{Kind: kind, Addr: addr, Count: t.n, Within: now.Sub(t.since)}
	*t = tally{quiet: now.Add(Quiet)}
	return e, true
}
