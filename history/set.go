package history

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"
)

// The defaults of [SetConfig].
const (
	defaultMaxLogs  = 1000
	defaultMaxBytes = 256 << 20
	defaultIdle     = 5 * time.Minute
)

var (
	// ErrName is returned for a name that no log of a [Set] can have. It never
	// quotes the name, because the name may come from anybody.
	ErrName = errors.New("history: malformed name")

	// ErrNotExist is returned by [Set.Acquire] if there is no log of that name.
	ErrNotExist = errors.New("history: there is no log of this name")

	// ErrFull is returned if one of the limits of a [Set] is reached, and none
	// of its logs may be closed.
	ErrFull = errors.New("history: the set is full")
)

// SetConfig configures a [Set]. With the zero value, the logs are in memory
// only, and at most 1,000 of them with together at most 256 MiB.
type SetConfig struct {
	// Log configures each log. Its Store and Origin must be nil. Its limits are
	// those of one log: without Log.MaxBytes, one log can use up MaxBytes.
	Log Config

	// Store, if not nil, returns the Store of the log with this name, which the
	// Set then closes. If create is not set, a Store for which nothing is saved
	// yet is not needed: the func may return an error that wraps
	// [fs.ErrNotExist] instead. It is called once for each opening of a log,
	// and for one name only after the Store before is closed. Package journal
	// has such a func.
	Store func(ctx context.Context, name string, create bool) (Store, error)

	// MaxLogs is the number of logs that may be open. 0 means 1,000.
	MaxLogs int

	// MaxBytes limits the memory of all open logs together: the lengths of
	// their entries, and 64 bytes more for each entry. 0 means 256 MiB.
	MaxBytes int64

	// Idle is how long a log stays open that no one uses. 0 means 5 minutes.
	//
	// If the Set is full, it closes the log that has not been used for the
	// longest time, to open another one or to append to another one. If the
	// logs have Stores, it does so before Idle has passed. Without, it does
	// not, because the entries would be lost.
	Idle time.Duration

	// OnEvict, if not nil, is called after a log was closed because no one used
	// it, with the error of its Store. It is called with no lock held, in the
	// goroutine that needed the space, or in a timer's.
	OnEvict func(name string, err error)
}

// Set holds logs by name. It opens a log when it is first used. It closes it
// again, or without a Store forgets it, when no one has used it for a while.
// [NewSet] returns one. Its methods may be called from any goroutine.
//
// A name has 1 to 100 characters of ASCII: letters, digits, '.', '_' and '-'.
// It begins with a letter or a digit. So it is safe in a path and in a URL.
type Set struct {
	cfg    SetConfig
	budget *budget

	mu       sync.Mutex
	logs     map[string]*member
	idle     list.List // of *member that no one uses, by the time since then
	timer    *time.Timer
	timerSet bool
	closing  []chan struct{} // busy of those that are being closed
	erasing  int             // how many of logs are closed, and are being erased
	closed   bool
	stats    SetStats // only its counters
}

// member is a log of a Set. Its fields belong to Set.mu.
type member struct {
	name  string
	log   *Log
	users int
	since time.Time     // when the last user released it
	place *list.Element // in Set.idle, or nil
	busy  chan struct{} // while it is opened or closed; closed afterwards
	err   error         // of the opening

	erasing bool // it counts in Set.erasing
}

// SetStats are the figures of a [Set]: its content now, and counters since
// NewSet.
type SetStats struct {
	Logs  int   // open logs
	InUse int   // those that are acquired
	Bytes int64 // what counts toward SetConfig.MaxBytes

	Opened  uint64 // logs that were opened or made
	Evicted uint64 // logs that were closed because no one used them
}

