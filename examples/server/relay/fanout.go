package relay

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/relayguard/relayguard/history"
)

// fanout carries the log to all viewers. A few couriers, one for each
// processor, go round: to every viewer a courier gives what it has not had, as
// one frame, and goes on without waiting. A viewer whose socket does not take a
// frame whole is left to a goroutine of its own until it has, and then has
// missed nothing, since its cursor has not moved: what came meanwhile is
// merged.
//
// # Cost
//
// What a delivery costs is the system call. Of the time in
// [wsconn.Conn.StartFrame], a profile has 92 % in write(2), 3 % in the lock
// around it and the rest in the runtime around both; a frame is encoded once,
// and no delivery allocates, sets a timer or a deadline, or wakes a goroutine.
// With 1,000 viewers and 25 messages a second a delivery takes 1.10 times the
// processor of a bare loop of writes with deadlines (gws 0.99, gorilla 1.23,
// melody 1.31, centrifuge 1.34; November 2026, server and load on a core each,
// in examples/interop: go run ./bench/fanout cpu).
//
// A viewer that keeps up has two goroutines, both asleep: one reads for it, the
// other is the WebSocket library's. It takes about 15 KB: stacks of 4 KiB each,
// since what is called between here and the read just fits; 5 KB of heap, of
// which the library's connection with its locks, timers and buffers is 2.7 KB,
// our own 0.9 KB, its two goroutines 0.9 KB and the socket 0.4 KB; and what the
// collector leaves in between. With GODEBUG=adaptivestackstart=0, as the
// shipped units and image have it, the library's goroutine keeps 2 KiB and a
// viewer takes 13 KB (bare 5, gws 9, gorilla 16, melody 25, centrifuge 28:
// fanout idle).
//
// # Under load
//
// A round takes longer the more viewers there are, and the messages that come
// meanwhile are merged in the next: so what a viewer costs a second falls, and
// how late it is rises, to the length of a round and no further. After each
// round a courier rests for a third of its time, which leaves a quarter of each
// processor to accepting, reading and publishing however many viewers there
// are. On one core, 13,000 viewers get 25 messages a second with a p99 of 241
// ms, where gws, which keeps up to 4,000, is at a second with 5,000. 10,000
// viewers lost nothing in ten minutes, and with 1 % of them stalled, who were
// dropped, the others' p99 was 1.02 times as long.
type fanout struct {
	log      *history.Log
	frames   *frameCache
	counts   *counts
	couriers []*courier

	mu      sync.Mutex
	joined  uint64
	stop    context.CancelFunc // nil before the first viewer
	stopped bool
	done    sync.WaitGroup
}

func newFanout(log *history.Log, frames *frameCache, counts *counts) *fanout {
	f := &fanout{log: log, frames: frames, counts: counts}
	for range runtime.GOMAXPROCS(0) {
		f.couriers = append(f.couriers, &courier{fanout: f, bell: make(chan struct{}, 1)})
	}
	return f
}

// join has v visited from now on. Nothing runs before the first.
func (f *fanout) join(v *viewer) {
	f.mu.Lock()
	if f.stop == nil && !f.stopped {
		ctx, stop := context.WithCancel(context.Background())
		f.stop = stop
		news := f.log.Reader(history.Latest())
		f.done.Go(func() { f.watch(ctx, news) })
		for _, c := range f.couriers {
			f.done.Go(func() { c.run(ctx) })
		}
	}
	v.courier = f.couriers[f.joined%uint64(len(f.couriers))]
	f.joined++
	f.mu.Unlock()
	v.courier.call(v)
}

// leave has v visited no more. A visit may be under way.
func (f *fanout) leave(v *viewer) {
	v.gone.Store(true)
	v.courier.sweep()
}

// close ends the couriers, for good.
func (f *fanout) close() {
	f.mu.Lock()
	f.stopped = true
	stop := f.stop
	f.mu.Unlock()
	if stop != nil {
		stop()
	}
	f.done.Wait()
}

// watch tells the couriers that the log has changed, at the log's own pace.
func (f *fanout) watch(ctx context.Context, news *history.Reader) {
	for {
		if _, err := news.Next(ctx); err != nil {
			return
		}
		for _, c := range f.couriers {
			c.mu.Lock()
			c.news = true
			c.mu.Unlock()
			c.ring()
		}
	}
}

