package relay

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/history"
)

// Lives is what a relay does with the lives that end: what viewers have seen
// between two restart signals. The zero value does nothing.
type Lives struct {
	// Ended, if set, gets each life when viewers have seen it end, if it has any
	// text, from [Relay.Record]. It must not block, and may keep what it gets.
	Ended func(lives.Recording)
	// MaxBytes bounds the messages of a life. The end of a larger life is left
	// out, and the life says so. Default [DefaultLifeBytes].
	MaxBytes int64
	// Shared says that other servers change the log too. If it is then emptied
	// without a restart signal, the recording is dropped, because one of them
	// may have erased the history.
	Shared bool
}

// DefaultLifeBytes is the default of [Lives].MaxBytes.
const DefaultLifeBytes = 8 << 20

// recorder records what viewers see of the life that runs. It reads the log as
// a viewer does, so it has nothing that is held, delayed or erased. It holds
// the log's own bytes and copies no message.
//
// What happens on another server is seen when it is in the log here. If a
// restart signal follows before the recorder has looked, within about 10 ms,
// the last words before it are missing, or what was erased there stays in the
// life that has ended.
type recorder struct {
	mu    sync.Mutex
	pos   history.Position // up to here, everything is recorded
	begun bool             // there is a pos
	// low is the first entry that the log kept at the last look, and last the
	// last that was read.
	low, last uint64

	entries    []history.Entry // as viewers get them; a note has no number
	bytes      int64
	truncated  bool
	incomplete bool
	cut        wire.State // what the messages say that are not recorded
	counted    *float64   // restarts before this life, as far as that is known
}

// Record records the life that runs, until ctx ends, and gives each life that
// ends to [Lives].Ended. Without that it returns at once. It begins with what
// the log has. Call it once, and end ctx after [Relay.Shutdown], so that the
// last restart signal ends its life.
func (r *Relay) Record(ctx context.Context) {
	if r.cfg.Lives.Ended == nil {
		return
	}
	news := r.cfg.Log.Reader(history.Latest())
	more := time.NewTimer(0)
	defer more.Stop()
	for {
		more.Stop()
		if wait := r.look(); wait > 0 {
			more.Reset(wait)
		}
		select {
		case <-news.Changed():
		case <-more.C:
		case <-ctx.Done():
			r.lookLast()
			return
		}
		if _, err := news.TryNext(); err != nil {
			return
		}
	}
}

// look records what is new. It returns when there may be more without a change
// of the log, or 0.
func (r *Relay) look() time.Duration {
	r.recorder.mu.Lock()
	defer r.recorder.mu.Unlock()
	return r.lookLocked(false)
}

// lookLast is look at the end. A restart signal that waits for its time ends the
// life now, because the history no longer has what viewers have seen of it.
func (r *Relay) lookLast() {
	r.recorder.mu.Lock()
	defer r.recorder.mu.Unlock()
	r.lookLocked(false)
	if news := r.cfg.Log.Since(r.recorder.pos); news.Reset && news.Note != nil {
		r.endLife(&news)
		r.recorder.pos = news.To
	}
}

// lookLocked is look with the lock held. own says that what was erased since
// the last look was erased by this server, and is no restart signal.
func (r *Relay) lookLocked(own bool) time.Duration {
	c := &r.recorder
	bound, wait := r.fanout.bound()
	all := r.cfg.Log.Since(history.Oldest()) // before b, so that low is not too high
	news := r.cfg.Log.Since(c.pos)
	b := bound.of(news, !c.begun)
	if news.Reset && !b.Reset && wait == 0 {
		wait = longLook // a restart signal that is not due, and is not kept
	}
	switch {
	case !c.begun:
		list := Archived(b.Pins(), b.Entries)
		c.incomplete = len(list) > 0 && (len(list) > len(b.Entries) || b.Entries[0].Seq > 1 && !restarting(list[0].Data))
		for _, e := range list {
			r.record(e)
		}
		c.begun = true
	case b.Reset && b.Note != nil:
		r.endLife(&b)
		if leads(b, false) {
			note := Shown(b.Note)
			m, _ := wire.Stored(note)
			r.record(history.Entry{At: time.UnixMilli(m.Timestamp), Data: note})
		}
		r.recordAll(b.Entries)
	case b.Reset:
		r.reconcile(&b, own)
	default:
		c.incomplete = c.incomplete || b.Missed > 0
		r.recordAll(b.Entries)
	}
	c.pos = b.To
	if len(all.Entries) > 0 {
		c.low = all.Entries[0].Seq
	}
	if n := len(b.Entries); n > 0 {
		c.last = max(c.last, b.Entries[n-1].Seq)
	}
	return wait
}

func restarting(data []byte) bool {
	m, ok := wire.Stored(data)
	return ok && m.Restarting()
}

