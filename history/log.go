package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Log is a bounded, ordered log of messages. [Open] returns one. Its methods
// may be called from any goroutine.
type Log struct {
	cfg     Config
	budget  *budget  // of the Set, or nil
	replica *replica // of the Origin, or nil

	state atomic.Pointer[state] // stored only with mu held
	wake  waker

	mu       sync.Mutex
	ageTimer *time.Timer
	ageSet   bool  // ageTimer will run
	counts   Stats // only its counters
	charged  int64 // what the state takes of the budget
}

// Append adds a copy of data to the log and returns the position after the new
// entry. It does not wait for readers. With a Store, it returns after the Store
// has the entry. After an error nothing was appended: the error is that of ctx
// if ctx had ended, [ErrTooLarge], [ErrFinished], [ErrClosed], [ErrFull] for a
// log of a [Set], or wraps that of the Store.
//
// With an Origin, Append returns when a reader in this process can read the
// entry. If the error wraps [ErrUncertain], the entry may have been appended.
func (l *Log) Append(ctx context.Context, data []byte) (Position, error) {
	return l.appendAfter(ctx, Position{}, data, time.Now())
}

// AppendAt is [Log.Append] with now as the time of the entry. If now is before
// the time of the last entry, the new entry gets the time of the last entry. If
// it is more than a minute before (or MaxAge/64, if that is shorter), the clock
// was ahead: the kept entries with a time after now get the time now instead.
// An Origin uses its own clock, and not now.
func (l *Log) AppendAt(ctx context.Context, data []byte, now time.Time) (Position, error) {
	return l.appendAfter(ctx, Position{}, data, now)
}

// AppendAfter is [Log.Append] if the log is at the position at: if nothing was
// appended, replaced or deleted since. Otherwise the error is [ErrMoved]. The
// caller can so decide by everything in the log, read on from at if it has
// changed, and decide again. A position that no log gave, such as [Latest], is
// never where the log is.
func (l *Log) AppendAfter(ctx context.Context, at Position, data []byte) (Position, error) {
	if at.log == 0 {
		return Position{}, ErrMoved
	}
	return l.appendAfter(ctx, at, data, time.Now())
}

// appendAfter appends at any position if at is zero.
func (l *Log) appendAfter(ctx context.Context, at Position, data []byte, now time.Time) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	if !l.fits(data) {
		return Position{}, ErrTooLarge
	}
	if err := l.state.Load().ended(); err != nil { // before other logs are closed for it
		return Position{}, err
	}
	if l.replica != nil {
		pos, _, err := l.commit(ctx, Change{If: at.head(), Append: [][]byte{bytes.Clone(data)}})
		return pos, err
	}
	if l.budget != nil {
		cost := entryCost + int64(len(data))
		if err := l.budget.take(ctx, cost); err != nil {
			return Position{}, err
		}
		defer l.budget.give(cost) // publish has taken it too
	}
	pos, trims, err := l.append(ctx, at, bytes.Clone(data), wall(now))
	l.report(trims)
	return pos, err
}

func (l *Log) append(ctx context.Context, at Position, data []byte, now time.Time) (Position, []Trim, error) {
	l.mu.Lock()
	defer l.mu.Unlock() // also if the Store panics
	cur := l.state.Load()
	if err := cur.ended(); err != nil {
		return Position{}, nil, err
	}
	if !cur.isAt(at) {
		return Position{}, nil, ErrMoved
	}
	next := *cur
	next.settle(now, l.cfg.slack())
	next.last++
	e := Entry{Seq: next.last, At: next.notBefore(now), Data: data}
	if l.cfg.Store != nil {
		if err := l.cfg.Store.Append(ctx, e); err != nil {
			return Position{}, nil, fmt.Errorf("history: append: %w", err)
		}
	}
	next.entries = append(next.entries, e)
	next.bytes += int64(len(data))
	next.weight += l.weigh(e)
	l.counts.Appended++
	trims := l.retain(&next, now)
	l.publish(&next)
	return next.position(), trims, nil
}

func (l *Log) fits(data []byte) bool {
	return l.cfg.MaxBytes == 0 || int64(len(data)) <= l.cfg.MaxBytes
}

// notBefore returns now or the time of the last entry, whichever is later.
func (s *state) notBefore(now time.Time) time.Time {
	if n := len(s.entries); n > 0 && now.Before(s.entries[n-1].At) {
		return s.entries[n-1].At
	}
	return now
}

