package relay

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/history"
)

// fanout sends the log to all viewers. It has one courier for each processor.
// In each round a courier gives each of its viewers one frame with the entries
// that the viewer has not had. It does not wait for a viewer: if a socket does
// not take the whole frame, a goroutine writes the rest, and the courier skips
// this viewer until then. The viewer misses nothing: its cursor stays at the
// end of that frame, and the entries that are stored meanwhile are merged into
// its next one.
//
// # Cost
//
// The cost of a delivery is the system call. In a profile of
// [wsconn.Conn.StartFrame], write(2) takes 92 % of the time, the lock around it
// takes 3 %, and the runtime around both takes the rest. A frame is encoded
// once. A delivery does not allocate, set a timer or a deadline, or wake a
// goroutine. With 1,000 viewers and 25 messages a second, a delivery takes 0.99
// to 1.18 times the processor time of a bare loop of writes with deadlines (gws
// 1.19, gorilla 1.43, melody 1.54, centrifuge 1.68; November 2026, server and
// load on a core each, in examples/interop: go run ./bench/fanout cpu). On a
// Unix socket it takes 0.53 to 0.69, over TLS 1.15 to 1.31, and as an event 1.7
// to 2.0.
//
// A viewer that watches is parked ([wsconn.Conn.Park]) and has no goroutine. It
// takes 2.6 to 3.1 KB when the handshakes' garbage is collected, and 3.8 KB
// some seconds after 9,500 viewers have come at once (bare 5.9, gws 8.6, and
// the relay's transport with a goroutine in Read 18: fanout idle). The heap
// takes 1.6 KB of that: 0.5 KB for our connection, 0.4 KB for the socket with
// its addresses, 0.25 KB each for the session and the viewer, and 0.15 KB for
// the limiter. The rest is the runtime's place for the socket and overhead of
// the garbage collector.
//
// Between messages, a viewer costs 1 µs of processor time a second, for its
// pings. Half of that are the system calls that write the ping and read the
// pong (fanout quiet). Over TLS, a viewer has two goroutines, and takes what it
// takes with a goroutine in Read, and the state of the encryption. With
// GODEBUG=adaptivestackstart=0, which the shipped units and the image set, the
// stack of the library's goroutine then stays at 2 KiB. The calls between here
// and the read just fit into 4 KiB.
//
// # Under load
//
// A round takes longer if there are more viewers, and the messages that arrive
// during a round are merged in the next one. So with more viewers, the cost of
// each viewer per second falls. The delay of a viewer rises, but only to the
// length of a round and a rest: a third of the round's time, and 20 ms at most,
// for accepting, reading and publishing. A longer rest gives these nothing more:
// with 11,000 viewers, /healthz took 8 ms (median) and 33 ms (longest of 170)
// with rests of 20 ms and with rests of a third, which made the p99 of viewers
// 1.2 times as long. On one core, 15,000 viewers get 25 messages a second with a
// p99 below 250 ms; gws keeps up with 4,900, gorilla with 5,300, melody with
// 3,600 and centrifuge with 7,500 (fanout most). Two relays with 0.45 of a core
// each and one Redis keep up with twice as many viewers as one.
//
// Over TLS, a delivery takes 1.2 times as long. In a profile, write(2) takes 67
// % of it and not 77, the lock and the buffers of crypto/tls 10 %, and the
// encryption 5 % (fanout -profile DIR cpu).
type fanout struct {
	log      *history.Log
	frames   *frameCache
	counts   *counts
	couriers []*courier
	delay    time.Duration                   // of what viewers see
	held     func() (since, known time.Time) // nil: never

	watching atomic.Int64 // viewers

	mu      sync.Mutex
	joined  uint64
	stop    context.CancelFunc // nil before the first viewer
	stopped bool
	done    sync.WaitGroup
}

func newFanout(cfg *Config, frames *frameCache, counts *counts) *fanout {
	f := &fanout{log: cfg.Log, frames: frames, counts: counts, delay: cfg.Delay, held: cfg.Held}
	for range runtime.GOMAXPROCS(0) {
		f.couriers = append(f.couriers, &courier{fanout: f, bell: make(chan struct{}, 1)})
	}
	return f
}

