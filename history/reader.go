package history

import "context"

// A Batch is what a reader has not seen yet. Its entries are shared with all
// other readers and must not be changed.
type Batch struct {
	// Entries are in order, and may be none: after a Clear, or where all that
	// was missed is gone.
	Entries []Entry

	// Reset says that Entries replace all that the reader has had: its position
	// was of another epoch or another log. Entries are then all that is kept.
	Reset bool

	// Note is what Replace was given, on the Reset that follows from it, as long
	// as retention has dropped nothing that came after it: with a Note, Entries
	// are all that there was since.
	Note []byte

	// Missed is the number of entries after From that retention dropped before
	// they were read. Always 0 on a Reset.
	Missed uint64

	// From and To are the reader's position before and after the batch. Batches
	// with the same pair hold the same, less what age has taken meanwhile, so
	// that what was made of one can be shared by all.
	From, To Position
}

// Empty reports whether the batch tells a reader nothing.
func (b Batch) Empty() bool { return len(b.Entries) == 0 && !b.Reset && b.Missed == 0 }

// Head returns the part of b that ends with its n-th entry, counted from 1, or b itself if it has no more than n. It is
// for who cannot take all at once, and goes on from the part's To.
func (b Batch) Head(n int) Batch {
	if n = max(n, 1); n < len(b.Entries) {
		b.Entries = b.Entries[:n:n]
		b.To.seq = b.Entries[n-1].Seq
	}
	return b
}

// A Reader is a cursor in a log. It holds nothing but its position: there is
// nothing to close. It must not be used by two goroutines at once.
type Reader struct {
	log *Log
	pos Position
}

// Reader returns a reader that begins after from: [Oldest] for all that is
// kept, [Latest] for what is yet to come, or the position where an earlier
// reader, of this log or of any other, has ended.
func (l *Log) Reader(from Position) *Reader {
	return &Reader{l, l.state.Load().resolve(from)}
}

// Position returns the position after the last batch, for another reader to
// go on from.
func (r *Reader) Position() Position { return r.pos }

// Next returns everything after the reader's position and moves it there. It
// waits only where there is nothing. When ctx has ended it returns ctx's
// error, on a closed log that was read to its end [ErrClosed]; then the reader
// has not moved and may go on.
func (r *Reader) Next(ctx context.Context) (Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
		if b := r.TryNext(); !b.Empty() {
			return b, nil
		}
		if err := r.wait(ctx); err != nil {
			return Batch{}, err
		}
	}
}

// wait returns when there may be something new.
func (r *Reader) wait(ctx context.Context) error {
	g := r.log.wake.gate.Load()
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	// Whoever appends looks for waiting readers after storing its state. So
	// either this sees the state, or that the reader.
	st := r.log.state.Load()
	if !st.since(r.pos).Empty() {
		return nil
	}
	if st.closed {
		return ErrClosed
	}
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TryNext is Next without waiting: where there is nothing it returns an empty
// batch.
func (r *Reader) TryNext() Batch {
	b := r.log.Since(r.pos)
	r.pos = b.To
	return b
}
