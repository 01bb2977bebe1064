package history

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// A Log is a bounded, ordered log. Make one with [Open].
type Log struct {
	cfg Config

	state atomic.Pointer[state] // stored only with mu held
	wake  waker

	mu       sync.Mutex
	ageTimer *time.Timer
	ageSet   bool  // ageTimer will run
	counts   Stats // the counters of it
}

// state is all that readers see of a log at one moment. It never changes; an
// append writes behind the end of entries, where no reader of this state looks.
type state struct {
	id, epoch   uint64
	floor, last uint64 // entries are some of floor < Seq <= last
	note        []byte
	noteEpoch   uint64
	entries     []Entry
	bytes       int64
	closed      bool
}

func (s *state) position() Position { return Position{s.id, s.epoch, s.last} }

// kept returns the entries, clipped: an append to the result must not write
// into the array that the log shares.
func (s *state) kept() []Entry { return slices.Clip(s.entries) }

// since returns what a reader at from has not seen.
func (s *state) since(from Position) Batch {
	from = s.resolve(from)
	b := Batch{From: from, To: s.position()}
	if from.log != s.id || from.epoch != s.epoch || from.seq > s.last {
		b.Reset = true
		b.Entries = s.kept()
		if from.log != s.id || from.epoch < s.noteEpoch {
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

// resolve makes Oldest and Latest positions of this log.
func (s *state) resolve(p Position) Position {
	switch {
	case p == Latest():
		return s.position()
	case p.log == 0:
		return Position{s.id, s.epoch, s.floor}
	}
	return p
}

// Append adds a copy of data and returns the position behind it. It does not
// wait for readers. With a Store it returns when the entry is stored; if that
// fails, or ctx has ended before, nothing was appended.
func (l *Log) Append(ctx context.Context, data []byte) (Position, error) {
	return l.AppendAt(ctx, data, time.Now())
}

// AppendAt is Append at the time now. A time before that of the last entry
// counts as that one's.
func (l *Log) AppendAt(ctx context.Context, data []byte, now time.Time) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	if !l.fits(data) {
		return Position{}, ErrTooLarge
	}
	data = bytes.Clone(data)
	l.mu.Lock()
	cur := l.state.Load()
	if cur.closed {
		l.mu.Unlock()
		return Position{}, ErrClosed
	}
	next := *cur
	next.last++
	e := Entry{Seq: next.last, At: cur.notBefore(now), Data: data}
	if l.cfg.Store != nil {
		if err := l.cfg.Store.Append(ctx, e); err != nil {
			l.mu.Unlock()
			return Position{}, fmt.Errorf("history: append: %w", err)
		}
	}
	next.entries = append(cur.entries, e)
	next.bytes += int64(len(data))
	l.counts.Appended++
	trims := l.retain(&next, now)
	l.publish(&next)
	l.mu.Unlock()

	l.report(trims)
	return next.position(), nil
}

func (l *Log) fits(data []byte) bool {
	return l.cfg.MaxBytes == 0 || int64(len(data)) <= l.cfg.MaxBytes
}

// notBefore returns now, or the time of the last entry if that is later.
func (s *state) notBefore(now time.Time) time.Time {
	if n := len(s.entries); n > 0 && now.Before(s.entries[n-1].At) {
		return s.entries[n-1].At
	}
	return now
}

// Replace begins a new epoch that holds exactly entries, in one step: no
// reader sees part of it. Each reader's next batch is a Reset with note, which
// says why, or what to show; if there are several Replaces before a reader
// looks, it gets the last one's note. Retention applies to entries as if they
// were appended now. The returned position is behind them.
func (l *Log) Replace(ctx context.Context, note []byte, entries ...[]byte) (Position, error) {
	return l.ReplaceAt(ctx, time.Now(), note, entries...)
}

// ReplaceAt is Replace at the time now.
func (l *Log) ReplaceAt(ctx context.Context, now time.Time, note []byte, entries ...[]byte) (Position, error) {
	for _, data := range entries {
		if !l.fits(data) {
			return Position{}, ErrTooLarge
		}
	}
	return l.renew(ctx, now, func(next *state) bool {
		at := next.notBefore(now)
		next.floor = next.last
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

// Clear is Replace with nothing.
func (l *Log) Clear(ctx context.Context, note []byte) (Position, error) {
	return l.Replace(ctx, note)
}

// Delete erases the entries with these sequence numbers, as far as they are
// kept, and returns how many were. It begins a new epoch with the others, so
// that readers who have already read an erased entry replace what they show,
// those with an older position who come back later too. The note of an
// earlier Replace is not repeated to readers who had it, and one that is the
// same as an erased entry is erased with it.
//
// Nothing in the log refers to the erased data any more; a batch that a reader
// still holds does.
func (l *Log) Delete(ctx context.Context, seqs ...uint64) (int, error) {
	deleted := 0
	_, err := l.renew(ctx, time.Now(), func(next *state) bool {
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
	if err != nil {
		return 0, err
	}
	return deleted, nil
}

// renew begins a new epoch with what change makes of the state, unless it
// returns false.
func (l *Log) renew(ctx context.Context, now time.Time, change func(next *state) bool) (Position, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	l.mu.Lock()
	cur, counts := l.state.Load(), l.counts
	if cur.closed {
		l.mu.Unlock()
		return Position{}, ErrClosed
	}
	next := *cur
	next.epoch++
	if !change(&next) {
		l.mu.Unlock()
		return cur.position(), nil
	}
	next.bytes = size(next.entries)
	if l.cfg.Store != nil {
		if err := l.cfg.Store.Replace(ctx, next.saved()); err != nil {
			l.counts = counts
			l.mu.Unlock()
			return Position{}, fmt.Errorf("history: replace: %w", err)
		}
	}
	trims := l.retain(&next, now)
	l.publish(&next)
	l.mu.Unlock()

	l.report(trims)
	return next.position(), nil
}

func size(entries []Entry) (n int64) {
	for _, e := range entries {
		n += int64(len(e.Data))
	}
	return n
}

// Since returns what a reader at from has not seen, without waiting: an empty
// batch where there is nothing. Since(Oldest) is a snapshot of all that is
// kept. It allocates nothing and copies no entry.
func (l *Log) Since(from Position) Batch { return l.state.Load().since(from) }

// Position returns the position behind the last entry.
func (l *Log) Position() Position { return l.state.Load().position() }

// Close ends the log, and the Store with it. Readers read what is left, then
// get [ErrClosed]; so does everything that would change it. Close may be
// called more than once, and not at all on a log in memory that nobody waits
// for.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := *l.state.Load()
	if end.closed {
		return nil
	}
	end.closed = true
	l.state.Store(&end)
	l.ageTimer.Stop()
	l.wake.now()
	if l.cfg.Store != nil {
		return l.cfg.Store.Close()
	}
	return nil
}
