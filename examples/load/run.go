//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/examples/internal/mark"
	"github.com/relayguard/relayguard/examples/internal/terminal"
)

// The values of report.Mode.
const (
	modeFanout = "fanout"
	modeStorm  = "storm"
	modeIdle   = "idle"

	modeRestart = "restart"
)

// tallies is the number of tallies that the viewers of a server share.
const tallies = 16

// load is one run.
type load struct {
	cfg      config
	to       []target  // one for each -url
	progress io.Writer // if nil, no progress is shown

	finder *mark.Finder
	server processes
	report report

	tallies atomic.Pointer[[]tally] // tallies of each server
	viewers []*viewer
	resume  context.Context // while viewers may go on at another server

	connected, sent atomic.Int64
	over            atomic.Bool
	dripping        sync.WaitGroup
	phase           atomic.Pointer[string]

	mu         sync.Mutex
	refused    map[string]int
	reconnects map[string]int
}

// run measures. If it fails, it also returns the report of what it has
// measured.
func (l *load) run(ctx context.Context) (*report, error) {
	l.finder = mark.NewFinder(l.cfg.run)
	l.server = newProcesses(l.cfg.serverPIDs)
	l.clear()
	l.refused, l.reconnects = map[string]int{}, map[string]int{}
	l.report = report{
		Mode: l.cfg.mode(), Run: l.cfg.run, Viewers: l.cfg.viewers, Rate: l.cfg.rate,
		Refused: l.refused, Reconnects: l.reconnects, Dropped: map[string]int{}, SlowDrops: map[string]int{},
		Failures: []string{}, Notes: []string{},
	}
	for _, u := range l.cfg.urls {
		l.report.Servers = append(l.report.Servers, serverReport{URL: u})
	}
	if err := l.server.check(); err != nil {
		return &l.report, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	var stay context.CancelFunc
	l.resume, stay = context.WithCancel(ctx)
	defer stay()
	beside.Go(func() { l.server.watch(ctx) })
	beside.Go(func() { l.showProgress(ctx) })
	defer func() {
		var gone sync.WaitGroup
		for _, v := range l.viewers {
			gone.Go(v.leave)
		}
		gone.Wait()
	}()

	l.report.RSSStart = l.server.rss()
	var err error
	switch l.cfg.mode() {
	case modeStorm:
		err = l.storm(ctx)
	case modeIdle:
		err = l.idle(ctx)
	case modeRestart:
		err = l.restart(ctx)
	default:
		err = l.fanout(ctx)
	}
	l.report.RSSEnd = l.server.rss()
	l.report.RSSMax = l.server.peak()
	l.report.OwnCPU = ownCPU().Seconds()
	l.collect(stay)
	l.report.judge()
	return &l.report, err
}

// fanout connects the viewers, publishes, and waits until each viewer has all
// messages.
func (l *load) fanout(ctx context.Context) error {
	pub, err := l.publisher(ctx)
	if err != nil {
		return err
	}
	defer pub.close()
	if err := l.connect(ctx, l.cfg.viewers, l.cfg.ramp, 0); err != nil {
		return err
	}
	if l.connected.Load() == 0 {
		return nil // judge reports the refusals
	}
	l.setPhase("publishing")
	meter := l.measure()
	defer meter()
	done, err := pub.publish(ctx, plan{
		run: l.cfg.run, count: max(1, int64(l.cfg.rate*l.cfg.duration.Seconds())), rate: l.cfg.rate, size: l.cfg.size,
	}, func() { l.sent.Add(1) })
	l.report.Published, l.report.RateHeld = done.count, done.held
	if err != nil {
		return err
	}
	if l.cfg.unknownCount() { // every message that a viewer has was published
		for _, v := range l.viewers {
			l.report.Published = max(l.report.Published, v.highest.Load())
		}
	}
	l.setPhase("waiting for the last message")
	return l.settle(ctx, l.report.Published)
}

// storm lets all viewers reconnect at once, and measures the time until each
// has the whole history.
func (l *load) storm(ctx context.Context) error {
	pub, err := l.publisher(ctx)
	if err != nil {
		return err
	}
	defer pub.close()
	count := int64(l.cfg.history)
	l.setPhase("filling the history")
	// If the server has a limit for one publisher, it slows this down.
	done, err := pub.publish(ctx, plan{run: l.cfg.run, count: count, rate: 10_000, size: l.cfg.size}, func() { l.sent.Add(1) })
	l.report.Published = done.count
	if err != nil {
		return err
	}
	if err := l.connect(ctx, l.cfg.viewers, l.cfg.ramp, count); err != nil {
		return err
	}
	l.setPhase("reading the first histories")
	if err := l.awaitComplete(ctx); err != nil {
		return fmt.Errorf("before the storm: %w", err)
	}
	before := l.viewers
	for _, v := range before {
		v.stop()
		if why := v.dropped(); why != "" {
			l.report.Dropped[why]++
		}
	}
	l.viewers = nil
	l.connected.Store(0)
	l.clear()

	l.setPhase("storm")
	meter := l.measure()
	defer meter()
	for _, v := range before {
		if v.conn != nil {
			v.conn.Close()
		}
	}
	start := time.Now()
	if err := l.connect(ctx, len(before), 0, count); err != nil {
		return err
	}
	if err := l.awaitComplete(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	var took histogram
	for _, v := range l.viewers {
		select {
		case <-v.completed:
			took.add(v.completedAt.Sub(start))
		default:
		}
	}
	l.report.Complete = quantilesOf(&took)
	return nil
}

// idle connects the viewers and then measures the memory and the CPU time of
// the server.
func (l *load) idle(ctx context.Context) error {
	if err := l.connect(ctx, l.cfg.viewers, l.cfg.ramp, 0); err != nil {
		return err
	}
	l.setPhase("idle")
	meter := l.measure()
	defer meter()
	err := pause(ctx, l.cfg.duration)
	if n := l.connected.Load(); n > 0 && len(l.server) > 0 {
		l.report.RSSPerViewer = float64(l.server.rss()-l.report.RSSStart) / float64(n)
	}
	return err
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// measure begins the measured time, and returns a function that ends it.
func (l *load) measure() (end func()) {
	cpu, start := l.server.cpu(), time.Now()
	return func() {
		l.report.Seconds = time.Since(start).Seconds()
		for i, now := range l.server.cpu() {
			used := (now - cpu[i]).Seconds()
			l.report.Servers[i].CPU = used
			l.report.ServerCPU += used
		}
	}
}

// connect makes and connects n viewers, ramp per second. If ramp is 0, it
// connects all at once. A viewer is complete when it has complete messages.
func (l *load) connect(ctx context.Context, n int, ramp float64, complete int64) error {
	l.setPhase("connecting")
	slow := l.cfg.slowCount()
	l.report.Slow = slow
	kinds := l.cfg.slowKinds
	l.viewers = make([]*viewer, 0, n)
	var dialling sync.WaitGroup
	start := time.Now()
	for i := range n {
		k := reads
		if i < slow {
			k = kinds[i%len(kinds)]
		}
		v := newViewer(k, l.finder, i, l.cfg.unknownCount())
		v.target = complete
		l.put(v, i%len(l.to))
		if k == reads && l.moves() {
			v.move = func() *dialled { return l.move(v) }
		}
		l.viewers = append(l.viewers, v)
		if ramp > 0 {
			if err := pause(ctx, time.Until(start.Add(time.Duration(float64(i)/ramp*float64(time.Second))))); err != nil {
				break
			}
		}
		dialling.Go(func() { l.join(ctx, v) })
	}
	dialling.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.drip(ctx)
	if len(l.cfg.hello) == 0 {
		return nil
	}
	return l.await(ctx, func(v *viewer) bool { return v.heard.Load() }, "an answer to -hello")
}

// join connects v.
func (l *load) join(ctx context.Context, v *viewer) {
	server := v.server
	conn, err := l.dial(ctx, v, l.to[server])
	if err != nil {
		l.count(l.refused, refusedAs(err))
		return
	}
	l.connected.Add(1)
	l.mu.Lock()
	l.report.Servers[server].Viewers++
	l.mu.Unlock()
	v.start(conn)
	l.greet(v)
}

// dial opens a connection for v. Only viewers offer compression: a publisher
// reads no more than answers.
func (l *load) dial(ctx context.Context, v *viewer, to target) (*dialled, error) {
	to.deflate = l.cfg.deflate
	if l.cfg.events {
		to.events, to.path = true, besideSocket(to.path)
	}
	return dial(ctx, to, source(v.number, l.cfg.sources), v.kind != reads)
}

// drip makes the viewers of the kind drips read a byte each second.
func (l *load) drip(ctx context.Context) {
	var dripping []*viewer
	for _, v := range l.viewers {
		if v.kind == drips && v.joined() {
			dripping = append(dripping, v)
		}
	}
	if len(dripping) == 0 {
		return
	}
	l.dripping.Go(func() {
		for pause(ctx, time.Second) == nil && !l.over.Load() {
			for _, v := range dripping {
				v.drip()
			}
		}
	})
}

// await waits until ok returns true for every viewer that reads and is
// connected. It returns an error after -wait. what names the missing thing in
// that error.
func (l *load) await(ctx context.Context, ok func(*viewer) bool, what string) error {
	deadline := time.Now().Add(l.cfg.wait)
	for {
		missing := 0
		for _, v := range l.viewers {
			if v.open() && !ok(v) {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d viewers did not get %s within %v (-wait)", missing, what, l.cfg.wait)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// awaitComplete waits until every viewer has the whole history.
func (l *load) awaitComplete(ctx context.Context) error {
	return l.await(ctx, func(v *viewer) bool { return v.seen.Load() >= v.target }, "the whole history")
}

// grace is how long load waits for a message after a later one has arrived.
const grace = time.Second

// settle waits until every viewer has all published messages. If a viewer does
// not get the last message, settle notes it. It waits for earlier messages only
// for grace.
func (l *load) settle(ctx context.Context, published int64) error {
	err := l.await(ctx, func(v *viewer) bool { return v.highest.Load() >= published }, "the last message")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		l.report.Notes = append(l.report.Notes, err.Error())
		return nil // judge reports it as a loss
	}
	if l.cfg.unknownCount() {
		return nil
	}
	for end := time.Now().Add(grace); time.Now().Before(end); {
		whole := true
		for _, v := range l.viewers {
			whole = whole && (!v.open() || v.seen.Load() >= published)
		}
		if whole {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// collect ends all reading and adds the counts of the viewers to the report. It
// calls stay so that no viewer connects any more.
func (l *load) collect(stay func()) {
	l.over.Store(true)
	l.dripping.Wait()
	stay()
	r := &l.report
	r.Connected = int(l.connected.Load())
	for _, v := range l.viewers {
		if !v.joined() {
			continue
		}
		v.stop()
		drops := r.Dropped
		if v.kind != reads {
			drops = r.SlowDrops
		}
		if why := v.dropped(); why != "" {
			drops[why]++
		} else {
			r.Servers[v.server].AtEnd++
		}
		if v.kind == reads && r.publishes() {
			published := r.Published
			if l.cfg.unknownCount() {
				published = max(published, v.track.next)
			}
			r.Expected += v.track.expected(published)
			r.Loss += v.track.lost(published)
		}
	}
	var all histogram
	for server := range r.Servers {
		s := &r.Servers[server]
		var own histogram
		for i := range tallies {
			t := l.tally(server, i)
			own.merge(&t.latency)
			s.Deliveries += t.messages
			r.Frames += t.frames
			r.Bytes += t.bytes
			r.Duplicates += t.duplicates
			r.OutOfOrder += t.disorder
			r.Malformed += t.faulty
		}
		all.merge(&own)
		r.Deliveries += s.Deliveries
		if r.Mode == modeFanout {
			s.Latency = quantilesOf(&own)
		}
		if s.Deliveries > 0 {
			s.CPUPerDelivery = s.CPU * 1e6 / float64(s.Deliveries)
		}
	}
	if r.Mode == modeFanout {
		r.Latency = quantilesOf(&all)
	}
	if r.Seconds > 0 {
		r.Throughput = float64(r.Deliveries) / r.Seconds
	}
	if r.Deliveries > 0 {
		r.CPUPerDelivery = r.ServerCPU * 1e6 / float64(r.Deliveries)
	}
}

func (l *load) setPhase(s string) { l.phase.Store(&s) }

// showProgress keeps one line of l.progress up to date until ctx ends.
func (l *load) showProgress(ctx context.Context) {
	if l.progress == nil {
		return
	}
	start := time.Now()
	for pause(ctx, 500*time.Millisecond) == nil {
		var got int64
		for i := range *l.tallies.Load() {
			t := l.tally(0, i)
			t.mu.Lock()
			got += t.messages
			t.mu.Unlock()
		}
		phase := ""
		if p := l.phase.Load(); p != nil {
			phase = *p
		}
		_ = terminal.Control(l.progress, terminal.ClearLine)
		fmt.Fprintf(l.progress, "%4.0fs %s: %d of %d connected, %d published, %d delivered",
			time.Since(start).Seconds(), phase, l.connected.Load(), l.cfg.viewers, l.sent.Load(), got)
	}
	_ = terminal.Control(l.progress, terminal.ClearLine)
}