// reconcile handles a Reset that no restart signal explains: something was
// erased, or everything was. What retention dropped before stays.
func (r *Relay) reconcile(b *history.Batch, own bool) {
	c := &r.recorder
	kept := func(seq uint64) bool {
		_, ok := slices.BinarySearchFunc(b.Entries, seq, func(e history.Entry, seq uint64) int { return cmp.Compare(e.Seq, seq) })
		return ok
	}
	if !own && !slices.ContainsFunc(b.Entries, func(e history.Entry) bool { return e.Seq <= c.last }) {
		if r.cfg.Lives.Shared {
			c.drop() // another server may have erased everything
		} else {
			// This server would know. So it was a restart signal, and retention
			// has dropped messages since.
			r.endLife(nil)
			c.incomplete = true
		}
	} else {
		c.remove(func(e history.Entry) bool { return e.Seq >= c.low && !kept(e.Seq) })
	}
	for _, e := range b.Entries {
		if e.Seq > c.last {
			r.record(history.Entry{Seq: e.Seq, At: e.At, Data: Shown(e.Data)})
		}
	}
}

func (r *Relay) recordAll(entries []history.Entry) {
	for _, e := range entries {
		e.Data = Shown(e.Data)
		r.record(e)
	}
}

// record adds a message, unless the life has become too large.
func (r *Relay) record(e history.Entry) {
	c := &r.recorder
	if c.truncated || c.bytes+int64(len(e.Data)) > r.cfg.Lives.MaxBytes {
		c.truncated = true
		c.cut = after(c.cut, []history.Entry{e})
		return
	}
	c.entries = append(c.entries, e)
	c.bytes += int64(len(e.Data))
}

// remove removes messages, and returns how many there were.
func (c *recorder) remove(which func(history.Entry) bool) int {
	before := len(c.entries)
	c.entries = slices.DeleteFunc(c.entries, which) // clears what it frees
	c.bytes = 0
	for _, e := range c.entries {
		c.bytes += int64(len(e.Data))
	}
	c.cut = wire.State{} // an erased message may have said it
	return before - len(c.entries)
}

// drop forgets what is recorded.
func (c *recorder) drop() {
	c.entries, c.bytes, c.truncated, c.incomplete, c.cut = nil, 0, false, false, wire.State{}
}

// silent begins the messages without text.
var silent = []byte(`{"text":"",`)

// endLife gives the life to Lives.Ended, if it has any text, and begins
// another. b holds the restart signal, or is nil if that is not known.
func (r *Relay) endLife(b *history.Batch) {
	c := &r.recorder
	state := after(wire.State{}, c.entries)
	if state.Memory == nil || c.cut.Memory != nil {
		state.Memory = c.cut.Memory
	}
	restarts := c.counted
	for _, s := range []*wire.Status{state.Status, c.cut.Status} {
		if s != nil && s.NumRestarts != nil {
			restarts = s.NumRestarts
		}
	}
	c.counted = nil
	if restarts != nil {
		n := *restarts + 1
		c.counted = &n
	}
	if slices.ContainsFunc(c.entries, func(e history.Entry) bool { return !bytes.HasPrefix(e.Data, silent) }) {
		r.cfg.Lives.Ended(c.life(b, state, c.counted))
	}
	c.drop()
}

// life returns the recording. number is that of the life, if it is known.
func (c *recorder) life(b *history.Batch, state wire.State, number *float64) lives.Recording {
	l := lives.Recording{Entries: c.entries, Life: lives.Life{
		Began: c.entries[0].At, Ended: c.entries[len(c.entries)-1].At, Cause: "restart",
		Messages: len(c.entries), Bytes: c.bytes, Truncated: c.truncated, Incomplete: c.incomplete,
	}}
	if b != nil {
		if m, ok := wire.Stored(Shown(b.Note)); ok {
			l.Ended = time.UnixMilli(m.Timestamp)
		}
	}
	if state.Memory != nil {
		l.MemoryPercent = &state.Memory.PercentUsed
	}
	if number != nil && *number >= 1 && *number < 1<<53 && *number == float64(int64(*number)) {
		n := int64(*number)
		l.Number = &n
	}
	for i := range l.Entries {
		l.Entries[i].Seq = uint64(i + 1) // an archive needs one for a note, too
	}
	return l
}

// erased calls erase, which erases from the log, and erases from the recording
// too: the messages seqs, or all if there are none. It returns how many of seqs
// only the recording had.
func (r *Relay) erased(erase func() error, seqs ...uint64) (n int, err error) {
	if r.cfg.Lives.Ended == nil {
		return 0, erase()
	}
	c := &r.recorder
	c.mu.Lock()
	defer c.mu.Unlock()
	r.lookLocked(false) // what a restart signal has ended is no longer the history
	due := !r.cfg.Log.Since(c.pos).Reset
	low := c.low
	if err = erase(); changed(err) {
		if len(seqs) == 0 {
			c.drop()
		} else {
			c.remove(func(e history.Entry) bool { return e.Seq >= low && slices.Contains(seqs, e.Seq) })
		}
		if due { // else a restart signal waits for its time, and ends the life
			r.lookLocked(true)
		}
	}
	if len(seqs) > 0 {
		n = c.remove(func(e history.Entry) bool { return e.Seq > 0 && e.Seq < low && slices.Contains(seqs, e.Seq) })
	}
	return n, err
}
