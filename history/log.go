package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Log is a bounded, ordered log of messages. [Open] returns one. Its methods
// may be called from any goroutine.
type Log struct {
	cfg    Config
	budget *budget // of the Set, or nil

	state atomic.Pointer[state] // stored only with mu held
	wake  waker

	mu       sync.Mutex
	ageTimer *time.Timer
	ageSet   bool  // ageTimer will run
	counts   Stats // only its counters
	charged  int64 // what the state takes of the budget
}

// state is a log at one moment, as readers see it. It never changes: an append
// writes behind the end of entries, which readers of this state do not read.
type state struct {
	id, epoch   uint64
	floor, last uint64 // for all entries, floor < Seq <= last
	note        []byte
	noteEpoch   uint64
	entries     []Entry
	bytes       int64
	finished    bool
	closed      bool
	lines       *lines
}

// ended returns why nothing will be appended, or nil.
func (s *state) ended() error {
	switch {
	case s.finished:
		return ErrFinished
	case s.closed:
		return ErrClosed
	}
	return nil
}

// lines are the names in the positions of a state, and do not change.
type lines struct {
	current uint64
	earlier []Head // by Last
}

func (s *state) position() Position { return s.at(s.last) }

// at returns the position after entry seq. It names the line that gave the
// number, so it is the same after a restart. A position that names a later line
// means the same.
func (s *state) at(seq uint64) Position {
	for _, h := range s.lines.earlier {
		if h.Last >= seq && h.Epoch == s.epoch {
			return Position{h.Line, s.epoch, seq}
		}
	}
	return Position{s.lines.current, s.epoch, seq}
}

// knows reports whether this log gave the position p, as far as it can have
// given one in the line that p names.
func (s *state) knows(p Position) bool {
	end := Head{s.lines.current, s.epoch, s.last}
	if p.log != s.lines.current {
		i := slices.IndexFunc(s.lines.earlier, func(h Head) bool { return h.Line == p.log })
		if i < 0 {
			return false
		}
		end = s.lines.earlier[i]
	}
	return p.epoch < end.Epoch || p.epoch == end.Epoch && p.seq <= end.Last
}

// kept returns the entries with no capacity left, because a caller's append to
// the result must not write into the log's array.
func (s *state) kept() []Entry { return slices.Clip(s.entries) }

// since returns the batch for a reader at from.
func (s *state) since(from Position) Batch {
	known := true
	if from == (Position{}) { // the most common one: see BenchmarkSnapshot
		from = s.at(s.floor)
	} else {
		from, known = s.resolve(from)
	}
	b := Batch{From: from, To: s.position()}
	if !known || from.epoch != s.epoch {
		b.Reset = true
		b.Entries = s.kept()
		if !known || from.epoch < s.noteEpoch {
			b.Note = s.note
		}
		return b
	}
	if from.seq < s.floor {
		b.Missed = s.floor - from.seq
	}
	if from.seq < s.last {
		all := s.kept()
		b.Entries = all[sort.Search(len(all), func(i int) bool { return all[i].Seq > from.seq }):]
	}
	return b
}

// resolve returns p, or for a position without a log the one that it means now,
// and whether this log gave it. Positions with the same meaning become equal.
func (s *state) resolve(p Position) (_ Position, known bool) {
	if p == Latest() {
		return s.position(), true
	}
	if p.log == 0 {
		before := 0 // the number of entries before it
		switch n := len(s.entries); p.epoch {
		case byCount:
			before = n - int(min(p.seq, uint64(n)))
		case byTime:
			t := time.Unix(0, int64(p.seq))
			before = sort.Search(n, func(i int) bool { return !s.entries[i].At.Before(t) })
		}
		if before == 0 {
			return s.at(s.floor), true
		}
		return s.at(s.entries[before-1].Seq), true
	}
	if known = s.knows(p); known && p.epoch == s.epoch {
		p = s.at(p.seq)
	}
	return p, known
}

// Append adds a copy of data to the log and returns the position after the new
// entry. It does not wait for readers. With a Store, it returns after the Store
// has the entry. After an error nothing was appended: the error is that of ctx
// if ctx had ended, [ErrTooLarge], [ErrFinished], [ErrClosed], [ErrFull] for a
// log of a [Set], or wraps that of the Store.
func (l *Log) Append(ctx context.Context, data []byte) (Position, error) {
	return l.AppendAt(ctx, data, time.Now())
}

