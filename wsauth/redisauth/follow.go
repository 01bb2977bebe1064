package redisauth

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/wsauth"
)

const (
	// blockFor is how long an XREAD waits for news: the contract of Follow
	// needs a call at least that often.
	blockFor = 200 * time.Millisecond
	// renewEvery is the time between two renewals of the lease, which also
	// find an engine that has lost its data.
	renewEvery = time.Second
	// pageSize is the number of events that one XREAD returns at most.
	pageSize = 500
	// keepEnd is how long the end of a session is kept for its node.
	keepEnd = 24 * time.Hour
)

// The waits between two tries to follow.
const (
	firstBackoff = 20 * time.Millisecond
	longBackoff  = time.Second
)

var errAgain = errors.New("redisauth: events were missed, and everything is loaded again")

// Follow implements [wsauth.Shared]. It returns at once after Close.
func (a *Authority) Follow(ctx context.Context, apply func(wsauth.SharedState)) {
	a.following.Lock()
	defer a.following.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	f := &following{a: a, apply: apply}
	var failing time.Time // since when, if it fails
	wait := firstBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := f.session(ctx, func() {
			failing, wait = time.Time{}, firstBackoff
			a.state(nil)
		})
		if ctx.Err() != nil {
			return
		}
		if failing.IsZero() {
			failing = began
		}
		answer, answered := answerIn(err)
		wrong := errors.Is(err, errSealed) || errors.Is(err, errReply) || answered && !passing(answer)
		if wrong || !errors.Is(err, errAgain) && time.Since(failing) >= a.cfg.Timeout {
			a.state(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, longBackoff)
	}
}

// state notes whether this node can follow the engine, and tells the caller of
// a change. Only Follow calls it.
func (a *Authority) state(err error) {
	switch was := a.down.Load(); {
	case err != nil:
		a.down.Store(&err)
		if was == nil {
			a.cfg.OnState(err)
		}
	case was != nil:
		a.down.Store(nil)
		a.cfg.OnState(nil)
	}
}

// passing reports whether the engine may answer a moment later: it fails over,
// or loads its data.
func passing(err error) bool {
	text := err.Error()
	for _, begin := range []string{"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED", "MOVED", "ASK"} {
		if strings.HasPrefix(text, begin) {
			return true
		}
	}
	return false
}

// following is the state of one call of Follow.
type following struct {
	a     *Authority
	apply func(wsauth.SharedState)

	id       string // of the engine's data; empty before the first load
	seq      uint64 // of the last event
	declared time.Time
}

// session follows the engine on one connection: what one engine says must not
// be mixed with what another one says.
func (f *following) session(ctx context.Context, well func()) error {
	a := f.a
	// A command that is bound to no connection makes the client look for the
	// master, or the owner of the slot, if the last one is gone.
	if _, err := a.renew(ctx, a.cfg.Client); err != nil {
		return err
	}
	conn, release := a.cfg.Client.Dedicate()
	defer release()
	defer conn.Close() // an XREAD may be under way
	if err := f.load(ctx, conn); err != nil {
		return err
	}
	well()
	a.resume()
	renewed := time.Now()
	for {
		sent := time.Now()
		st, err := f.read(ctx, conn)
		if err != nil {
			return err
		}
		st.AsOf = sent
		f.apply(st)
		if time.Since(renewed) < renewEvery {
			continue
		}
		l, err := a.renew(ctx, conn)
		switch {
		case err != nil:
			return err
		case l.id != f.id || l.seq < f.seq:
			return errAgain
		}
		renewed = time.Now()
		if l.lapsed || a.lapsed.Swap(false) || time.Since(f.declared) > deviceTTL/2 {
			if err := a.declare(ctx, conn); err != nil {
				return err
			}
			f.declared = time.Now()
		}
		if err := a.catchUp(ctx, nil); err != nil {
			return err
		}
		a.resume()
	}
}

// catchUp tells the engine what it lacks of revocations. present has what the
// engine has, and nil means that it has not lost anything.
func (a *Authority) catchUp(ctx context.Context, present map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	for _, name := range a.ledger.behind(present) {
		if err := a.store(ctx, name); err != nil && !errors.Is(err, errContended) {
			return err
		}
	}
	due := a.removed.take()
	var commands []rueidis.Completed
	for _, id := range due {
		commands = append(commands, a.cfg.Client.B().Del().Key(a.keys.family(id)).Build(),
			a.cfg.Client.B().Zrem().Key(a.keys.families).Member(id).Build())
	}
	if err := a.pipeline(ctx, a.cfg.Client, commands); err != nil {
		a.removed.due(due...)
		return err
	}
	return nil
}

