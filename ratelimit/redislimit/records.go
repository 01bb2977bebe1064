package redislimit

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"github.com/relayguard/relayguard/ratelimit"
)

const (
	// minKeep is how long the end of a block is kept at least, so that nodes
	// that were away learn of it.
	minKeep = 48 * time.Hour
	// maxPenalties is the number of records up to which penalties are told to
	// all nodes. Beyond it, a node learns of a penalty from the engine, when
	// the client connects.
	maxPenalties = 20_000
	// maxForgiven is the number of clients whose failures are removed when the
	// engine is back.
	maxForgiven = 10_000
)

// change is what this node has learned.
type change struct{ ratelimit.SharedChange }

func (c *change) ended() bool {
	return c.Kind == ratelimit.SharedUnblock || c.Kind == ratelimit.SharedForgiven
}

// note keeps a record of this node or of another. The caller holds mu.
func (l *Limits) note(name string, r *record) {
	l.records[name] = r
	if r.kind == ratelimit.SharedUnblock {
		l.pardons[r.network] = max(l.pardons[r.network], r.at)
	}
}

// adopt notes that the engine has the record, and when it was made.
func (r *record) adopt(sealed string) {
	if at, err := stamped(sealed); err == nil {
		r.at, r.sealed, r.pending = at, sealed, false
	}
}

// learn keeps a record of the engine, unless this node has a newer one, and
// returns the change to apply, if any. The caller holds mu.
func (l *Limits) learn(name, sealed string) (*change, error) {
	have := l.records[name]
	if sealed == "" {
		return nil, nil
	}
	if len(sealed) >= timeSize && have != nil && have.sealed != "" && have.sealed[timeSize:] == sealed[timeSize:] {
		have.adopt(sealed)
		l.note(name, have)
		return nil, nil
	}
	r, err := l.seal.open(name, sealed)
	if err != nil {
		return nil, err
	}
	if have != nil && have.at > r.at {
		have.pending = true
		return nil, nil
	}
	l.note(name, r)
	c := &change{ratelimit.SharedChange{Kind: r.kind, Network: r.network, Until: l.fromEngine(r.until)}}
	over := r.until != 0 && r.until <= l.engineNow()
	if r.kind == ratelimit.SharedPenalty && (over || r.at <= l.pardoned(r.network)) || r.kind == ratelimit.SharedBlock && over {
		return nil, nil
	}
	return c, nil
}

// pardoned returns when the failures of a client were last removed together
// with those of its network, in µs. The caller holds mu.
func (l *Limits) pardoned(client netip.Prefix) (at int64) {
	for network, t := range l.pardons {
		if t > at && network.Overlaps(client) {
			at = t
		}
	}
	return at
}

// forgiven is pardoned for a client that may have no address. The caller holds
// mu.
func (l *Limits) forgiven(c ratelimit.Client) int64 {
	if c.ID != "" || !c.Network.IsValid() {
		return 0
	}
	return l.pardoned(c.Network)
}

// prune forgets records that have no more meaning. The caller holds mu.
func (l *Limits) prune() {
	now := l.engineNow()
	for name, r := range l.records {
		if r.forget != 0 && r.forget <= now {
			delete(l.records, name)
		}
	}
	for network, at := range l.pardons {
		if at+l.keep.Microseconds() <= now {
			delete(l.pardons, network)
		}
	}
}

// add keeps a change of this node, which the engine must be told.
func (l *Limits) add(kind ratelimit.SharedKind, network netip.Prefix, until time.Time) (name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &record{kind: kind, network: network, at: l.engineNow(), until: l.toEngine(until), pending: true}
	if r.forget = r.until; kind == ratelimit.SharedUnblock || kind == ratelimit.SharedForgiven {
		r.forget = r.at + l.keep.Microseconds()
	}
	name = r.name(l.seal)
	if have := l.records[name]; have != nil {
		r.at = max(r.at, have.at+1)
	}
	l.note(name, r)
	return name
}

// Block implements [ratelimit.Shared].
func (l *Limits) Block(ctx context.Context, network netip.Prefix, until time.Time) error {
	return l.change(ctx, ratelimit.SharedBlock, network, until)
}

// Unblock implements [ratelimit.Shared].
func (l *Limits) Unblock(ctx context.Context, network netip.Prefix) error {
	return l.change(ctx, ratelimit.SharedUnblock, network, time.Time{})
}

