package history

import (
	"context"
	"slices"
	"sort"
)

// Batch holds everything that a reader has not read yet. All readers share its
// entries, so they must not be changed.
type Batch struct {
	// Entries are the new entries, in order. There are none after a Clear, or
	// if retention has dropped all that the reader missed.
	Entries []Entry

	// Reset reports that Entries are all kept entries, and replace everything
	// that the reader had. It is set if the reader's position was of another
	// epoch or of another log, or of a time that the log has lost: its end in a
	// crash, or everything since a copy of its Store that was put back.
	Reset bool

	// Note is the note that the last Replace or Clear was given. A reader gets
	// it with its first Reset after that. Note is nil if retention has dropped
	// an entry since. With a Note, Entries are therefore all entries since that
	// Replace, except deleted ones.
	Note []byte

	// Missed is the number of entries after From that retention dropped before
	// the reader read them. Deleted entries among them count too. Missed is 0
	// on a Reset.
	Missed uint64

	// From and To are the reader's positions before and after the batch. Two
	// batches with the same From and To hold the same entries, unless the limit
	// of age dropped some in between. So a caller can encode one of them and
	// send the result to the readers of both.
	From, To Position

	log    *Log
	pins   []Pin   // as of the last entry that retention has dropped
	before []Entry // the kept entries before Entries
}

// Empty reports whether b has nothing for its reader: no entry, no Reset and
// nothing missed.
func (b Batch) Empty() bool { return len(b.Entries) == 0 && !b.Reset && b.Missed == 0 }

// First returns b with only its first n entries, or b itself if it has no more
// than n. If n is below 1, it counts as 1. First is for a caller that cannot
// take everything at once; the caller then reads on from the To of the result,
// which is the position after its last entry.
func (b Batch) First(n int) Batch {
	if n = max(n, 1); n < len(b.Entries) {
		b.Entries = b.Entries[:n:n]
		b.To.seq = b.Entries[n-1].Seq
	}
	return b
}

// Until returns b without the entries after seq, and without pins of such
// entries. Its To is the position before the first of those entries, from which
// the caller reads on.
func (b Batch) Until(seq uint64) Batch {
	after := func(all []Entry) int { return sort.Search(len(all), func(i int) bool { return all[i].Seq > seq }) }
	if n := after(b.Entries); n < len(b.Entries) {
		b.To.seq = b.Entries[n].Seq - 1
		b.Entries = b.Entries[:n:n]
	}
	b.before = b.before[:after(b.before)]
	if slices.ContainsFunc(b.pins, func(p Pin) bool { return p.Seq > seq }) {
		b.pins = slices.DeleteFunc(slices.Clone(b.pins), func(p Pin) bool { return p.Seq > seq })
	}
	return b
}

// Reader is a cursor in a log. It holds only a position, so it need not be
// closed. Only one goroutine may use it at a time.
type Reader struct {
	log *Log
	pos Position
}

// Reader returns a reader that begins at from. With [Oldest], it reads all kept
// entries first; with [Latest], only entries that are appended from now on;
// [Last] and [SinceTime] are between the two. Any other from is the position of
// an earlier reader, perhaps in another process. If this log cannot go on from
// that position, the first batch is a Reset.
func (l *Log) Reader(from Position) *Reader {
	from, _ = l.state.Load().resolve(from)
	return &Reader{l, from}
}

// Position returns the reader's position, which is the To of its last batch. A
// later reader can begin there.
func (r *Reader) Position() Position { return r.pos }

// Next returns everything after the reader's position, and moves the reader to
// the end of it. It waits only if there is nothing.
//
// If ctx has ended, Next returns the error of ctx. If the log is finished or
// closed and the reader has read all of it, Next returns [ErrFinished] or
// [ErrClosed]. After an error the reader has not moved, and may be used again.
func (r *Reader) Next(ctx context.Context) (Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
		if b, err := r.TryNext(); err != nil || !b.Empty() {
			return b, err
		}
		if err := r.wait(ctx); err != nil {
			return Batch{}, err
		}
	}
}

// wait returns nil when there may be something new. Its error is that of ctx.
func (r *Reader) wait(ctx context.Context) error {
	g := r.log.wake.gate.Load()
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	// An appender first stores its state and then looks for waiting readers. So
	// either this reader sees the state, or the appender sees this reader.
	if r.news() {
		return nil
	}
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// news reports whether TryNext would return anything.
func (r *Reader) news() bool {
	st := r.log.state.Load()
	return st.ended() != nil || !r.log.since(st, r.pos).Empty()
}

// TryNext is [Reader.Next] without waiting. If there is nothing new yet, it
// returns an empty batch and no error.
func (r *Reader) TryNext() (Batch, error) {
	st := r.log.state.Load()
	b := r.log.since(st, r.pos)
	if err := st.ended(); err != nil && b.Empty() {
		return Batch{}, err
	}
	r.pos = b.To
	return b, nil
}

// Changed returns a channel that is closed when TryNext may return something: a
// batch or an error. One goroutine can so wait for several logs, or for a log
// and a timer:
//
//	select {
//	case <-build.Changed():
//		batch, err := build.TryNext()
//	case <-deploy.Changed():
//		batch, err := deploy.TryNext()
//	case <-ticker.C:
//	}
//
// The channel is closed as [Config.Wake] allows. Call Changed again for each
// wait. An empty batch is possible, since TryNext may have read the change
// before.
func (r *Reader) Changed() <-chan struct{} {
	g := r.log.wake.gate.Load()
	if !g.watched.Load() { // else thousands of readers would write to it
		g.watched.Store(true)
	}
	if r.news() { // after the store, for the reason in wait
		return always
	}
	return g.opened
}

// always is a closed channel.
var always = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