// join makes a courier visit v from now on. The couriers start with the first
// viewer.
func (f *fanout) join(v *viewer) {
	f.watching.Add(1)
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

// leave ends the visits to v. One visit can still be under way when leave
// returns.
func (f *fanout) leave(v *viewer) {
	f.watching.Add(-1)
	v.gone.Store(true)
	v.courier.sweep()
}

// close ends the couriers and waits for them. They do not start again.
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

// watch wakes the couriers when the log has changed, at the pace at which the
// log wakes its readers, and when viewers may see more of it, until ctx ends.
func (f *fanout) watch(ctx context.Context, news *history.Reader) {
	more := time.NewTimer(0)
	defer more.Stop()
	var restart history.Batch // whose note viewers may not have seen
	for {
		more.Stop()
		bound, wait := f.bound()
		if restart.Note != nil {
			if wait == 0 {
				wait = longLook // the log may have nothing that waits
			}
			if bound.seq == everything || bound.shows(restart) {
				restart, wait = history.Batch{}, shortLook // once more
			}
		}
		if wait > 0 {
			more.Reset(wait)
		}
		select {
		case <-news.Changed():
		case <-more.C:
		case <-ctx.Done():
			return
		}
		b, err := news.TryNext()
		if err != nil {
			return
		}
		if b.Reset && b.Note != nil {
			restart = b
		}
		if b.Reset {
			f.frames.forget() // another server may have cleared what they hold
		}
		// An empty batch can be news too: a viewer whose position no server
		// has given gets the whole history now.
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
	bell chan struct{} // of size 1; rung when there is something to do

	mu      sync.Mutex
	news    bool      // the log has changed
	swept   bool      // viewers have left
	waiting []*viewer // viewers that have joined, or have more to get
	written []*viewer // viewers whose write has ended

	viewers []*viewer        // all; only the goroutine uses this and the fields below
	behind  []*viewer        // viewers that have more to get after this round
	last    shared           // the newest frame
	from    history.Position // of the viewers that can get the frame
	to      history.Position // of a viewer that has got it
	part    bool             // the log has more entries for the viewer than the frame holds
	bound   bound            // of this round
}

func (c *courier) ring() {
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

// call makes the courier visit v soon.
func (c *courier) call(v ...*viewer) {
	c.mu.Lock()
	c.waiting = append(c.waiting, v...)
	c.mu.Unlock()
	c.ring()
}

// wrote makes the courier visit v soon, because v's write has ended.
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

const (
	// leastRest is the shortest rest that gets a timer; shorter ones add up.
	leastRest = time.Millisecond
	// mostRest is enough for what else there is to do, however many viewers
	// there are: Go's scheduler lets it run during a round, too.
	mostRest = 20 * time.Millisecond
)

// restAfter returns how long a courier rests after a round.
func restAfter(round time.Duration) time.Duration { return min(round/3, mostRest) }

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
		if rest += restAfter(time.Since(began)); rest < leastRest {
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

// round visits the viewers for which there may be a frame.
func (c *courier) round() {
	c.mu.Lock()
	written, waiting, news, swept := c.written, c.waiting, c.news, c.swept
	c.written, c.waiting, c.news, c.swept = nil, nil, false, false
	c.mu.Unlock()
	c.bound, _ = c.fanout.bound()

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
	c.last = shared{} // entries that are cleared from the log must not stay here
	if len(c.behind) > 0 {
		c.call(c.behind...)
		clear(c.behind)
		c.behind = c.behind[:0]
	}
}

// visit gives v one frame of the entries that v has not had. A long history
// takes several frames, one in each round, so that the other viewers need not
// wait for all of it.
func (c *courier) visit(v *viewer) {
	if v.busy || v.gone.Load() || !c.find(v) {
		return
	}
	sent, err := v.start(c.last)
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

// find sets last to the next frame of v, and reports whether there is one.
func (c *courier) find(v *viewer) bool {
	if c.bound.seq == everything {
		now := c.log.Position()
		if v.begun && v.pos == now {
			return false
		}
		if v.begun && c.last.frame != nil && v.pos == c.from && now == c.to {
			c.part = false
			return true // last is the frame of the previous viewer
		}
	}
	forgotten := c.frames.forgotten.Load()
	b, whole, part, ok := c.ahead(v)
	if !ok {
		return false
	}
	c.part = part
	if v.begun && c.last.frame != nil && b.From == c.from && b.To == c.to {
		return true
	}
	c.last, c.from, c.to = *c.frames.get(b, whole, forgotten), b.From, b.To
	if whole {
		c.from = history.Position{} // no other viewer gets this frame
	}
	return true
}

// ahead returns what the next frame of v shows, if anything, whether the frame
// replaces all that the page shows, and whether there is more after it.
func (c *courier) ahead(v *viewer) (b history.Batch, whole, part, ok bool) {
	whole = !v.begun && v.fresh
	b = c.bound.of(c.log.Since(v.pos), whole)
	if b.Empty() && !(whole && len(b.Pins()) > 0) {
		return b, whole, false, false
	}
	all := b.To
	b = piece(b)
	return b, whole, b.To != all, true
}