// load loads everything, applies it, and gives the engine what it lacks.
func (f *following) load(ctx context.Context, conn rueidis.DedicatedClient) error {
	a := f.a
	began := time.Now()
	l, err := a.renew(ctx, conn)
	if err != nil {
		return err
	}
	one, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	replies := conn.DoMulti(one,
		conn.B().Hgetall().Key(a.keys.revoked).Build(),
		conn.B().Hgetall().Key(a.keys.ends).Build(),
		conn.B().Hgetall().Key(a.keys.own).Build())
	var hashes [3]map[string]string
	for i, r := range replies {
		if hashes[i], err = r.AsStrMap(); err != nil {
			return err
		}
	}
	present, ends, own := hashes[0], hashes[1], hashes[2]
	st := wsauth.SharedState{Revoked: make(map[string]time.Time), Ended: make(map[string]wsauth.Reason), AsOf: began}
	for name, sealed := range present {
		var r record
		if err := a.seal.open(kindRevoked, name, sealed, &r); err != nil {
			return err
		}
		a.ledger.learn(name, sealed, r)
	}
	a.ledger.inForce(st.Revoked)
	var old []rueidis.Completed
	for field, value := range ends {
		reason, at := readEnd(value)
		if id, mine := a.roster.idOf(field); mine {
			st.Ended[id] = reason
		} else if at < l.now-keepEnd.Microseconds() {
			old = append(old, conn.B().Hdel().Key(a.keys.ends).Field(field).Build())
		}
	}
	if f.id != "" {
		a.reloads.Add(1)
		if l.id != f.id {
			a.down.Store(&ErrLost)
			a.cfg.OnState(ErrLost)
		}
	}
	f.id, f.seq = l.id, l.seq
	f.apply(st)

	// Of a Join whose answer was lost, the session may have ended since.
	for field, sealed := range own {
		if _, mine := a.roster.idOf(field); !mine {
			var d described
			_ = a.seal.open(kindSession, field, sealed, &d) // what does not open is removed too
			old = append(old, a.forget(conn, field, a.deviceKey(d.Issuer, d.Subject))...)
		}
	}
	a.removed.again()
	if err := a.pipeline(ctx, conn, old); err != nil {
		return err
	}
	if err := a.declare(ctx, conn); err != nil {
		return err
	}
	f.declared = time.Now()
	a.lapsed.Store(false)
	return a.catchUp(ctx, present)
}

// read waits for events, and returns what they say.
func (f *following) read(ctx context.Context, conn rueidis.DedicatedClient) (st wsauth.SharedState, err error) {
	a := f.a
	// With a deadline, rueidis would not notice that ctx is cancelled.
	one, cancel := context.WithCancel(ctx)
	silence := time.AfterFunc(blockFor+a.cfg.Timeout, cancel)
	lists, err := conn.Do(one, conn.B().Xread().Count(pageSize).Block(blockFor.Milliseconds()).Streams().
		Key(a.keys.events).Id(strconv.FormatUint(f.seq, 10)+"-0").Build()).AsXReadSlices()
	silence.Stop()
	cancel()
	if rueidis.IsRedisNil(err) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	for _, x := range lists[a.keys.events] {
		e, err := readEvent(x)
		if err != nil {
			return st, err
		}
		if f.seq++; e.seq != f.seq {
			return st, errAgain // the events in between are gone
		}
		if err := a.digest(&st, e); err != nil {
			return st, err
		}
	}
	return st, nil
}

// event is an event as the scripts write it.
type event struct {
	seq               uint64
	kind, name, value string
}

func readEvent(x rueidis.XRangeSlice) (e event, err error) {
	number, rest, _ := strings.Cut(x.ID, "-")
	e.seq, err = strconv.ParseUint(number, 10, 64)
	if err != nil || rest != "0" {
		return e, errReply
	}
	for _, f := range x.FieldValues {
		switch f.Field {
		case "k":
			e.kind = f.Value
		case "n":
			e.name = f.Value
		case "v":
			e.value = f.Value
		}
	}
	return e, nil
}

// readEnd reads why and when a session was ended.
func readEnd(value string) (reason wsauth.Reason, at int64) {
	why, when, _ := strings.Cut(value, " ")
	at, _ = strconv.ParseInt(when, 10, 64) // what has no time is old
	if why == string(wsauth.ReasonReplaced) {
		return wsauth.ReasonReplaced, at
	}
	return wsauth.ReasonOperator, at
}

// digest adds to st what an event says.
func (a *Authority) digest(st *wsauth.SharedState, e event) error {
	switch e.kind {
	case "revoked":
		var r record
		if err := a.seal.open(kindRevoked, e.name, e.value, &r); err != nil {
			return err
		}
		if st.Revoked == nil {
			st.Revoked = make(map[string]time.Time)
		}
		st.Revoked[r.Subject] = a.ledger.learn(e.name, e.value, r).inForce()
	case "ended":
		if id, mine := a.roster.idOf(e.name); mine {
			if st.Ended == nil {
				st.Ended = make(map[string]wsauth.Reason)
			}
			st.Ended[id], _ = readEnd(e.value)
		}
	case "removed":
		a.removed.add(e.name)
	}
	return nil
}

// lease is the result of a renewal.
type lease struct {
	id     string // of the engine's data
	seq    uint64 // of the last event
	now    int64  // of the engine's clock, in µs
	lapsed bool   // other nodes may have dropped the sessions of this one
}

// renew renews the lease of this node.
func (a *Authority) renew(ctx context.Context, c rueidis.CoreClient) (l lease, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	before := time.Now()
	reply, err := renewScript.exec(ctx, c, []string{a.keys.head, a.keys.events, a.keys.nodes, a.keys.own},
		rand.Text(), a.node, strconv.FormatInt(a.cfg.Lease.Milliseconds(), 10)).AsStrSlice()
	if err != nil {
		return l, err
	}
	l, nodes, err := readLease(reply)
	if err != nil {
		return l, err
	}
	a.nodes.Store(nodes)
	a.skew.Store(l.now - before.Add(time.Since(before)/2).UnixMicro())
	return l, nil
}

func readLease(reply []string) (l lease, nodes int64, err error) {
	if len(reply) != 5 {
		return l, 0, errReply
	}
	l.id, l.lapsed = reply[0], reply[3] != ""
	var errs [3]error
	l.seq, errs[0] = strconv.ParseUint(reply[1], 10, 64)
	l.now, errs[1] = strconv.ParseInt(reply[2], 10, 64)
	nodes, errs[2] = strconv.ParseInt(reply[4], 10, 64)
	if errors.Join(errs[:]...) != nil {
		return l, 0, errReply
	}
	return l, nodes, nil
}
