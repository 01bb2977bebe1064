package redislog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
)

// A call of a script carries at most this many appends, and so many bytes that
// the engine is not busy with them for long.
const (
	mostAppends = 512
	mostBytes   = 1 << 20
)

// The waits between two tries of a change.
const (
	firstWait = 10 * time.Millisecond
	longWait  = 200 * time.Millisecond
)

// request is a change that waits for its turn.
type request struct {
	change history.Change
	done   chan struct{} // closed when result and err are set
	result history.Committed
	err    error
}

// plain reports whether the change can travel with others.
func (r *request) plain() bool {
	c := &r.change
	return c.If == history.Head{} && !c.Replace && len(c.Delete) == 0 && !c.Finish && len(c.Append) == 1
}

// Commit implements [history.Origin].
func (o *origin) Commit(ctx context.Context, c history.Change) (history.Committed, error) {
	r := &request{change: c, done: make(chan struct{})}
	o.mu.Lock()
	o.queue = append(o.queue, r)
	if !o.running {
		o.running = true
		o.work.Go(o.run)
	}
	o.mu.Unlock()
	select {
	case <-r.done:
		return r.result, r.err
	case <-ctx.Done():
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, q := range o.queue {
		if q == r { // its turn has not come
			o.queue = append(o.queue[:i:i], o.queue[i+1:]...)
			return history.Committed{}, ctx.Err()
		}
	}
	return history.Committed{}, fmt.Errorf("redislog: %w: %w", history.ErrUncertain, ctx.Err())
}

// run makes the changes that wait, one call after the other, so that each
// number of this process is decided before the next. It ends if none waits.
func (o *origin) run() {
	for {
		runtime.Gosched() // others may be about to append
		o.mu.Lock()
		together := o.take()
		if len(together) == 0 {
			o.running = false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		o.make(together)
	}
}

// take removes the first change from the queue, with the appends that can
// travel with it. The caller holds mu.
func (o *origin) take() []*request {
	if len(o.queue) == 0 {
		return nil
	}
	n, size := 1, 0
	if o.queue[0].plain() {
		size = len(o.queue[0].change.Append[0])
		for n < len(o.queue) && n < mostAppends && o.queue[n].plain() {
			if size += len(o.queue[n].change.Append[0]); size > mostBytes {
				break
			}
			n++
		}
	}
	together := o.queue[:n:n]
	o.queue = o.queue[n:]
	return together
}

// make makes one change, or several appends as one, and answers the callers.
func (o *origin) make(together []*request) {
	c := together[0].change
	for _, r := range together[1:] {
		c.Append = append(c.Append[:len(c.Append):len(c.Append)], r.change.Append...)
	}
	result, err := o.make1(&c)
	for i, r := range together {
		r.result, r.err = result, err
		if err == nil && len(together) > 1 {
			r.result.Head.Last -= uint64(len(together) - 1 - i)
		}
		close(r.done)
	}
}

// make1 makes one change. If no answer comes, it asks again under the same
// number, until Timeout.
func (o *origin) make1(c *history.Change) (history.Committed, error) {
	ctx, cancel := context.WithTimeout(o.ctx, o.e.cfg.Timeout)
	defer cancel()
	o.number++
	key := o.dataKey()
	var lost error // the error of a call whose answer never came
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		reply, err := o.call(ctx, c, key)
		switch {
		case err == nil && reply.status == "KEY":
			// Another process has replaced the log, and so its data key.
			if key, err = o.seal.open(reply.keyID, reply.key); err != nil {
				return history.Committed{}, err
			}
			continue
		case err == nil:
			return reply.committed(o)
		}
		answer, answered := rueidis.IsRedisErr(err)
		switch {
		case answered && !passing(answer):
			return history.Committed{}, unmade(lost, answer)
		case !answered:
			lost = err
			o.e.retries.Add(1)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return history.Committed{}, unmade(lost, err)
		}
	}
}

// passing reports whether the engine may take the change a moment later: it
// fails over, loads its data, or the slot of a cluster moves.
func passing(err error) bool {
	text := err.Error()
	for _, begin := range []string{"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN", "BUSY", "UNBLOCKED", "NOREPLICAS"} {
		if strings.HasPrefix(text, begin) {
			return true
		}
	}
	return false
}

// unmade returns the error of a change that is not made, or that may be made if
// the answer of a call was lost.
func unmade(lost, err error) error {
	if lost != nil {
		return fmt.Errorf("redislog: the engine does not answer: %w: %w", history.ErrUncertain, lost)
	}
	return fmt.Errorf("redislog: the engine refuses the change, and nothing is changed: %w", err)
}

// call calls the script once.
func (o *origin) call(ctx context.Context, c *history.Change, key *dataKey) (reply, error) {
	script, what, next := appendScript, "a", &dataKey{}
	sealKey := key
	switch {
	case c.Replace:
		script, what, next = eraseScript, "r", o.seal.fresh()
		sealKey = next
	case len(c.Delete) > 0:
		script, what = eraseScript, "d"
	case c.Finish:
		script, what = eraseScript, "f"
	case len(c.Append) == 0:
		script, what = eraseScript, "n"
	}
	args := make([]string, 0, 16+2*len(c.Append)+len(c.Delete))
	args = append(args, newLine(), strconv.FormatUint(o.number, 10), key.wrapped, key.id,
		what, o.limits[0], o.limits[1], o.limits[2])
	if (c.If == history.Head{}) {
		args = append(args, "", "0", "0")
	} else {
		args = append(args, strconv.FormatUint(c.If.Line, 10), strconv.FormatUint(c.If.Epoch, 10), strconv.FormatUint(c.If.Last, 10))
	}
	note, notes := "", ","
	if c.Note != nil {
		note = "n" + o.seal.seal(sealKey, "note", c.Note)
		for i, data := range c.Append {
			if bytes.Equal(data, c.Note) {
				notes += strconv.Itoa(i+1) + ","
			}
		}
	}
	args = append(args, note, notes, next.wrapped, next.id, o.pins(sealKey, c))
	for _, seq := range c.Delete {
		args = append(args, strconv.FormatUint(seq, 10))
	}
	for _, data := range c.Append {
		args = append(args, strconv.Itoa(len(data)), o.seal.seal(sealKey, "entry", data))
	}
	keys := []string{o.head, o.log, o.record, o.pinned}
	if o.e.cfg.Replicas == 0 || (!c.Replace && len(c.Delete) == 0) {
		return readReply(script.exec(ctx, o.e.cfg.Client, keys, args))
	}
	// WAIT counts the replicas that have the last write of its connection.
	conn, release := o.e.cfg.Client.Dedicate()
	defer release()
	r, err := readReply(script.exec(ctx, conn, keys, args))
	if err == nil && r.status == "OK" {
		n, err := conn.Do(ctx, conn.B().Wait().Numreplicas(int64(o.e.cfg.Replicas)).Timeout(500).Build()).AsInt64()
		if err != nil || n < int64(o.e.cfg.Replicas) {
			r.missing = fmt.Errorf("redislog: %d of %d replicas have the erasure, and a failover may bring back what it erased: %w", n, o.e.cfg.Replicas, history.ErrNotErased)
		}
	}
	return r, err
}

// pins returns the values that c pins, as the script reads them: for each, the
// number of the entry among c.Append, or 0 for the note, and the lengths of the
// key and of what is sealed, before both.
func (o *origin) pins(key *dataKey, c *history.Change) string {
	if o.cfg.Pins == nil {
		return ""
	}
	var b strings.Builder
	for _, p := range o.cfg.PinsOf(c.Note, 1, c.Append...) {
		sealed := "" // the key has no value any more
		if p.Data != nil {
			sealed = "v" + o.seal.seal(key, "pin "+p.Key, p.Data)
		}
		fmt.Fprintf(&b, "%d,%d,%d;%s%s", p.Seq, len(p.Key), len(sealed), p.Key, sealed)
	}
	return b.String()
}

// reply is the result of the commit script.
type reply struct {
	status     string
	head       history.Head
	deleted    int
	key, keyID string
	missing    error // if too few replicas have the erasure
}

var errReply = errors.New("redislog: the keys of the log hold data of another program")

func readReply(result rueidis.RedisResult) (r reply, err error) {
	list, err := result.AsStrSlice()
	if err != nil {
		return r, err
	}
	if len(list) == 0 {
		return r, errReply
	}
	switch r.status = list[0]; {
	case r.status == "OK" && len(list) == 5:
		var n [4]uint64
		for i := range n {
			if n[i], err = strconv.ParseUint(list[i+1], 10, 64); err != nil {
				return r, errReply
			}
		}
		r.head, r.deleted = history.Head{Line: n[0], Epoch: n[1], Last: n[2]}, int(n[3])
	case len(list) == 3:
		r.key, r.keyID = list[1], list[2]
	}
	return r, nil
}

// committed returns what Commit returns for r.
func (r *reply) committed(o *origin) (history.Committed, error) {
	switch r.status {
	case "OK":
		return history.Committed{Head: r.head, Deleted: r.deleted}, r.missing
	case "MOVED":
		o.Look() // this process may not have the news
		return history.Committed{}, history.ErrMoved
	case "FINISHED":
		return history.Committed{}, history.ErrFinished
	case "NOINFO":
		return history.Committed{}, errNoInfo
	}
	return history.Committed{}, errReply
}

var errNoInfo = errors.New("redislog: the engine's INFO does not tell its master_replid: allow the user INFO and use Redis 7 or Valkey 8")

// Trim implements [history.Origin].
func (o *origin) Trim(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	busy := o.trim > o.trimmed
	o.trim = max(o.trim, seq)
	if o.trim > o.trimmed && !busy {
		o.work.Go(o.runTrim)
	}
}

// runTrim drops what is too old in the engine. A failure is left to the next
// call: the entries are gone from this process already.
func (o *origin) runTrim() {
	for {
		o.mu.Lock()
		seq := o.trim
		o.mu.Unlock()
		ctx, cancel := context.WithTimeout(o.ctx, o.e.cfg.Timeout)
		_ = trimScript.exec(ctx, o.e.cfg.Client, []string{o.head, o.log, o.record}, []string{strconv.FormatUint(seq, 10)}).Error()
		cancel()
		o.mu.Lock()
		o.trimmed = seq
		again := o.trim > seq
		o.mu.Unlock()
		if !again {
			return
		}
	}
}