// Replace begins a new epoch that holds copies of entries and nothing else, in
// one step: no reader sees a part of it. The next batch of each reader is a
// Reset with note, by which the caller can say why, or what to show. If the log
// is replaced again before a reader reads, the reader gets the later note only.
// Retention applies to entries as if they were appended now.
//
// Replace returns the position after the last entry. Its errors are those of
// [Log.Append]. After an error the log has not changed, unless the error wraps
// [ErrNotErased].
func (l *Log) Replace(ctx context.Context, note []byte, entries ...[]byte) (Position, error) {
	return l.ReplaceAt(ctx, time.Now(), note, entries...)
}

// ReplaceAt is [Log.Replace] with now as the time of the entries. If now is
// before the time of the last entry, they get the time of the last entry,
// within the limits that [Log.AppendAt] names.
func (l *Log) ReplaceAt(ctx context.Context, now time.Time, note []byte, entries ...[]byte) (Position, error) {
	return l.replaceAfter(ctx, Position{}, now, note, entries)
}

// ReplaceAfter is [Log.Replace] if the log is at the position at, as
// [Log.AppendAfter] says.
func (l *Log) ReplaceAfter(ctx context.Context, at Position, note []byte, entries ...[]byte) (Position, error) {
	if at.log == 0 {
		return Position{}, ErrMoved
	}
	return l.replaceAfter(ctx, at, time.Now(), note, entries)
}

func (l *Log) replaceAfter(ctx context.Context, at Position, now time.Time, note []byte, entries [][]byte) (Position, error) {
	var cost int64
	for _, data := range entries {
		if !l.fits(data) {
			return Position{}, ErrTooLarge
		}
		cost += entryCost + int64(len(data))
	}
	if err := l.state.Load().ended(); err != nil && cost > 0 {
		return Position{}, err
	}
	if l.replica != nil {
		c := Change{If: at.head(), Replace: true, Note: bytes.Clone(note), Append: make([][]byte, len(entries))}
		for i, data := range entries {
			c.Append[i] = bytes.Clone(data)
		}
		pos, _, err := l.commit(ctx, c)
		return pos, err
	}
	if l.budget != nil && cost > 0 {
		if err := l.budget.take(ctx, cost); err != nil {
			return Position{}, err
		}
		defer l.budget.give(cost) // publish has taken it too
	}
	now = wall(now)
	return l.renew(ctx, at, now, len(entries) > 0, func(next *state) bool {
		next.settle(now, l.cfg.slack())
		at := next.notBefore(now)
		next.floor, next.lines = next.last, &lines{current: next.lines.current}
		next.entries = make([]Entry, len(entries))
		for i, data := range entries {
			next.last++
			next.entries[i] = Entry{Seq: next.last, At: at, Data: bytes.Clone(data)}
		}
		next.note, next.noteEpoch = bytes.Clone(note), next.epoch
		next.pins = nil
		if !slices.ContainsFunc(entries, func(data []byte) bool { return bytes.Equal(data, note) }) {
			next.pins = l.cfg.pin(nil, 0, next.note, false)
		}
		l.counts.Replaced++
		return true
	})
}

// Clear is [Log.Replace] without entries. A finished log can be cleared and
// stays finished.
func (l *Log) Clear(ctx context.Context, note []byte) (Position, error) {
	return l.Replace(ctx, note)
}

// Delete erases the entries with these sequence numbers and returns how many it
// erased: those that are kept, and those whose pins are. If it erased any, a new
// epoch begins with the other entries.
// Every reader then gets a Reset, so that a reader that has read an erased
// entry replaces what it shows. A reader that comes back later with an older
// position gets the Reset too.
//
// A reader that had the note of an earlier Replace does not get it again. If
// that note equals an erased entry, it is erased too. The log then no longer
// refers to the erased data, but a [Batch] that a reader still holds does.
//
// A finished log stays finished. The error is that of ctx if ctx had ended,
// [ErrClosed], or wraps that of the Store. After an error the log has not
// changed, unless the error wraps [ErrNotErased].
func (l *Log) Delete(ctx context.Context, seqs ...uint64) (int, error) {
	if l.replica != nil {
		_, deleted, err := l.commit(ctx, Change{Delete: slices.Clone(seqs)})
		return deleted, err
	}
	deleted := 0
	_, err := l.renew(ctx, Position{}, wall(time.Now()), false, func(next *state) bool {
		rest := make([]Entry, 0, len(next.entries))
		for _, e := range next.entries {
			switch {
			case !slices.Contains(seqs, e.Seq):
				rest = append(rest, e)
			case bytes.Equal(e.Data, next.note):
				next.note = nil
			}
		}
		pins, dropped := without(next.pins, seqs, func(seq uint64) bool { return seq > next.floor })
		deleted = len(next.entries) - len(rest) + dropped
		next.entries, next.pins = rest, pins
		l.counts.Deleted += uint64(deleted)
		return deleted > 0
	})
	if err != nil && !errors.Is(err, ErrNotErased) {
		return 0, err
	}
	return deleted, err
}

