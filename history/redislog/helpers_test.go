package redislog_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

var ctx0 = context.Background()

// node is one process: a client of the engine, and its replica of the log.
type node struct {
	t      testing.TB
	client rueidis.Client
	engine *redislog.Engine
	log    *history.Log

	mu     sync.Mutex
	states []string // what OnState got, the oldest first
}

// settings are the parts of a node's configuration that tests change.
type settings struct {
	redislog.Config
	log history.Config
}

// prepare returns a node without its log.
func prepare(t testing.TB, client rueidis.Client, s settings) *node {
	t.Helper()
	n := &node{t: t, client: client}
	s.Client = client
	if s.Check == 0 {
		s.Check = 100 * time.Millisecond
	}
	s.OnState = func(err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.states = append(n.states, fmt.Sprint(err))
	}
	var err error
	if n.engine, err = redislog.New(s.Config); err != nil {
		t.Fatal(err)
	}
	return n
}

// start returns a node at the engine, or the proxy, at addr.
func start(t testing.TB, addr string, s settings) *node {
	t.Helper()
	return startWith(t, redistest.Client(t, addr), s)
}

func startWith(t testing.TB, client rueidis.Client, s settings) *node {
	t.Helper()
	n := prepare(t, client, s)
	if err := n.open(s.log); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) open(cfg history.Config) (err error) {
	if n.log, err = n.engine.Open(ctx0, "room", cfg); err == nil {
		n.t.Cleanup(func() { n.log.Close() })
	}
	return err
}

// state returns what OnState got.
func (n *node) state() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.states)
}

// append appends texts, and returns the position after the last one.
func (n *node) append(texts ...string) (p history.Position) {
	n.t.Helper()
	for _, text := range texts {
		var err error
		if p, err = n.log.Append(ctx0, []byte(text)); err != nil {
			n.t.Fatal(err)
		}
	}
	return p
}

// eventually appends text as soon as the engine takes it, and returns the
// number of tries.
func (n *node) eventually(text string) (tries int) {
	n.t.Helper()
	redistest.Wait(n.t, "an append of "+text, func() bool {
		tries++
		_, err := n.log.Append(ctx0, []byte(text))
		return err == nil
	})
	return tries
}

// texts returns what is kept, joined by blanks.
func (n *node) texts() string { return texts(n.log.Since(history.Oldest()).Entries) }

func texts(entries []history.Entry) string {
	var list []string
	for _, e := range entries {
		list = append(list, string(e.Data))
	}
	return strings.Join(list, " ")
}

// shows waits until the node has exactly these texts.
func (n *node) shows(want string) {
	n.t.Helper()
	redistest.Wait(n.t, fmt.Sprintf("a node with %q", want), func() bool { return n.texts() == want })
}

// follows waits until the node is where the other is.
func (n *node) follows(other *node) {
	n.t.Helper()
	redistest.Wait(n.t, "a node that follows", func() bool {
		return bytes.Equal(positionText(n.log.Position()), positionText(other.log.Position()))
	})
}

func positionText(p history.Position) []byte {
	text, _ := p.MarshalText()
	return text
}

// viewer reads a log as a client does, and notes what it sees.
type viewer struct {
	t    testing.TB
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	shown    []string // since the last Reset
	all      []string // everything that it was ever shown
	resets   int
	missed   uint64
	position history.Position
	broken   string // an order that cannot be
}

// watch starts a viewer of n at a position.
func watch(n *node, from history.Position) *viewer {
	ctx, cancel := context.WithCancel(ctx0)
	v := &viewer{t: n.t, stop: cancel, done: make(chan struct{}), position: from}
	reader := n.log.Reader(from)
	go func() {
		defer close(v.done)
		var last uint64
		for {
			b, err := reader.Next(ctx)
			if err != nil {
				return
			}
			v.mu.Lock()
			if b.Reset {
				v.resets++
				v.shown, last = nil, 0
			}
			v.missed += b.Missed
			for _, e := range b.Entries {
				if e.Seq <= last {
					v.broken = fmt.Sprintf("entry %d after %d", e.Seq, last)
				}
				last = e.Seq
				v.shown = append(v.shown, string(e.Data))
				v.all = append(v.all, string(e.Data))
			}
			v.position = b.To
			v.mu.Unlock()
		}
	}()
	n.t.Cleanup(v.end)
	return v
}

func (v *viewer) end() {
	v.stop()
	<-v.done
}

// at returns the position of the viewer.
func (v *viewer) at() history.Position {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.position
}

// ever reports whether the viewer was ever shown text.
func (v *viewer) ever(text string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Contains(v.all, text)
}

// anyResets allows any number of resets: a viewer that is slow has fewer.
const anyResets = -1

// saw waits until the viewer shows these texts, and checks what it has been
// told besides.
func (v *viewer) saw(want string, resets int, missed uint64) {
	v.t.Helper()
	redistest.Wait(v.t, fmt.Sprintf("a viewer that shows %q", want), func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return strings.Join(v.shown, " ") == want && v.resets >= resets && v.missed >= missed
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	if resets != anyResets && v.resets != resets || v.missed != missed {
		v.t.Errorf("a viewer that shows %q had %d resets and missed %d, want %d and %d", want, v.resets, v.missed, resets, missed)
	}
	if v.broken != "" {
		v.t.Error(v.broken)
	}
}

// goesOn waits until a viewer that continues from a position has these texts,
// without a Reset, or with one.
func goesOn(n *node, from history.Position, want string, resets int) {
	n.t.Helper()
	v := watch(n, from)
	v.saw(want, resets, 0)
	v.end()
}