// courier visits its viewers, in a goroutine of its own.
type courier struct {
	*fanout
	bell chan struct{} // of size 1: there is something to do

	mu      sync.Mutex
	news    bool      // the log has changed
	swept   bool      // viewers have left
	waiting []*viewer // that have joined, or have more to get
	written []*viewer // whose write has ended

	viewers []*viewer // the courier's own, as is what follows
	behind  []*viewer // that this round has left with more to get
	last    shared    // the newest frame, and from where to where it leads
	from    history.Position
	to      history.Position
	part    bool // there was more than went into it
}

func (c *courier) ring() {
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

// call has viewers visited soon.
func (c *courier) call(v ...*viewer) {
	c.mu.Lock()
	c.waiting = append(c.waiting, v...)
	c.mu.Unlock()
	c.ring()
}

// wrote has v visited soon, now that it has taken what it was given.
func (c *courier) wrote(v *viewer) {
	c.mu.Lock()
	c.written = append(c.written, v)
	c.mu.Unlock()
	c.ring()
}

func (c *courier) sweep() {
	c.mu.Lock()
	c.swept = true
	c.mu.Unlock()
	c.ring()
}

// leastRest is the shortest rest that is worth a timer; shorter ones add up.
const leastRest = time.Millisecond

func (c *courier) run(ctx context.Context) {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	var rest time.Duration
	for {
		select {
		case <-c.bell:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		c.round()
		if rest += time.Since(began) / 3; rest < leastRest {
			continue
		}
		alarm.Reset(rest)
		rest = 0
		select {
		case <-alarm.C:
		case <-ctx.Done():
			return
		}
	}
}

// round visits whoever may have something to get.
func (c *courier) round() {
	c.mu.Lock()
	written, waiting, news, swept := c.written, c.waiting, c.news, c.swept
	c.written, c.waiting, c.news, c.swept = nil, nil, false, false
	c.mu.Unlock()

	for _, v := range written {
		v.busy = false
		c.counts.wrote(v.pending, time.Now())
		c.visit(v)
	}
	for _, v := range waiting {
		if !v.listed && !v.gone.Load() {
			v.listed = true
			c.viewers = append(c.viewers, v)
		}
		c.visit(v)
	}
	if news || swept {
		stay := c.viewers[:0]
		for _, v := range c.viewers {
			if v.gone.Load() {
				continue
			}
			stay = append(stay, v)
			c.visit(v)
		}
		clear(c.viewers[len(stay):])
		c.viewers = stay
	}
	c.last = shared{} // what is cleared from the log must not be found here
	if len(c.behind) > 0 {
		c.call(c.behind...)
		clear(c.behind)
		c.behind = c.behind[:0]
	}
}

// visit gives v one frame of what it has not had. A long history takes several,
// one in each round, so that the others need not wait for all of it.
func (c *courier) visit(v *viewer) {
	if v.busy || v.gone.Load() || !c.find(v) {
		return
	}
	sent, err := v.conn.StartFrame(c.last.frame, v.taken)
	if err != nil {
		v.busy = true
		return
	}
	v.pos, v.begun = c.to, true
	if !sent {
		v.busy, v.pending = true, c.last.load
		return
	}
	c.counts.wrote(c.last.load, time.Now())
	if c.part {
		c.behind = append(c.behind, v)
	}
}

// find makes last the frame that v gets next, if there is one.
func (c *courier) find(v *viewer) bool {
	now := c.log.Position()
	if v.begun && v.pos == now {
		return false
	}
	if v.begun && c.last.frame != nil && v.pos == c.from && now == c.to {
		c.part = false
		return true // as for the viewer before
	}
	forgotten := c.frames.forgotten.Load()
	b := c.log.Since(v.pos)
	if b.Empty() {
		return false
	}
	all := b.To
	b = piece(b)
	c.part = b.To != all
	// A position that is not of this epoch, or of another server's log, says
	// nothing about what a client shows that has just come.
	whole := !v.begun && (v.fresh || v.resumed && b.Reset)
	c.last, c.from, c.to = *c.frames.get(b, whole, forgotten), b.From, b.To
	if whole {
		c.from = history.Position{} // of no other viewer
	}
	return true
}
