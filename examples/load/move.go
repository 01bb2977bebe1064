//go:build unix

package main

import (
	"bytes"
	"math/rand/v2"
	"time"

	"github.com/relayguard/relayguard/examples/internal/mark"
)

// moves reports whether a viewer goes on at the next server if its own one
// drops it.
func (l *load) moves() bool { return len(l.to) > 1 && l.cfg.mode() == modeFanout }

// clear makes new tallies.
func (l *load) clear() {
	all := make([]tally, len(l.to)*tallies)
	l.tallies.Store(&all)
}

// tally returns a tally of a server's viewers.
func (l *load) tally(server, i int) *tally {
	return &(*l.tallies.Load())[server*tallies+i]
}

// put makes v a viewer of that server.
func (l *load) put(v *viewer, server int) {
	v.server, v.tally = server, l.tally(server, v.number%tallies)
}

// count adds one to an entry of a map that goroutines share.
func (l *load) count(m map[string]int, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m[name]++
}

// move connects v to the next server, from its position on. It tries all
// servers in turn until one accepts v. If the measurement ends before, move
// returns nil.
func (l *load) move(v *viewer) *dialled {
	server := v.server
	wait, told := v.away()
	if !told {
		wait = backOff(0)
	}
	for failures := 1; ; failures++ {
		if pause(l.resume, wait) != nil {
			return nil
		}
		wait = backOff(failures)
		server = (server + 1) % len(l.to)
		conn, err := l.dial(l.resume, v, l.to[server].since(v.place.pos))
		if err != nil {
			continue
		}
		why := v.dropped()
		if !v.replace(conn) {
			return nil
		}
		l.count(l.reconnects, why)
		l.put(v, server)
		l.greet(v)
		return conn
	}
}

// greet sends what -hello says.
func (l *load) greet(v *viewer) {
	for _, text := range l.cfg.hello {
		if v.send(opText, []byte(text)) != nil {
			return // v.read fails too
		}
	}
}

// replace makes conn the connection of v. If v has been stopped, replace closes
// conn and returns false.
func (v *viewer) replace(conn *dialled) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped {
		conn.Close()
		return false
	}
	v.conn.Close()
	v.conn = conn.Conn
	if v.events != nil {
		v.events = new(eventReader)
	}
	v.frames, v.tail, v.code, v.closing, v.err = frameReader{deflate: conn.deflate}, mark.Tail{}, 0, false, nil
	v.place.cut()
	return true
}

// backOff is how long a viewer waits after so many failures to connect again.
// The page waits as long (examples/server/web/page/backoff.js).
func backOff(failures int) time.Duration {
	const first, longest = time.Second, 30 * time.Second
	wait := min(longest, first<<min(failures, 10))
	return wait/2 + rand.N(wait/2)
}

// place is where a viewer is in the stream: the position in the last frame
// that arrived whole. The messages of a frame count only when it is whole,
// because a viewer that connects again gets the others anew.
type place struct {
	pos   string
	head  []byte // the beginning of the frame
	marks []seen // the messages in it
}

type seen struct{ n, at int64 }

// maxHead is how many bytes of a frame must hold its position.
const maxHead = 256

// add takes the next piece of a frame.
func (p *place) add(piece []byte) {
	p.head = append(p.head, piece[:min(len(piece), maxHead-len(p.head))]...)
}

// found takes a message of the frame.
func (p *place) found(n, at int64) { p.marks = append(p.marks, seen{n, at}) }

// end calls count for each message of the frame, which is whole.
func (p *place) end(count func(n, at int64)) {
	if _, rest, ok := bytes.Cut(p.head, []byte(`"pos":"`)); ok {
		if pos, _, ok := bytes.Cut(rest, []byte(`"`)); ok {
			p.pos = string(pos)
		}
	}
	for _, m := range p.marks {
		count(m.n, m.at)
	}
	p.cut()
}

// cut drops an incomplete frame.
func (p *place) cut() { p.head, p.marks = p.head[:0], p.marks[:0] }
