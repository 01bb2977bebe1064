package redislimit

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/ratelimit"
)

const (
	// maxFlights is the number of scripts of decisions that are under way at
	// most, outside a cluster: the engine works on one while this process works
	// on the answers of the other.
	maxFlights = 2
	// maxTogether is the number of decisions of a script at most. The engine
	// serves nothing else while it decides them, for some 0.3 ms.
	maxTogether = 64
)

// decision is one call of Take.
type decision struct {
	rules    ratelimit.Rules
	deadline time.Time
	client   *client
	forgiven int64         // when failures of before were forgiven, in µs
	wake     chan struct{} // this decision has an answer, or leads
	with     []*decision   // those that it leads, itself the first

	// The answer, if answered is true.
	answered bool
	asked    bool   // the engine may have got the question
	number   string // of this node when it asked
	taken    ratelimit.Taken
	start    int64 // of the window
	err      error
}

// decide asks the engine. While so many questions are under way that another
// one would only wait there, the decision waits here, and travels with the
// others that do. The first of them leads: it asks for all.
//
// A decision that waits has an answer in time: what is under way ends by the
// deadline of the one that leads it, which is earlier.
func (l *Limits) decide(d *decision) {
	if l.cfg.Client.Mode() == rueidis.ClientModeCluster {
		// There, a script is about keys of one slot.
		l.ask([]*decision{d})
		return
	}
	l.queue.Lock()
	if l.flights < maxFlights { // so no decision waits
		l.flights++
		d.with = []*decision{d}
		l.queue.Unlock()
	} else {
		d.wake = make(chan struct{}, 1)
		l.waiting = append(l.waiting, d)
		l.queue.Unlock()
		if <-d.wake; d.answered {
			return
		}
	}
	l.ask(d.with)
	l.pass()
	for _, other := range d.with[1:] {
		other.answered = true
		other.wake <- struct{}{}
	}
}

// pass ends what was under way. The decision that has waited longest leads
// next, and those with the same rules travel with it.
func (l *Limits) pass() {
	l.queue.Lock()
	defer l.queue.Unlock()
	if len(l.waiting) == 0 {
		l.flights--
		return
	}
	next := l.waiting[0]
	next.with = make([]*decision, 0, min(len(l.waiting), maxTogether))
	stay := l.waiting[:0]
	for _, d := range l.waiting {
		if len(next.with) < maxTogether && d.rules == next.rules {
			next.with = append(next.with, d)
		} else {
			stay = append(stay, d)
		}
	}
	clear(l.waiting[len(stay):])
	l.waiting = stay
	next.wake <- struct{}{}
}

// ask asks the engine about decisions with the same rules.
func (l *Limits) ask(all []*decision) {
	first := all[0]
	err := l.readyBy(first.deadline)
	asked := err == nil
	var answers string
	number := first.number
	if asked {
		ctx, cancel := context.WithDeadline(context.Background(), first.deadline)
		defer cancel()
		var keys, args []string
		keys, args, number = l.question(all)
		if answers, err = takeScript.exec(ctx, l.cfg.Client, keys, args...).ToString(); err == nil && len(answers) != len(all)*answerSize {
			err = errReply
		}
	}
	for i, d := range all {
		d.asked, d.number, d.err = asked, number, err
		if err == nil {
			d.taken, d.start, d.err = taken(answers[i*answerSize : (i+1)*answerSize])
		}
	}
	for _, d := range all {
		if asked && d.err != nil {
			l.lost(d.err)
			return
		}
	}
}

// question returns the keys and the arguments of take, and the number of this
// node in them.
func (l *Limits) question(all []*decision) (keys, args []string, number string) {
	r := all[0].rules
	l.mu.Lock()
	view := l.view
	l.mu.Unlock()
	var buf [28]byte
	first, living := view.args(buf[:0], r.Window.Microseconds())
	for _, n := range [...]int{r.Limit, r.MaxAttempts, r.MaxOpen} {
		first = binary.BigEndian.AppendUint32(first, uint32(n))
	}
	ask := byte(0)
	if r.Ask {
		ask = 1
	}
	args = append(make([]string, 0, 3), string(append(first, ask)))
	keys = make([]string, 0, 2*len(all))
	for _, d := range all {
		keys = append(keys, d.client.key)
	}
	if living != "" || r.Penalty {
		args = append(args, living)
	}
	if r.Penalty {
		forgiven := make([]byte, 0, 7*len(all))
		for _, d := range all {
			keys = append(keys, failures(d.client.key))
			forgiven = append56(forgiven, d.forgiven)
		}
		args = append(args, string(forgiven))
	}
	return keys, args, view.number
}
