package redislimit

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/ratelimit"
)

// view is what this node knows of the engine and of the other nodes. It is
// never changed.
type view struct {
	id      string // of the engine's data
	number  string // of this node; "0" is none
	node    uint32 // the same
	known   uint32 // the highest number of a node
	version string // of the records
	nodes   int    // that have a lease

	// living has the numbers of the nodes with a lease, each with a space on
	// both sides. It is empty if there is no other node. Only the engine takes
	// a node off: if this node did so by the time, another one could renew its
	// lease in the same moment.
	living string
}

// args appends the beginning of the first argument of the scripts on a client,
// and returns the second one too.
func (v *view) args(b []byte, window int64) (first []byte, living string) {
	b = binary.BigEndian.AppendUint32(b, v.node)
	b = binary.BigEndian.AppendUint32(b, v.known)
	return append56(b, window), v.living
}

// get56 is the reverse of append56.
func get56(s string) (n int64) {
	for i := range 7 {
		n = n<<8 | int64(s[i])
	}
	return n
}

// append56 appends a number of 7 bytes, the size of a time in µs.
func append56(b []byte, n int64) []byte {
	return append(b, byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// Follow implements [ratelimit.Shared].
func (l *Limits) Follow(apply func(ratelimit.SharedChange)) {
	l.follow.Do(func() {
		l.apply = apply
		l.work.Go(l.run)
	})
}

// renewAll is the time after which this node tells the engine of all open
// connections again. The engine keeps them for twice as long.
const renewAll = 30 * time.Minute

// run meets the engine, and tells it what there is to tell, until Close.
func (l *Limits) run() {
	m := &meeting{l: l, declared: time.Now()}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-timer.C:
			if err := m.meet(); err != nil {
				l.lost(err)
			} else if l.tellAll() && l.tellWhole() {
				l.back()
			}
			timer.Reset(meetEvery)
		case <-l.wake:
			if l.away.Load() == nil {
				l.tellAll()
			}
		}
	}
}

// tellAll tells the engine what has changed. It reports whether the engine
// answered.
func (l *Limits) tellAll() bool { return l.tellRecords() && l.tellForgiven() && l.tellGiven() }

// declare makes this node tell the engine of all its open connections.
func (l *Limits) declare() {
	for _, c := range l.clients {
		l.doubt(c, 1)
	}
}

// meeting is the state of run.
type meeting struct {
	l        *Limits
	renewed  time.Time
	declared time.Time
	offset   int64         // as clock returned it last, in µs
	way      time.Duration // how long the engine's answer took then
	clocked  time.Time
	loaded   bool            // what the engine had at first is known
	present  map[string]bool // the records of the engine while all are loaded; nil: they are not
}

// meet renews the lease if that is due, and gets what has changed.
func (m *meeting) meet() error {
	for {
		more, err := m.page()
		if err != nil || !more {
			return err
		}
	}
}

// page gets a part of what has changed, and reports whether there is more.
func (m *meeting) page() (more bool, err error) {
	l := m.l
	ctx, cancel := context.WithTimeout(context.Background(), l.cfg.Timeout)
	defer cancel()
	l.mu.Lock()
	v := l.view
	l.mu.Unlock()
	renew := "0"
	sent := time.Now()
	if sent.Sub(m.renewed) >= l.cfg.Lease/3 {
		renew = "1"
	}
	reply, err := meetScript.exec(ctx, l.cfg.Client, l.shared,
		dataID(), v.number, strconv.FormatInt((l.cfg.Lease-notice).Microseconds(), 10), renew, v.id, v.version).ToArray()
	if err != nil {
		return false, err
	}
	got, err := metOf(reply)
	if err != nil {
		return false, err
	}
	if renew == "1" {
		m.renewed = sent
	}
	return m.take(v, got, m.clock(sent, got.now))
}

// clock returns the engine's clock less the time since began, in µs, after an
// answer of the engine to what was sent. Of the answers of ten seconds, the
// quickest one knows it best, unless the engine's clock has changed.
func (m *meeting) clock(sent time.Time, now int64) (offset int64) {
	way := time.Since(sent)
	offset = now - sent.Add(way/2).Sub(m.l.began).Microseconds()
	apart := time.Duration(offset-m.offset).Abs() * time.Microsecond
	if way <= m.way || sent.Sub(m.clocked) > 10*time.Second || apart > (way+m.way)/2+time.Millisecond {
		m.offset, m.way, m.clocked = offset, way, sent
	}
	return m.offset
}

// met is the answer of meet.
type met struct {
	view
	now     int64
	whole   bool
	changes []string // names and records
}

// metOf returns what an answer of meet means.
func metOf(reply []rueidis.RedisMessage) (got met, err error) {
	if len(reply) != 8 {
		return got, errReply
	}
	var text [6]string
	for i := range text {
		if text[i], err = reply[i].ToString(); err != nil {
			return got, errReply
		}
	}
	got.id, got.number, got.version, got.whole = text[0], text[1], text[4], text[5] == "1"
	node, err3 := strconv.ParseUint(text[1], 10, 32)
	known, err4 := strconv.ParseUint(text[3], 10, 32)
	got.node, got.known = uint32(node), uint32(known)
	nodes, err1 := reply[6].AsStrSlice()
	if got.nodes = len(nodes); got.nodes > 1 || got.nodes == 1 && nodes[0] != got.number {
		got.living = " " + strings.Join(nodes, " ") + " "
	}
	changes, err2 := reply[7].AsStrSlice()
	got.changes = changes
	if errors.Join(err1, err2, err3, err4) != nil || len(changes)%2 != 0 {
		return got, errReply
	}
	if got.now, err = strconv.ParseInt(text[2], 10, 64); err != nil {
		return got, errReply
	}
	return got, nil
}

// take makes what a meeting has brought known. offset is the engine's clock
// less the time since began, in µs.
func (m *meeting) take(before *view, got met, offset int64) (more bool, err error) {
	l := m.l
	first := before.id == ""
	if !first && got.id != before.id {
		l.states.Lock()
		l.away.Store(&lostData)
		l.since = time.Now().Add(-skipFor) // until all is told
		l.cfg.OnState(ErrLost)
		l.states.Unlock()
	}
	l.mu.Lock()
	delta := offset - l.offset.Swap(offset)
	if first {
		for _, r := range l.records { // they were made by the clock of this process
			r.at += delta
		}
	}
	if got.whole {
		m.present = make(map[string]bool)
	}
	if got.number != before.number || got.whole || time.Since(m.declared) >= renewAll {
		l.declare()
		m.declared = time.Now()
	}
	var applied []ratelimit.SharedChange
	for i := 0; i < len(got.changes); i += 2 {
		name := got.changes[i]
		if m.present != nil {
			m.present[name] = true
		}
		change, wrong := l.learn(name, got.changes[i+1])
		switch {
		case wrong != nil:
			err = wrong
		case change != nil && (m.loaded || !change.ended()):
			applied = append(applied, change.SharedChange)
		}
	}
	more = len(got.changes) == 2*pageSize
	if m.present != nil && !more {
		for name, r := range l.records {
			r.pending = r.pending || !m.present[name]
		}
		m.present = nil
	}
	l.prune()
	if err == nil {
		v := got.view
		l.view = &v
	}
	l.mu.Unlock()
	for _, c := range applied {
		l.apply(c)
	}
	if !m.loaded && err == nil && !more {
		m.loaded = true
		close(l.met)
	}
	return more && err == nil, err
}

// pageSize is the number of records that a meeting brings at most.
const pageSize = 500
