package history

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// replica is the part of a Log that has an Origin.
type replica struct {
	origin Origin
	ctx    context.Context // ends with the log
	stop   context.CancelFunc
	done   chan struct{} // closed when Follow has returned

	erased erasures // only used by apply

	current atomic.Int64                  // the time of the Origin's clock up to which the log has everything; 0: not known
	skew    atomic.Int64                  // the Origin's clock less that of this process
	news    atomic.Pointer[chan struct{}] // closed and replaced with each change; under Log.mu

	mu    sync.Mutex
	looks uint64              // updates with Checked
	ahead map[Position]uint64 // by position: looks when a reader first had it
}

// maxAhead is the number of positions that a replica remembers because it is
// behind them. Anybody can make up more of them.
const maxAhead = 1024

// await is how long a caller waits until the replica has its change. After
// that, only the position says that the change is made.
const await = time.Second

var errUpdate = errors.New("history: the entries do not follow the last one")

// openReplica is open for a log with an Origin.
func openReplica(ctx context.Context, cfg Config) (*Log, error) {
	saved, err := cfg.Origin.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("history: load: %w", err)
	}
	first, err := saved.state()
	if err != nil {
		return nil, fmt.Errorf("history: load: %w", err)
	}
	r := &replica{origin: cfg.Origin, done: make(chan struct{}), ahead: make(map[Position]uint64)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.changed()
	l := &Log{cfg: cfg, replica: r}
	l.begin(first)
	from := first.position().head()
	go func() {
		defer close(r.done)
		cfg.Origin.Follow(r.ctx, from, l.apply)
	}()
	return l, nil
}

// closeReplica is Close for a log with an Origin.
func (l *Log) closeReplica() error {
	l.mu.Lock()
	first := l.end()
	l.mu.Unlock() // Follow may be waiting for it
	l.replica.stop()
	<-l.replica.done
	if !first {
		return nil
	}
	return l.cfg.Origin.Close()
}

// Now returns the time by the clock that dates the entries: that of the Origin,
// as far as this process knows it, or of this process.
func (l *Log) Now() time.Time {
	now := time.Now()
	if l.replica != nil {
		now = now.Add(time.Duration(l.replica.skew.Load()))
	}
	return wall(now)
}

