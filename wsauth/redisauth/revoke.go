package redisauth

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"
)

// record is what is known about the revocations of one device. All times are
// in µs of the engine's clock.
type record struct {
	Subject string `json:"s"`
	Before  int64  `json:"b,omitempty"` // tokens issued before are invalid; 0: none
	Made    int64  `json:"m,omitempty"` // when the last revocation was made
	Lifted  int64  `json:"l,omitempty"` // revocations made until then are taken back
}

// merged returns what is known from both. The later time wins.
func (r record) merged(o record) record {
	m := record{Subject: o.Subject, Lifted: max(r.Lifted, o.Lifted)}
	for _, x := range [...]record{r, o} {
		if x.Made > m.Lifted {
			m.Before, m.Made = max(m.Before, x.Before), max(m.Made, x.Made)
		}
	}
	return m
}

// inForce returns the time that the Gate needs, which is zero if the
// revocations were taken back.
func (r record) inForce() time.Time {
	if r.Before == 0 {
		return time.Time{}
	}
	return time.UnixMicro(r.Before)
}

// entry is a record of this node.
type entry struct {
	record record
	stored string // the record as the engine had it last, or empty
	behind bool   // record has more than the engine
}

// ledger are the records that this node knows, by name.
type ledger struct {
	mu      sync.Mutex
	entries map[string]*entry
}

// learn adds what the engine has under a name, and returns the result.
func (l *ledger) learn(name, stored string, r record) record {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[name]
	if e == nil {
		e = &entry{}
		l.entries[name] = e
	}
	e.record = e.record.merged(r)
	e.stored, e.behind = stored, e.record != r
	return e.record
}

// change makes f the next record under a name, if f does not return it
// unchanged.
func (l *ledger) change(name string, f func(record) record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[name]
	if e == nil {
		e = &entry{}
	}
	if next := f(e.record); next != e.record {
		e.record, e.behind = next, true
		l.entries[name] = e
	}
}

// get returns a copy of the entry under a name.
func (l *ledger) get(name string) (entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entries[name]; e != nil {
		return *e, true
	}
	return entry{}, false
}

// settled notes that the engine has r, as stored.
func (l *ledger) settled(name, stored string, r record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[name]
	e.stored, e.behind = stored, e.record != r
}

// inForce adds the revocations to all.
func (l *ledger) inForce(all map[string]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		all[e.record.Subject] = e.record.inForce()
	}
}

// behind returns the names whose record the engine lacks. present has, by name,
// what the engine has; nil means that it has not lost anything.
func (l *ledger) behind(present map[string]string) (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, e := range l.entries {
		if _, ok := present[name]; !ok && present != nil {
			e.stored, e.behind = "", true
		}
		if e.behind {
			names = append(names, name)
		}
	}
	return names
}

// maxAhead is how far in the future of the engine's clock a revocation may lie.
const maxAhead = time.Minute

// Revoke implements [wsauth.Shared]. A time more than a minute in the future of
// the engine's clock counts as in a minute.
func (a *Authority) Revoke(ctx context.Context, subject string, issuedBefore time.Time) error {
	name := a.seal.name(subject)
	now := a.engineNow()
	// A node rounds up, or a token of the last microsecond would stay valid.
	before := max(min(issuedBefore.Add(time.Microsecond-1).UnixMicro(), now+maxAhead.Microseconds()), 1)
	for {
		a.ledger.change(name, func(r record) record {
			r.Subject = subject
			r.Before = max(r.Before, before)
			r.Made = max(r.Made, r.Lifted+1, now)
			return r
		})
		if err := a.tell(ctx, name); err != nil {
			return err
		}
		// Another node, with a clock that is ahead, may have taken it back
		// before this node knew of that.
		if e, _ := a.ledger.get(name); e.record.Before >= before {
			return nil
		}
	}
}

// Unrevoke implements [wsauth.Shared].
func (a *Authority) Unrevoke(ctx context.Context, subject string) (bool, error) {
	name := a.seal.name(subject)
	was := false
	a.ledger.change(name, func(r record) record {
		if was = r.Before != 0; was {
			r = record{Subject: subject, Lifted: max(r.Lifted, r.Made, a.engineNow())}
		}
		return r
	})
	if !was {
		return false, a.ready() // or another node may know of one
	}
	return true, a.tell(ctx, name)
}

// tell gives the engine the record of a name.
func (a *Authority) tell(ctx context.Context, name string) error {
	if err := a.ready(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	return a.store(ctx, name)
}

var errContended = errors.New("redisauth: other nodes change the revocation all the time")

// store replaces the record in the engine by one that has all that the engine
// and this node know.
func (a *Authority) store(ctx context.Context, name string) error {
	for range 16 {
		e, ok := a.ledger.get(name)
		if !ok {
			return nil
		}
		sealed := a.seal.close(kindRevoked, name, encode(e.record))
		r, err := a.ask(ctx, putScript, []string{a.keys.head, a.keys.events, a.keys.revoked}, rand.Text(), name, e.stored, sealed)
		if err != nil {
			return err
		}
		reply, err := r.AsStrSlice()
		switch {
		case err != nil || len(reply) != 2:
			return errReply
		case reply[0] == "OK":
			a.ledger.settled(name, sealed, e.record)
			return nil
		case reply[1] == "": // the engine has lost it
			a.ledger.settled(name, "", record{})
			continue
		}
		var have record
		if err := a.seal.open(kindRevoked, name, reply[1], &have); err != nil {
			return err
		}
		if got := a.ledger.learn(name, reply[1], have); got == have {
			return nil // another node has told of it
		}
	}
	return errContended
}
