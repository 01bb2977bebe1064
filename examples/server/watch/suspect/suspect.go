// Package suspect notices clients that behave like no visitor does: many
// refused tokens, connections that end as soon as they began, pages of many
// foreign origins. It blocks nobody. It says so once, so that whoever reads the
// log sees one line and not thousands.
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

// Kind is what a client is suspected of.
type Kind string

// The kinds.
const (
	KindFailures Kind = "failures" // many refused tokens
	KindChurn    Kind = "churn"    // many connections that end soon after they began
	KindOrigins  Kind = "origins"  // pages of many different foreign origins
	KindFloods   Kind = "floods"   // frames that deliver nothing, on one connection
)

// Kinds returns all of them.
func Kinds() []Kind { return []Kind{KindFailures, KindChurn, KindOrigins, KindFloods} }

// Bounds of what is not suspicious yet. A page that is reloaded, a wall of
// screens behind one address and a mistyped token stay well within them.
const (
	Short = 10 * time.Second // a connection that ends within this counts as churn
	Quiet = 10 * time.Minute // how long nothing more is said of a client and kind

	maxFailures = 5  // within failuresIn: half of what blocks an address
	maxChurn    = 30 // within churnIn
	maxOrigins  = 5  // within originsIn
	maxFloods   = 0  // no visitor's browser sends one

	failuresIn = 10 * time.Minute
	churnIn    = time.Minute
	originsIn  = 10 * time.Minute
)

// Event says that a client is suspicious.
type Event struct {
	Kind   Kind
	Addr   netip.Addr // where the last of what was counted came from
	Count  int
	Within time.Duration // since the first of what was counted
}

// Detector counts by client, as package ratelimit tells clients apart. It holds
// a fixed number of them: the one that did nothing for longest makes room. It
// is safe for concurrent use.
type Detector struct {
	mu    sync.Mutex
	max   int
	seed  maphash.Seed
	order *list.List // of *client, the latest first
	byNet map[netip.Prefix]*list.Element
}

// client takes the same memory whatever it does.
type client struct {
	net                      netip.Prefix
	failures, churn, origins tally
	floods                   tally
	seen                     [maxOrigins]uint64 // hashes of the origins counted
}

// tally counts in a window that begins with the first of what is counted.
type tally struct {
	since, quiet time.Time
	n            int
}

// New returns a Detector of so many clients, at least one.
func New(clients int) *Detector {
	return &Detector{max: max(clients, 1), seed: maphash.MakeSeed(), order: list.New(), byNet: make(map[netip.Prefix]*list.Element)}
}

// Len returns how many clients are known.
func (d *Detector) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.byNet)
}

// Failed counts a refused token. Like its siblings it says whether that makes
// the client suspicious now.
func (d *Detector) Failed(addr netip.Addr, now time.Time) (Event, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.client(addr).failures.add(KindFailures, addr, maxFailures, failuresIn, now)
}

// Ended counts a connection that lasted so long, if that was short.
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

// Foreign counts a refused origin, unless it was counted already.
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

// client finds or makes that of addr, and makes it the latest.
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

// add counts one more, which is suspicious beyond most within a time.
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
