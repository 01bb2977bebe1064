package redislimit

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/ratelimit"
)

// client is a client of which this node must tell the engine: it has open
// connections, or gives some back.
type client struct {
	key    string
	window int64 // in µs
	open   int   // connections of this node
	busy   int   // decisions under way
	moves  uint64
	sent   bool // the engine may know of it
	gives  []given

	// unsure is how often the engine must still be told the number of open
	// connections as a whole: twice if a command may yet come through, once for
	// a new lease.
	unsure int
}

// given are connections of a window that have ended.
type given struct {
	start                int64 // of the window; 0 if it is not known
	open, counted, tries int
}

// clientKey returns the key of a client.
func (l *Limits) clientKey(c ratelimit.Client) string {
	purpose := byte(nameClient)
	if c.Group {
		purpose = nameGroup
	}
	return l.cfg.Prefix + ":{" + l.seal.name(purpose, c.Network, c.ID) + "}"
}

// failures returns the key of the failures of the client with this key.
func failures(key string) string { return key + "f" }

// reasons are what take answers.
var reasons = [...]ratelimit.Reason{ratelimit.ReasonNone, ratelimit.ReasonPenalty, ratelimit.ReasonOpen, ratelimit.ReasonAttempts, ratelimit.ReasonLimit}

// answerSize is the size of an answer of take.
const answerSize = 19

// taken returns what an answer of take means, and the begin of the window.
func taken(answer string) (t ratelimit.Taken, start int64, err error) {
	if len(answer) != answerSize || int(answer[0]) >= len(reasons) {
		return t, 0, errReply
	}
	t.Reason, t.Remaining = reasons[answer[0]], int(answer[1])<<24|int(answer[2])<<16|int(answer[3])<<8|int(answer[4])
	micros := get56(answer[12:])
	if micros > math.MaxInt64/1000 { // more than a Duration holds
		return t, 0, errReply
	}
	left := time.Duration(micros) * time.Microsecond
	if t.Reason != ratelimit.ReasonPenalty {
		t.Reset = left
	}
	if t.Reason != ratelimit.ReasonNone && t.Reason != ratelimit.ReasonOpen {
		t.RetryAfter = left
	}
	return t, get56(answer[5:]), nil
}

// Take implements [ratelimit.Shared]. It does not end with ctx: a client that
// closes its connection early must be counted too.
func (l *Limits) Take(_ context.Context, c ratelimit.Client, r ratelimit.Rules) (t ratelimit.Taken, give func(undo bool), err error) {
	d := &decision{rules: r, deadline: time.Now().Add(l.cfg.Timeout)}
	d.err = l.readyBy(d.deadline)
	if l.ctx.Err() != nil {
		l.alone.Add(1)
		return t, nil, errClosed
	}
	l.enter(l.clientKey(c), c, d)
	if d.err == nil {
		l.decide(d)
	}
	if d.err != nil {
		l.alone.Add(1)
	}
	counted := !r.Ask && (d.err != nil || d.taken.Reason == ratelimit.ReasonNone)
	l.leave(d.client, d.number, counted, d.err != nil, d.asked && d.err != nil && !r.Ask)
	if counted {
		give = l.giver(d.client, d.start, r.Requests)
	}
	return d.taken, give, d.err
}

// enter begins a decision about a client.
func (l *Limits) enter(key string, named ratelimit.Client, d *decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[key]
	if c == nil {
		c = &client{key: key}
		l.clients[key] = c
	}
	c.window = d.rules.Window.Microseconds()
	c.busy++
	c.moves++
	c.sent = c.sent || d.err == nil && !d.rules.Ask
	d.client, d.number = c, l.view.number
	if d.rules.Penalty {
		d.forgiven = l.forgiven(named)
	}
}

// leave ends a decision about a client. counted says that the connection is
// open now, alone that the engine has not answered, and doubtful that it may
// have counted the connection even so.
func (l *Limits) leave(c *client, number string, counted, alone, doubtful bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.busy--
	c.moves++
	if counted {
		c.open++
	}
	switch {
	case doubtful:
		l.doubt(c, 2)
	case counted && (alone || number != l.view.number):
		l.doubt(c, 1)
	}
	l.tidy(c)
}

// doubt makes this node tell the engine the number of open connections as a
// whole.
func (l *Limits) doubt(c *client, times int) {
	c.unsure = max(c.unsure, times)
	for i := range c.gives {
		c.gives[i].open = 0
	}
	l.unsure[c] = true
}

// tidy forgets a client of which there is nothing to tell.
func (l *Limits) tidy(c *client) {
	if c.open == 0 && c.busy == 0 && (!c.sent || c.unsure == 0 && len(c.gives) == 0) {
		delete(l.clients, c.key)
		delete(l.changed, c)
		delete(l.unsure, c)
	}
}