// renew calls change with a copy of the state, in a new epoch. If change
// returns true, that copy becomes the state. If adds is set, the change adds
// entries. The log must be at the position at.
func (l *Log) renew(ctx context.Context, at Position, now time.Time, adds bool, change func(next *state) bool) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	pos, trims, err := l.replace(ctx, at, now, adds, change)
	l.report(trims)
	return pos, err
}

func (l *Log) replace(ctx context.Context, at Position, now time.Time, adds bool, change func(next *state) bool) (Position, []Trim, error) {
	l.mu.Lock()
	defer l.mu.Unlock() // also if the Store panics
	cur, counts := l.state.Load(), l.counts
	if err := cur.ended(); err != nil && (adds || cur.closed) {
		return Position{}, nil, err
	}
	if !cur.isAt(at) {
		return Position{}, nil, ErrMoved
	}
	next := *cur
	next.epoch++
	if !change(&next) {
		return cur.position(), nil, nil
	}
	next.bytes, next.weight = size(next.entries), l.weigh(next.entries...)
	var notErased error
	if l.cfg.Store != nil {
		if err := l.cfg.Store.Replace(ctx, next.saved()); err != nil {
			err = fmt.Errorf("history: replace: %w", err)
			if !errors.Is(err, ErrNotErased) {
				l.counts = counts
				return Position{}, nil, err
			}
			notErased = err
		}
	}
	l.ageSet = false // the timer belongs to entries that may be gone
	trims := l.retain(&next, now)
	l.publish(&next)
	return next.position(), trims, notErased
}

func size(entries []Entry) (n int64) {
	for _, e := range entries {
		n += int64(len(e.Data))
	}
	return n
}

// Finish says that nothing more will be appended. Readers read on to the last
// entry, and then get [ErrFinished]. From now on, Append and Replace return
// ErrFinished, also after a restart if the log has a Store. Clear and Delete
// still erase, and retention still drops entries.
//
// Further calls return nil. The error is that of ctx if ctx had ended,
// [ErrClosed], or wraps that of the Store. After an error the log is not
// finished, and the caller may try again.
func (l *Log) Finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.replica != nil {
		return l.finishShared(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next := *l.state.Load()
	switch {
	case next.finished:
		return nil
	case next.closed:
		return ErrClosed
	}
	if l.cfg.Store != nil {
		if err := l.cfg.Store.Finish(ctx); err != nil {
			return fmt.Errorf("history: finish: %w", err)
		}
	}
	next.finished = true
	l.publish(&next)
	return nil
}

// Finished reports whether the log is finished.
func (l *Log) Finished() bool { return l.state.Load().finished }

// Since returns the batch for a reader at from, without waiting. If there is
// nothing new, the batch is empty. Since([Oldest]()) is a snapshot of all kept
// entries. Since allocates nothing and copies no entry.
func (l *Log) Since(from Position) Batch { return l.since(l.state.Load(), from) }

func (l *Log) since(st *state, from Position) Batch {
	b := st.since(from)
	b.log = l
	if b.Reset && l.replica != nil && l.replica.waits(st, from) {
		return Batch{From: from, To: from}
	}
	return b
}

// Position returns the position after the last entry.
func (l *Log) Position() Position { return l.state.Load().position() }

// Close closes the log and its Store or Origin, and returns the error of that.
// A reader can still read the entries that it has not read, and then gets
// [ErrClosed]. The methods that change the log return ErrClosed at once. A log
// of a [Set] is closed by the Set.
//
// Further calls of Close return nil. A log in memory need not be closed, unless
// a reader waits in [Reader.Next]. A log with an Origin must be closed: it has
// a goroutine until then.
func (l *Log) Close() error {
	if l.replica != nil {
		return l.closeReplica()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.end() || l.cfg.Store == nil {
		return nil
	}
	return l.cfg.Store.Close()
}

// end makes the log closed, and reports whether it was not. The caller holds
// l.mu.
func (l *Log) end() bool {
	end := *l.state.Load()
	if end.closed {
		return false
	}
	end.closed = true
	l.state.Store(&end)
	l.charge(&state{})
	l.ageTimer.Stop()
	l.wake.now()
	return true
}