// NewSet returns a Set without open logs. If cfg is wrong, the error joins a
// [*ConfigError] for each problem.
func NewSet(cfg SetConfig) (*Set, error) {
	var errs []error
	refuse := func(bad bool, field string, reason ConfigReason) {
		if bad {
			errs = append(errs, &ConfigError{"SetConfig." + field, reason})
		}
	}
	refuse(cfg.Log.Store != nil, "Log.Store", ConfigShared)
	refuse(cfg.Log.Origin != nil, "Log.Origin", ConfigShared)
	refuse(cfg.MaxLogs < 0, "MaxLogs", ConfigNegative)
	refuse(cfg.MaxBytes < 0, "MaxBytes", ConfigNegative)
	refuse(cfg.Idle < 0, "Idle", ConfigNegative)
	log, more := cfg.Log.withDefaults("SetConfig.Log.")
	if errs = append(errs, more...); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	cfg.Log = log
	if cfg.MaxLogs == 0 {
		cfg.MaxLogs = defaultMaxLogs
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	s := &Set{cfg: cfg, logs: make(map[string]*member)}
	s.budget = &budget{max: cfg.MaxBytes, free: s.free}
	s.timer = stopped(s.onIdle)
	return s, nil
}

func validName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return len(name) > 0 && len(name) <= 100 // a Store may have to escape each, and files allow 255
}

// Acquire returns the log of that name, and opens it if it is not open. If
// there is none, the error is [ErrNotExist]. The log stays open until the
// caller calls release, so call release when the last reader and the last
// append are done. It may be called several times. Do not close the log.
//
// Any number of callers may hold the same log. Of those that need it opened,
// one opens it and the others wait for that. The other errors are that of ctx,
// [ErrName], [ErrFull], [ErrClosed], or wrap that of the Store.
//
// With Stores, a name that does not exist costs a call of SetConfig.Store, for
// which a full Set closes another log. So if anybody may ask for names, limit
// how often.
func (s *Set) Acquire(ctx context.Context, name string) (log *Log, release func(), err error) {
	return s.acquire(ctx, name, false)
}

// Create is [Set.Acquire], but makes the log if there is none. A name that a
// client may choose costs memory and space in the Store, so call Create only
// after a check of the client's permission.
func (s *Set) Create(ctx context.Context, name string) (log *Log, release func(), err error) {
	return s.acquire(ctx, name, true)
}

func (s *Set) acquire(ctx context.Context, name string, create bool) (*Log, func(), error) {
	if !validName(name) {
		return nil, nil, ErrName
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		s.mu.Lock()
		m := s.logs[name]
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, nil, ErrClosed
		case m != nil && m.busy != nil:
			busy := m.busy
			s.mu.Unlock()
			select {
			case <-busy:
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
			if err := m.err; err != nil && m.shared(create) {
				return nil, nil, err
			}
		case m != nil:
			release := s.use(m)
			s.mu.Unlock()
			return m.log, release, nil
		case s.cfg.Store == nil && !create:
			s.mu.Unlock()
			return nil, nil, ErrNotExist
		case len(s.logs)-s.erasing < s.cfg.MaxLogs:
			m = &member{name: name, busy: make(chan struct{})}
			s.logs[name] = m
			s.mu.Unlock()
			return s.open(ctx, m, create)
		default:
			if !s.freeOne(ctx) {
				return nil, nil, ErrFull
			}
		}
	}
}

// shared reports whether m.err is the result for another caller, who waited for
// the opening, too.
func (m *member) shared(create bool) bool {
	switch {
	case errors.Is(m.err, ErrNotExist):
		return !create
	case errors.Is(m.err, context.Canceled), errors.Is(m.err, context.DeadlineExceeded):
		return false
	}
	return true
}

// use counts one more user of m. The caller holds s.mu.
func (s *Set) use(m *member) (release func()) {
	m.users++
	s.leave(m)
	return sync.OnceFunc(func() { s.release(m) })
}

// leave takes m from the idle logs. The caller holds s.mu.
func (s *Set) leave(m *member) {
	if m.place != nil {
		s.idle.Remove(m.place)
		m.place = nil
	}
}

func (s *Set) release(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.users--; m.users > 0 || s.logs[m.name] != m || m.busy != nil {
		return
	}
	m.since = time.Now()
	m.place = s.idle.PushBack(m)
	if !s.timerSet {
		s.setTimer(m.since)
	}
}