// Current returns the latest time, by the clock of Now, at which this process is
// known to have had everything: later changes by others may not have come yet.
// Without an Origin it is now. If the Origin has not been asked yet, it is the
// zero time.
func (l *Log) Current() time.Time {
	if l.replica == nil {
		return l.Now()
	}
	if at := l.replica.current.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// apply is the function that Follow calls.
func (l *Log) apply(u Update) error {
	if u.Renew != nil {
		if err := l.eraseAgain(u.Renew); err != nil {
			return err
		}
	}
	trims, err := l.update(u)
	l.report(trims)
	return err
}

func (l *Log) update(u Update) ([]Trim, error) {
	r := l.replica
	l.mu.Lock()
	defer l.mu.Unlock()
	cur := l.state.Load()
	if cur.closed {
		return nil, nil
	}
	next := *cur
	if u.Renew != nil {
		renewed, err := u.Renew.state()
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
		next = *renewed
		next.weight = l.weigh(next.entries...)
	}
	for _, e := range u.Entries {
		if e.Seq != next.last+1 {
			return nil, errUpdate
		}
		next.last = e.Seq
		e.At = next.notBefore(wall(e.At))
		next.entries = append(next.entries, e)
		next.bytes += int64(len(e.Data))
		next.weight += l.weigh(e)
	}
	if !u.Now.IsZero() {
		r.skew.Store(int64(wall(u.Now).Sub(wall(time.Now()))))
	}
	var trims []Trim
	if u.Renew != nil || len(u.Entries) > 0 {
		if u.Renew != nil {
			l.ageSet = false // the timer belongs to entries that may be gone
		}
		trims = l.retain(&next, l.Now())
		l.publish(&next)
		r.changed()
	}
	if u.Checked && !u.Now.IsZero() {
		r.current.Store(u.Now.UnixNano())
	}
	if u.Checked {
		decided, left := r.checked()
		if decided {
			l.wake.soon()
		}
		if left {
			r.origin.Look()
		}
	}
	return trims, nil
}

// changed ends the waiting in reach.
func (r *replica) changed() {
	next := make(chan struct{})
	if before := r.news.Swap(&next); before != nil {
		close(*before)
	}
}

// checked counts a look. It reports whether that decides about positions, and
// whether others need another look.
func (r *replica) checked() (decided, left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks++
	for _, at := range r.ahead {
		decided = decided || r.looks == at+enough
		left = left || r.looks < at+enough
	}
	return decided, left
}

// enough is the number of looks that decide about a position. One of them may
// have been under way when the position came, and the position may be of the
// time after it.
const enough = 2

// mayCome reports whether p, which s does not know, may be of a later state:
// of this line, or of one that begins later.
func (s *state) mayCome(p Position) bool {
	if p.log == s.lines.current {
		return p.epoch > s.epoch || p.epoch == s.epoch && p.seq > s.last
	}
	for _, h := range s.lines.earlier {
		if h.Line == p.log {
			return false
		}
	}
	return true
}

// waits reports whether the replica may only be behind p, a position that it
// does not know: another process, which was quicker, may have given it. The
// Origin has the last word.
func (r *replica) waits(st *state, p Position) bool {
	if st.closed || !st.mayCome(p) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at, asked := r.ahead[p]
	if !asked {
		if len(r.ahead) >= maxAhead {
			for p, at := range r.ahead {
				if r.looks >= at+enough {
					delete(r.ahead, p)
				}
			}
		}
		if len(r.ahead) >= maxAhead {
			return false // a Reset is right for every position
		}
		at = r.looks
		r.ahead[p] = at
		r.origin.Look()
	}
	return r.looks < at+enough
}

// commit makes a change, and waits until the replica has it.
func (l *Log) commit(ctx context.Context, c Change) (Position, int, error) {
	if err := ctx.Err(); err != nil {
		return Position{}, 0, err
	}
	if st := l.state.Load(); st.closed {
		return Position{}, 0, st.ended()
	}
	done, err := l.replica.origin.Commit(ctx, c)
	switch {
	case err != nil && !errors.Is(err, ErrNotErased):
		if errors.Is(err, ErrMoved) || errors.Is(err, ErrFinished) {
			return Position{}, 0, err
		}
		return Position{}, 0, fmt.Errorf("history: %s: %w", c.verb(), err)
	case err != nil:
		err = fmt.Errorf("history: %s: %w", c.verb(), err)
	}
	l.reach(ctx, func(st *state) bool { return st.reaches(done.Head) && (st.finished || !c.Finish) })
	l.mu.Lock()
	switch {
	case c.Replace:
		l.counts.Replaced++
	case len(c.Delete) > 0:
		l.counts.Deleted += uint64(done.Deleted)
	case len(c.Append) > 0:
		l.counts.Appended++
	}
	l.mu.Unlock()
	return Position{done.Head.Line, done.Head.Epoch, done.Head.Last}, done.Deleted, err
}

func (c *Change) verb() string {
	switch {
	case c.Replace:
		return "replace"
	case len(c.Delete) > 0:
		return "delete"
	case c.Finish:
		return "finish"
	}
	return "append"
}

// finishShared is Finish for a log with an Origin.
func (l *Log) finishShared(ctx context.Context) error {
	if l.state.Load().finished {
		return nil
	}
	_, _, err := l.commit(ctx, Change{Finish: true})
	if errors.Is(err, ErrFinished) { // by another process
		err = nil
	}
	return err
}

// reach waits until the state is as wanted, but not longer than await.
func (l *Log) reach(ctx context.Context, wanted func(*state) bool) {
	var timeout <-chan time.Time
	for {
		news := *l.replica.news.Load()
		// The state is read after the channel: a change closes the channel
		// after it has stored its state.
		if st := l.state.Load(); st.closed || wanted(st) {
			return
		}
		if timeout == nil {
			timer := time.NewTimer(await)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-news:
		case <-timeout:
			return
		case <-ctx.Done():
			return
		case <-l.replica.ctx.Done():
			return
		}
	}
}

// reaches reports whether the log has been at h, or is beyond it.
func (s *state) reaches(h Head) bool {
	if h.Line != s.lines.current {
		for _, e := range s.lines.earlier {
			if e.Line == h.Line {
				return true
			}
		}
		return false
	}
	return s.epoch > h.Epoch || s.epoch == h.Epoch && s.last >= h.Last
}
