package redislog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
)

const (
	// pageSize is the number of entries that one XREAD returns at most.
	pageSize = 1000
	// lookGap is the time between two looks. Anybody can ask for them, by a
	// made-up position.
	lookGap = 50 * time.Millisecond
	// patience is how long the reader may be behind a look. After that, it is
	// at a place from which the log is not continued.
	patience = time.Second
)

// The waits between two tries to follow.
const (
	firstBackoff = 20 * time.Millisecond
	longBackoff  = time.Second
)

var (
	errReplica = errors.New("redislog: the engine is a replica of another: give the client the address of the master, or of the Sentinels")
	errAgain   = errors.New("redislog: the log is not continued here") // and is loaded anew
)

// follower is the part of an origin that Follow uses.
type follower struct {
	asked chan struct{} // Look was called

	mu   sync.Mutex
	key  *dataKey      // of the entries that come next
	skew time.Duration // the engine's clock less that of this process
}

// Look implements [history.Origin].
func (o *origin) Look() {
	select {
	case o.follow.asked <- struct{}{}:
	default:
	}
}

// Load implements [history.Origin].
func (o *origin) Load(ctx context.Context) (history.Saved, error) {
	v, err := o.load(ctx)
	if err != nil {
		return history.Saved{}, err
	}
	return v.saved, nil
}

// load returns the whole log, and begins one, or a new line, if that is due.
func (o *origin) load(ctx context.Context) (*view, error) {
	for range 3 {
		v, err := o.look(ctx, true)
		if err != nil {
			return nil, err
		}
		if v.due {
			if _, err := o.Commit(ctx, history.Change{}); err != nil {
				return nil, err
			}
			continue
		}
		o.follow.mu.Lock()
		o.follow.key, o.follow.skew = v.key, time.Until(v.now)
		o.follow.mu.Unlock()
		return v, nil
	}
	return nil, errors.New("redislog: the engine changes its master_replid all the time")
}

// reading is the state of one call of Follow.
type reading struct {
	o     *origin
	apply func(history.Update) error

	at       history.Head
	pos      streamID // what comes after it is new
	finished bool
	id       uint64 // of the log; 0 before the first look

	behind *view // a look that the log has not reached
	since  time.Time
}

// Follow implements [history.Origin].
func (o *origin) Follow(ctx context.Context, from history.Head, apply func(history.Update) error) {
	r := &reading{o: o, apply: apply, at: from, pos: streamID{from.Epoch, from.Last * 1024}}
	var failing time.Time // since when, if it fails
	wait := firstBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := r.session(ctx, func() {
			failing, wait = time.Time{}, firstBackoff
			o.e.state(o, nil)
		})
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errAgain) {
			continue
		}
		if failing.IsZero() {
			failing = began
		}
		answer, answered := rueidis.IsRedisErr(err)
		wrong := errors.Is(err, ErrSealed) || errors.Is(err, errReply) || answered && !passing(answer)
		if wrong || time.Since(failing) >= o.e.cfg.Timeout {
			o.e.state(o, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, longBackoff)
	}
}

// page is what one XREAD returned.
type page struct {
	entries []rueidis.XRangeSlice
	err     error
}

// session follows the log on one connection. It looks first, since a reader of
// a log that is gone waits for what never comes. It calls well whenever it has
// applied an answer to the XREAD.
func (r *reading) session(ctx context.Context, well func()) error {
	o := r.o
	r.behind = nil
	if err := r.check(ctx); err != nil && !errors.Is(err, errAgain) {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan page)
	var reader sync.WaitGroup
	reader.Go(func() { o.read(ctx, r.pos, pages) })
	defer reader.Wait()
	defer cancel()

	tick := time.NewTicker(o.e.cfg.Check)
	defer tick.Stop()
	var gap <-chan time.Time // set while the next look waits
	looked := time.Now()
	for {
		look := false
		select {
		case p := <-pages:
			if p.err != nil {
				return p.err
			}
			if err := r.news(ctx, p.entries); err != nil {
				return err
			}
			well()
		case <-tick.C:
			look = true
		case <-o.follow.asked:
			if gap == nil {
				gap = time.After(time.Until(looked.Add(lookGap)))
			}
		case <-gap:
			look = true
		case <-ctx.Done():
			return ctx.Err()
		}
		if look {
			gap, looked = nil, time.Now()
			if err := r.check(ctx); err != nil {
				return err
			}
			tick.Reset(o.e.cfg.Check)
		}
	}
}

// read sends what comes after pos, until ctx ends or the connection fails.
func (o *origin) read(ctx context.Context, pos streamID, pages chan<- page) {
	conn, release := o.e.cfg.Client.Dedicate()
	defer release()
	defer conn.Close() // an XREAD may be under way
	for block := int64(1); ; block = max(o.e.cfg.Check.Milliseconds(), 1) {
		// With a deadline, rueidis would not notice that ctx is cancelled.
		one, cancel := context.WithCancel(ctx)
		silence := time.AfterFunc(o.e.cfg.Check+o.e.cfg.Timeout, cancel)
		lists, err := conn.Do(one, conn.B().Xread().Count(pageSize).Block(block).Streams().Key(o.log).Id(pos.String()).Build()).AsXReadSlices()
		silence.Stop()
		cancel()
		if rueidis.IsRedisNil(err) {
			err = nil // no news
		}
		p := page{lists[o.log], err}
		if n := len(p.entries); err == nil && n > 0 {
			pos, p.err = parseID(p.entries[n-1].ID)
		}
		select {
		case pages <- p:
			runtime.Gosched() // the news come before the next call
		case <-ctx.Done():
			return
		}
		if p.err != nil {
			return
		}
	}
}