// AppendAt is [Log.Append] with now as the time of the entry. If now is before
// the time of the last entry, the new entry gets the time of the last entry. If
// it is more than a minute before (or MaxAge/64, if that is shorter), the clock
// was ahead: the kept entries with a time after now get the time now instead.
func (l *Log) AppendAt(ctx context.Context, data []byte, now time.Time) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	if !l.fits(data) {
		return Position{}, ErrTooLarge
	}
	if err := l.state.Load().ended(); err != nil { // before other logs are closed for it
		return Position{}, err
	}
	if l.budget != nil {
		cost := entryCost + int64(len(data))
		if err := l.budget.take(ctx, cost); err != nil {
			return Position{}, err
		}
		defer l.budget.give(cost) // publish has taken it too
	}
	pos, trims, err := l.append(ctx, bytes.Clone(data), wall(now))
	l.report(trims)
	return pos, err
}

func (l *Log) append(ctx context.Context, data []byte, now time.Time) (Position, []Trim, error) {
	l.mu.Lock()
	defer l.mu.Unlock() // also if the Store panics
	cur := l.state.Load()
	if err := cur.ended(); err != nil {
		return Position{}, nil, err
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
	if l.budget != nil && cost > 0 {
		if err := l.budget.take(ctx, cost); err != nil {
			return Position{}, err
		}
		defer l.budget.give(cost) // publish has taken it too
	}
	now = wall(now)
	return l.renew(ctx, now, len(entries) > 0, func(next *state) bool {
		next.settle(now, l.cfg.slack())
		at := next.notBefore(now)
		next.floor, next.lines = next.last, &lines{current: next.lines.current}
		next.entries = make([]Entry, len(entries))
		for i, data := range entries {
			next.last++
			next.entries[i] = Entry{Seq: next.last, At: at, Data: bytes.Clone(data)}
		}
		next.note, next.noteEpoch = bytes.Clone(note), next.epoch
		l.counts.Replaced++
		return true
	})
}

// Clear is [Log.Replace] without entries. A finished log can be cleared and
// stays finished.
func (l *Log) Clear(ctx context.Context, note []byte) (Position, error) {
	return l.Replace(ctx, note)
}

// Delete erases the kept entries with these sequence numbers and returns how
// many it erased. If it erased any, a new epoch begins with the other entries.
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
	deleted := 0
	_, err := l.renew(ctx, wall(time.Now()), false, func(next *state) bool {
		rest := make([]Entry, 0, len(next.entries))
		for _, e := range next.entries {
			switch {
			case !slices.Contains(seqs, e.Seq):
				rest = append(rest, e)
			case bytes.Equal(e.Data, next.note):
				next.note = nil
			}
		}
		deleted = len(next.entries) - len(rest)
		next.entries = rest
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
// entries.
func (l *Log) renew(ctx context.Context, now time.Time, adds bool, change func(next *state) bool) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	pos, trims, err := l.replace(ctx, now, adds, change)
	l.report(trims)
	return pos, err
}

func (l *Log) replace(ctx context.Context, now time.Time, adds bool, change func(next *state) bool) (Position, []Trim, error) {
	l.mu.Lock()
	defer l.mu.Unlock() // also if the Store panics
	cur, counts := l.state.Load(), l.counts
	if err := cur.ended(); err != nil && (adds || cur.closed) {
		return Position{}, nil, err
	}
	next := *cur
	next.epoch++
	if !change(&next) {
		return cur.position(), nil, nil
	}
	next.bytes = size(next.entries)
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
func (l *Log) Since(from Position) Batch { return l.state.Load().since(from) }

// Position returns the position after the last entry.
func (l *Log) Position() Position { return l.state.Load().position() }

// Close closes the log and its Store, and returns the error of the Store. A
// reader can still read the entries that it has not read, and then gets
// [ErrClosed]. The methods that change the log return ErrClosed at once. A log
// of a [Set] is closed by the Set.
//
// Further calls of Close return nil. A log in memory need not be closed, unless
// a reader waits in [Reader.Next].
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := *l.state.Load()
	if end.closed {
		return nil
	}
	end.closed = true
	l.state.Store(&end)
	l.charge(&state{})
	l.ageTimer.Stop()
	l.wake.now()
	if l.cfg.Store != nil {
		return l.cfg.Store.Close()
	}
	return nil
}