var errNoStore = errors.New("history: open: SetConfig.Store returned neither a Store nor an error")

// errPanic is the error of an opening for those who waited while it panicked.
var errPanic = errors.New("history: the opening of the log panicked")

// open opens the log of m, which is busy meanwhile.
func (s *Set) open(ctx context.Context, m *member, create bool) (log *Log, release func(), err error) {
	err = errPanic
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		busy := m.busy
		m.log, m.err, m.busy = log, err, nil
		defer close(busy)
		if err != nil {
			delete(s.logs, m.name)
			return
		}
		s.stats.Opened++
		release = s.use(m)
	}()
	log, err = s.load(ctx, m.name, create)
	return log, nil, err
}

func (s *Set) load(ctx context.Context, name string, create bool) (*Log, error) {
	cfg := s.cfg.Log
	if s.cfg.Store != nil {
		store, err := s.cfg.Store(ctx, name, create)
		if !create && errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotExist
		}
		if err != nil {
			return nil, fmt.Errorf("history: open: %w", err)
		}
		if store == nil { // else the log would be in memory, and lost by an eviction
			return nil, errNoStore
		}
		cfg.Store = store
	}
	log, err := open(ctx, cfg, create, s.budget)
	if err != nil {
		if cfg.Store != nil {
			cfg.Store.Close()
		}
		return nil, err
	}
	if s.budget.take(ctx, 0) != nil { // the saved entries are too many
		return nil, errors.Join(ErrFull, log.Close())
	}
	return log, nil
}

// Remove closes the log of that name, even if it is in use, and calls erase if
// it is not nil. Its readers get [ErrClosed]. Until erase has returned, no one
// can open the name. A log in memory needs no erase. One with a Store is opened
// again by the next use, unless erase removes what the Store has saved.
//
// The error joins those of the Store and of erase, or is that of ctx,
// [ErrName] or [ErrClosed]. It is nil if there is no such log.
func (s *Set) Remove(ctx context.Context, name string, erase func(context.Context) error) error {
	if !validName(name) {
		return ErrName
	}
	for {
		s.mu.Lock()
		m := s.logs[name]
		switch {
		case s.closed:
			s.mu.Unlock()
			return ErrClosed
		case m != nil && m.busy != nil:
			busy := m.busy
			s.mu.Unlock()
			select {
			case <-busy:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		case m == nil: // it keeps others from opening the name meanwhile
			m = &member{name: name}
			s.logs[name] = m
		}
		s.begin(m)
		s.mu.Unlock()
		return s.shut(ctx, m, erase)
	}
}

// Stats returns the figures of the Set.
func (s *Set) Stats() SetStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Logs, stats.Bytes = len(s.logs)-s.erasing, s.budget.used.Load()
	stats.InUse = stats.Logs - s.idle.Len()
	return stats
}

// Close closes all logs, even those that are in use, and joins the errors of
// their Stores. Readers get [ErrClosed], and so do later calls of Acquire and
// Create. Further calls of Close return nil.
//
// Close waits for all Stores, but closes several at a time, so that one that
// hangs does not keep the readers of other logs.
func (s *Set) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.timer.Stop()
	all := slices.Collect(maps.Values(s.logs))
	s.mu.Unlock()
	errs := make([]error, len(all))
	var closing sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i, m := range all {
		slots <- struct{}{}
		closing.Go(func() {
			errs[i] = s.close(m)
			<-slots
		})
	}
	closing.Wait()
	return errors.Join(errs...)
}

// close closes the log of m, after the opening or closing that is under way.
func (s *Set) close(m *member) error {
	s.mu.Lock()
	for m.busy != nil && s.logs[m.name] == m {
		busy := m.busy
		s.mu.Unlock()
		<-busy
		s.mu.Lock()
	}
	if s.logs[m.name] != m {
		s.mu.Unlock()
		return nil
	}
	s.begin(m)
	s.mu.Unlock()
	return s.shut(context.Background(), m, nil)
}