// news applies the entries of a page.
func (r *reading) news(ctx context.Context, entries []rueidis.XRangeSlice) error {
	u := history.Update{Entries: make([]history.Entry, 0, len(entries))}
	next, key := r.at, r.o.dataKey()
	for _, x := range entries {
		id, err := parseID(x.ID)
		switch {
		case err != nil:
			return err
		case !r.pos.before(id):
			continue // it came by a reload
		}
		if id != (streamID{next.Epoch, (next.Last + 1) * 1024}) {
			if err := r.applied(ctx, u, next); err != nil {
				return err
			}
			return r.reload(ctx)
		}
		e, err := r.o.entry(key, x)
		if err != nil {
			return err
		}
		u.Entries = append(u.Entries, e)
		next.Last, r.pos = e.Seq, id
	}
	return r.applied(ctx, u, next)
}

// applied applies u, after which the log is at head.
func (r *reading) applied(ctx context.Context, u history.Update, head history.Head) error {
	if r.behind != nil && reached(head, r.behind.head) {
		u.Checked, u.Now, r.behind = true, r.behind.now, nil
	}
	if len(u.Entries) == 0 && !u.Checked {
		return nil
	}
	if n := len(u.Entries); n > 0 {
		r.o.e.lag.Store(int64(time.Until(u.Entries[n-1].At) - r.o.skew()))
	}
	if err := r.apply(u); err != nil {
		return r.reload(ctx)
	}
	r.at = head
	return nil
}

// reached reports whether a log at head has everything that was there at a
// look. While others append all the time, it may never be just there.
func reached(head, looked history.Head) bool {
	return head.Line == looked.Line && head.Epoch == looked.Epoch && head.Last >= looked.Last
}

// check looks at the engine, and loads the log if it is not continued there.
func (r *reading) check(ctx context.Context) error {
	v, err := r.o.look(ctx, false)
	switch {
	case err != nil:
		return err
	case v.due || v.head.Line != r.at.Line || v.head.Epoch != r.at.Epoch || v.head.Last < r.at.Last || v.saved.Finished != r.finished,
		r.behind != nil && time.Since(r.since) > patience:
		return r.reload(ctx)
	}
	r.id = v.saved.ID
	if r.behind == nil {
		r.behind, r.since = v, time.Now()
	}
	return r.applied(ctx, history.Update{}, r.at)
}

// reload loads the whole log, and applies it. Its error is errAgain if the
// reader does not read the right stream any more.
func (r *reading) reload(ctx context.Context) error {
	for tries := 0; ; tries++ {
		v, err := r.o.load(ctx)
		if err != nil {
			return err
		}
		r.o.e.reloads.Add(1)
		if r.id != 0 && v.saved.ID != r.id {
			r.o.e.cfg.OnState(ErrLost)
			r.o.e.cfg.OnState(nil)
		}
		err = r.apply(history.Update{Renew: &v.saved, Checked: true, Now: v.now})
		if err != nil && tries < 3 {
			continue // the log has made a change because of what came
		}
		if err != nil {
			return err
		}
		before, pos := r.at, r.pos
		r.at, r.pos, r.id, r.finished, r.behind = v.head, v.end, v.saved.ID, v.saved.Finished, nil
		if before.Line != r.at.Line || r.pos.before(pos) {
			return errAgain
		}
		return nil
	}
}

// look asks the engine where the log is and, if all is set, for the log.
func (o *origin) look(ctx context.Context, all bool) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, o.e.cfg.Timeout)
	defer cancel()
	what := "head"
	if all {
		what = "all"
	}
	reply, err := lookScript.exec(ctx, o.e.cfg.Client, []string{o.head, o.log, o.pinned}, []string{what}).ToArray()
	switch answer, answered := rueidis.IsRedisErr(err); {
	case answered:
		return nil, fmt.Errorf("redislog: the engine refuses to show the log: %w", answer)
	case err != nil:
		return nil, fmt.Errorf("redislog: the engine does not answer: %w", err)
	}
	return o.view(reply)
}

// dataKey returns the key of the entries that come next.
func (o *origin) dataKey() *dataKey {
	o.follow.mu.Lock()
	defer o.follow.mu.Unlock()
	return o.follow.key
}

func (o *origin) skew() time.Duration {
	o.follow.mu.Lock()
	defer o.follow.mu.Unlock()
	return o.follow.skew
}

// streamID is the id of an entry or a mark: its epoch, and the sequence number
// times 1024 plus the number of the mark.
type streamID struct{ epoch, n uint64 }

func (id streamID) String() string {
	return strconv.FormatUint(id.epoch, 10) + "-" + strconv.FormatUint(id.n, 10)
}

func (id streamID) before(other streamID) bool {
	return id.epoch < other.epoch || id.epoch == other.epoch && id.n < other.n
}

func parseID(text string) (id streamID, err error) {
	epoch, n, _ := strings.Cut(text, "-")
	if id.epoch, err = strconv.ParseUint(epoch, 10, 64); err == nil {
		id.n, err = strconv.ParseUint(n, 10, 64)
	}
	if err != nil {
		return id, errReply
	}
	return id, nil
}