// change makes a change on this node and tells the engine.
func (l *Limits) change(ctx context.Context, kind ratelimit.SharedKind, network netip.Prefix, until time.Time) error {
	name := l.add(kind, network, until)
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	if err := l.ready(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	one, pending := l.putCall(name, true)
	l.mu.Unlock()
	if !pending {
		return nil
	}
	got, err := putScript.exec(ctx, l.cfg.Client, one.keys, one.args...).ToString()
	if err != nil {
		return l.lost(err)
	}
	l.told(name, one, got)
	return nil
}

// putCall returns the call that tells the engine of a record, and whether it
// must be told. now says that the change is made now, so that the engine sets
// its time. The caller holds mu.
func (l *Limits) putCall(name string, now bool) (one call, pending bool) {
	r := l.records[name]
	if r == nil || !r.pending {
		return one, false
	}
	if r.sealed == "" {
		r.sealed = l.seal.seal(name, r)
	}
	most, fresh := 0, "0"
	if r.kind == ratelimit.SharedPenalty {
		most = maxPenalties
	}
	if now {
		fresh = "1"
	}
	return call{putScript, l.shared, []string{name, r.sealed, strconv.FormatInt(r.forget, 10), strconv.Itoa(most), fresh}}, true
}

// told notes that the engine has answered a put. If it has a newer record, that
// comes by the next meeting.
func (l *Limits) told(name string, put call, got string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[name]
	if r == nil || r.sealed != put.args[1] {
		return // it has changed meanwhile, or a meeting was quicker
	}
	r.pending = false
	switch {
	case got == "": // there are too many penalties
		delete(l.records, name)
	case len(got) >= timeSize && got[timeSize:] == r.sealed[timeSize:]:
		r.adopt(got)
		l.note(name, r)
	}
}

// tellRecords tells the engine of records. It reports whether the engine
// answered.
func (l *Limits) tellRecords() bool {
	l.mu.Lock()
	var names []string
	for name, r := range l.records {
		if r.pending {
			names = append(names, name)
		}
	}
	l.mu.Unlock()
	for _, name := range names {
		l.mu.Lock()
		one, pending := l.putCall(name, false)
		l.mu.Unlock()
		if !pending {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), l.cfg.Timeout)
		got, err := putScript.exec(ctx, l.cfg.Client, one.keys, one.args...).ToString()
		cancel()
		if err != nil {
			l.lost(err)
			return false
		}
		l.told(name, one, got)
	}
	return true
}

// Fail implements [ratelimit.Shared].
func (l *Limits) Fail(ctx context.Context, c ratelimit.Client, p ratelimit.Penalty) (until time.Time, blocked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	if err := l.ready(ctx); err != nil {
		return until, false, err
	}
	keep := max(p.Within, 2*p.MaxBlock)
	l.mu.Lock()
	l.keep = max(l.keep, keep)
	forgiven := l.forgiven(c)
	l.mu.Unlock()
	micro := func(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
	reply, err := failScript.exec(ctx, l.cfg.Client, []string{failures(l.clientKey(c))},
		strconv.Itoa(p.Failures), micro(p.Within), micro(p.Block), micro(p.MaxBlock),
		strconv.FormatInt(max(1, keep.Milliseconds()), 10), strconv.FormatInt(forgiven, 10)).AsIntSlice()
	if err != nil {
		return until, false, l.lost(err)
	}
	if len(reply) != 2 {
		return until, false, errReply
	}
	if reply[0] == 0 {
		return until, false, nil
	}
	until = l.wall().Add(time.Duration(reply[1]) * time.Microsecond)
	if reply[0] == 2 && c.ID == "" && c.Network.IsValid() {
		l.add(ratelimit.SharedPenalty, c.Network, until)
		l.poke()
	}
	return until, true, nil
}

// Forgive implements [ratelimit.Shared].
func (l *Limits) Forgive(c ratelimit.Client) {
	l.mu.Lock()
	if len(l.forgive) < maxForgiven {
		l.forgive[failures(l.clientKey(c))] = true
	}
	penalty := false
	if c.ID == "" && c.Network.IsValid() {
		r := l.records[l.seal.name(namePenalty, c.Network, "")]
		penalty = r != nil && r.kind == ratelimit.SharedPenalty
	}
	l.mu.Unlock()
	if penalty {
		l.add(ratelimit.SharedForgiven, c.Network, time.Time{})
	}
	l.poke()
}

// tellForgiven removes failures of clients from the engine. It reports whether
// the engine answered.
func (l *Limits) tellForgiven() bool {
	for {
		l.mu.Lock()
		var keys []string
		var calls []call
		for key := range l.forgive {
			if len(calls) == atOnce {
				break
			}
			keys, calls = append(keys, key), append(calls, call{keys: []string{key}})
		}
		l.mu.Unlock()
		if len(calls) == 0 {
			return true
		}
		errs := l.tell(calls)
		l.mu.Lock()
		ok := true
		for i, key := range keys {
			if ok = ok && errs[i] == nil; errs[i] == nil {
				delete(l.forgive, key)
			}
		}
		l.mu.Unlock()
		if !ok {
			return false
		}
	}
}