// giver returns what gives a connection back.
func (l *Limits) giver(c *client, start int64, requests bool) func(undo bool) {
	given := false
	return func(undo bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if given || l.clients[c.key] != c {
			return
		}
		given = true
		c.open--
		c.moves++
		l.giveBack(c, start, !requests || undo, undo)
		l.tidy(c)
	}
}

// giveBack notes what to tell the engine of a connection that has ended.
func (l *Limits) giveBack(c *client, start int64, counted, attempt bool) {
	n := len(c.gives)
	if n == 0 || c.gives[n-1].start != start {
		c.gives = append(c.gives, given{start: start})
		n++
	}
	g := &c.gives[n-1]
	if c.unsure == 0 {
		g.open++
	}
	if counted {
		g.counted++
	}
	if attempt {
		g.tries++
	}
	l.changed[c] = true
	l.poke()
}

// poke makes the goroutine tell the engine what there is to tell.
func (l *Limits) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// giveCall returns the call that takes off what was given back, and whether
// there is anything.
func (l *Limits) giveCall(c *client) (call, bool) {
	first, living := l.view.args(nil, c.window)
	args := append(make([]string, 0, 7), string(first), living, "less", "")
	any, open := false, 0
	for _, g := range c.gives {
		open += g.open
		if g.start != 0 && g.counted+g.tries > 0 {
			args = append(args, strconv.FormatInt(g.start, 10), strconv.Itoa(g.counted), strconv.Itoa(g.tries))
			any = true
		}
	}
	args[3] = strconv.Itoa(open)
	return call{giveScript, []string{c.key}, args}, any || open > 0
}

// setCall returns the call that tells the number of open connections.
func (l *Limits) setCall(c *client, open int) call {
	first, living := l.view.args(nil, c.window)
	return call{giveScript, []string{c.key}, []string{string(first), living, "set", strconv.Itoa(open)}}
}

// farewell returns the calls that end everything of a client.
func (l *Limits) farewell(c *client) (calls []call) {
	if !c.sent {
		return nil
	}
	if one, any := l.giveCall(c); any {
		calls = append(calls, one)
	}
	if c.open > 0 || c.unsure > 0 {
		calls = append(calls, l.setCall(c, 0))
	}
	return calls
}

// atOnce is the number of calls that travel together.
const atOnce = 500

// tellGiven tells the engine what was given back. It reports whether the engine
// answered.
func (l *Limits) tellGiven() bool {
	for {
		l.mu.Lock()
		var list []*client
		var calls []call
		for c := range l.changed {
			delete(l.changed, c)
			if one, any := l.giveCall(c); any {
				list, calls = append(list, c), append(calls, one)
				c.busy++
			}
			c.gives = nil
			l.tidy(c)
			if len(calls) == atOnce {
				break
			}
		}
		l.mu.Unlock()
		if len(calls) == 0 {
			return true
		}
		errs := l.tell(calls)
		ok := true
		l.mu.Lock()
		for i, c := range list {
			c.busy--
			c.moves++
			if errs[i] != nil {
				l.doubt(c, 2)
				ok = false
			}
			l.tidy(c)
		}
		l.mu.Unlock()
		if !ok {
			return false
		}
	}
}

// tellWhole tells the engine the numbers of open connections that it may not
// have. It reports whether the engine answered.
func (l *Limits) tellWhole() bool {
	type telling struct {
		c     *client
		moves uint64
	}
	l.mu.Lock()
	var all []*client
	for c := range l.unsure {
		all = append(all, c)
	}
	l.mu.Unlock()
	for len(all) > 0 {
		n := min(len(all), atOnce)
		l.mu.Lock()
		var list []telling
		var calls []call
		for _, c := range all[:n] {
			if l.unsure[c] && c.busy == 0 {
				c.sent = true
				list, calls = append(list, telling{c, c.moves}), append(calls, l.setCall(c, c.open))
			}
		}
		l.mu.Unlock()
		all = all[n:]
		errs := l.tell(calls)
		ok := true
		l.mu.Lock()
		for i, t := range list {
			switch {
			case errs[i] != nil:
				ok = false
			case t.c.moves == t.moves:
				if t.c.unsure--; t.c.unsure == 0 {
					delete(l.unsure, t.c)
				}
			}
			l.tidy(t.c)
		}
		l.mu.Unlock()
		if !ok {
			return false
		}
	}
	return true
}

// tell makes calls together, and returns the error of each.
func (l *Limits) tell(calls []call) []error {
	if len(calls) == 0 {
		return nil
	}
	// So many calls may take longer than one.
	ctx, cancel := context.WithTimeout(context.Background(), max(l.cfg.Timeout, time.Second))
	defer cancel()
	errs := pipeline(ctx, l.cfg.Client, calls)
	for i, err := range errs {
		if answer, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(answer.Error(), "WRONGTYPE") {
			errs[i] = nil // what another program has written must not stop the rest
		} else if err != nil {
			l.lost(err)
		}
	}
	return errs
}
