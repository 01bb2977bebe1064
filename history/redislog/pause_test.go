package redislog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

// once appends texts, each one time, over all nodes that append it so: it reads
// what the log has before it appends, and again after each failure.
type once struct {
	log   *history.Log
	at    history.Position
	known map[string]bool
	fails func(error) // gets each error but ErrMoved
}

func newOnce(n *node) *once { return &once{log: n.log, at: history.Oldest()} }

// append reports whether this caller has appended text.
func (o *once) append(ctx context.Context, text string) (bool, error) {
	for {
		b := o.log.Since(o.at)
		if b.Reset || o.known == nil {
			o.known = make(map[string]bool)
		}
		for _, e := range b.Entries {
			o.known[string(e.Data)] = true
		}
		if o.at = b.To; o.known[text] {
			return false, nil
		}
		_, err := o.log.AppendAfter(ctx, o.at, []byte(text))
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil:
			return false, err
		case !errors.Is(err, history.ErrMoved):
			if o.fails != nil {
				o.fails(err)
			}
			continue
		}
		news, cancel := context.WithTimeout(ctx, time.Second)
		_, _ = o.log.Reader(o.at).Next(news)
		cancel()
	}
}

// must appends text, as soon as that can be done.
func (o *once) must(t testing.TB, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx0, 30*time.Second)
	defer cancel()
	if _, err := o.append(ctx, text); err != nil {
		t.Fatal(err)
	}
}

// publisher appends the numbers from 1, each once, until it is stopped.
type publisher struct {
	t    testing.TB
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	made []string
	errs []error // of the tries
}

// publish starts a publisher on a node.
func publish(n *node) *publisher {
	ctx, cancel := context.WithCancel(ctx0)
	p := &publisher{t: n.t, stop: cancel, done: make(chan struct{})}
	one := newOnce(n)
	one.fails = func(err error) {
		p.mu.Lock()
		p.errs = append(p.errs, err)
		p.mu.Unlock()
	}
	go func() {
		defer close(p.done)
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for i := 1; ctx.Err() == nil; i++ {
			text := fmt.Sprint(i)
			if _, err := one.append(ctx0, text); err != nil {
				n.t.Error(err)
				return
			}
			p.mu.Lock()
			p.made = append(p.made, text)
			p.mu.Unlock()
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
	}()
	n.t.Cleanup(cancel)
	return p
}

func (p *publisher) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.made)
}

func (p *publisher) failed() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.errs)
}

// goesOn waits until the publisher has appended n more.
func (p *publisher) goesOn(n int) {
	p.t.Helper()
	n += p.count()
	redistest.Wait(p.t, fmt.Sprintf("a publisher that has appended %d", n), func() bool { return p.count() >= n })
}

// end stops the publisher, and returns all that it has appended.
func (p *publisher) end() string {
	p.t.Helper()
	p.stop()
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Fatal("an append does not end")
	}
	return strings.Join(p.made, " ")
}

// The engine's process is stopped for a while, as a machine is that is moved,
// and goes on with what it had. Set REDISLOG_LONG_PAUSE=58s for a pause that
// long.
func TestEngineStopped(t *testing.T) {
	t.Parallel()
	patient := redislog.Config{Timeout: 30 * time.Second, Check: 100 * time.Millisecond}
	type row struct {
		why   string
		pause time.Duration
		cfg   redislog.Config
		told  bool // that the engine is away
	}
	tests := []row{
		{"shorter than Timeout: no append fails", 500 * time.Millisecond, patient, false},
		{"longer than Timeout: the appends fail, and are made once all the same", 5 * time.Second, quick().Config, true},
	}
	if long, err := time.ParseDuration(os.Getenv("REDISLOG_LONG_PAUSE")); err == nil {
		tests = append(tests, row{"longer than rueidis waits for a connection", long, redislog.Config{Check: time.Second}, true})
	}
	for _, test := range tests {
		t.Run(test.pause.String(), func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, e redistest.Engine) {
				server := e.Start(t)
				s := settings{Config: test.cfg, log: history.Config{Keep: 1e6}}
				a, b := start(t, server.Addr, s), start(t, server.Addr, s)
				viewers := []*viewer{watch(a, history.Oldest()), watch(b, history.Oldest())}
				p := publish(a)
				p.goesOn(20)

				server.Pause()
				over := time.After(test.pause)
				if test.told {
					for _, n := range []*node{a, b} {
						redistest.Wait(t, "the news that the engine is away", func() bool { return n.engine.Stats().Down })
					}
					redistest.Wait(t, "appends that fail", func() bool { return len(p.failed()) >= 2 })
				}
				for _, n := range []*node{a, b} { // new viewers are served
					v := watch(n, history.Oldest())
					redistest.Wait(t, "a viewer that came during the pause", func() bool { return v.ever("10") })
					viewers = append(viewers, v)
				}
				<-over
				server.Continue()

				p.goesOn(20)
				want := p.end()
				for _, v := range viewers {
					v.saw(want, 0, 0)
				}
				for _, err := range p.failed() {
					if !test.told || !errors.Is(err, history.ErrUncertain) && !strings.Contains(err.Error(), "nothing is changed") {
						t.Errorf("%s: an append failed: %v", test.why, err)
					}
				}
				for _, n := range []*node{a, b} {
					redistest.Wait(t, "the news that the engine is back", func() bool { return !n.engine.Stats().Down })
					states := n.state()
					if told := len(states) > 0; told != test.told || told && (states[0] == "<nil>" || states[len(states)-1] != "<nil>") {
						t.Errorf("%s: a node was told %q", test.why, states)
					}
				}
			})
		})
	}
}
