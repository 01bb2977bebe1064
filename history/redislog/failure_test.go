package redislog_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

// quick is a configuration that gives up early.
func quick() settings {
	return settings{Config: redislog.Config{Timeout: 300 * time.Millisecond, Check: 100 * time.Millisecond}}
}

// pair is two nodes before a master with a replica. The nodes have one proxy,
// the replica another.
type pair struct {
	master, replica *redistest.Server
	nodes, link     *redistest.Proxy
	a, b            *node
	va, vb          *viewer
}

func startPair(t *testing.T, e redistest.Engine) *pair {
	t.Helper()
	p := &pair{master: e.Start(t)}
	p.link = redistest.Forward(t, p.master.Addr)
	p.replica = e.Replica(t, p.link.Addr)
	p.nodes = redistest.Forward(t, p.master.Addr)
	p.a, p.b = start(t, p.nodes.Addr, quick()), start(t, p.nodes.Addr, quick())
	p.va, p.vb = watch(p.a, history.Oldest()), watch(p.b, history.Oldest())
	return p
}

// failover kills the master, promotes the replica and leads the nodes there.
func (p *pair) failover() {
	p.master.Kill()
	p.replica.Promote()
	p.nodes.Target(p.replica.Addr)
	p.nodes.Cut()
}

// A replica that has everything is promoted: no reader notices.
func TestLosslessPromotion(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		p := startPair(t, e)
		before := p.a.append("one", "two")
		p.replica.InStep(p.link.Addr)
		p.vb.saw("one two", 0, 0)
		p.failover()
		p.b.eventually("three")
		after := p.a.append("four")
		p.va.saw("one two three four", 0, 0)
		p.vb.saw("one two three four", 0, 0)
		fresh := start(t, p.replica.Addr, quick())
		for _, n := range []*node{p.a, p.b, fresh} {
			goesOn(n, before, "three four", 0)
			goesOn(n, after, "", 0)
		}
		if batch := fresh.log.Since(before); batch.Missed != 0 {
			t.Errorf("the numbers that were left out count as %d missed", batch.Missed)
		}
	})
}

// A replica that lacks three entries is promoted.
func TestLaggingPromotion(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		p := startPair(t, e)
		shared := p.a.append("one", "two")
		p.replica.InStep(p.link.Addr)
		p.vb.saw("one two", 0, 0)
		p.vb.end() // has not seen what gets lost
		p.link.Hold()
		lost := p.a.append("lost1", "lost2", "lost3")
		p.va.saw("one two lost1 lost2 lost3", 0, 0)
		lastSeq := p.a.log.Position().Seq()
		p.failover()
		p.b.eventually("three")
		p.va.saw("one two three", 1, 0)
		goesOn(p.b, p.vb.at(), "three", 0)
		goesOn(p.a, shared, "three", 0)
		fresh := start(t, p.replica.Addr, quick())
		for _, n := range []*node{p.a, p.b, fresh} {
			goesOn(n, lost, "one two three", 1)
			entries := n.log.Since(history.Oldest()).Entries
			if got := entries[len(entries)-1].Seq; got <= lastSeq {
				t.Errorf("the number %d names two entries: %d had been given", got, lastSeq)
			}
		}
	})
}

// The engine restarts, with its data or without.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why     string
		options []string
		want    string
		resets  int
		lost    bool
	}{
		{"an engine without a file has lost everything", nil, "three", 1, true},
		{"with an append-only file, no reader notices", []string{"--appendonly", "yes", "--appendfsync", "always"}, "one two three", 0, false},
	} {
		t.Run(test.want, func(t *testing.T) {
			server := redistest.Start(t, test.options...)
			proxy := redistest.Forward(t, server.Addr)
			a, b := start(t, proxy.Addr, quick()), start(t, proxy.Addr, quick())
			v := watch(b, history.Oldest())
			before := a.append("one", "two")
			v.saw("one two", 0, 0)
			server.Kill()
			proxy.Cut()
			if got := b.texts(); got != "one two" {
				t.Errorf("while the engine is down, the node serves %q", got)
			}
			if _, err := a.log.Append(ctx0, []byte("x")); err == nil {
				t.Error("while the engine is down:", err)
			}
			redistest.Wait(t, "the news that the engine is down", func() bool { return len(b.state()) > 0 && b.engine.Stats().Down })
			server.Restart()
			a.eventually("three")
			v.saw(test.want, test.resets, 0)
			if test.resets == 0 {
				goesOn(b, before, "three", 0)
			}
			redistest.Wait(t, "the news that the engine is back", func() bool { return !a.engine.Stats().Down && !b.engine.Stats().Down })
			if told := slices.Contains(b.state(), redislog.ErrLost.Error()); told != test.lost {
				t.Errorf("%s: the node was told %q", test.why, b.state())
			}
		})
	}
}

// All connections are cut again and again while entries are appended.
func TestConnectionsCut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.Forward(t, server.Addr)
	a, b := start(t, proxy.Addr, settings{}), start(t, proxy.Addr, settings{})
	v := watch(b, history.Oldest())
	var want []string
	for i := range 100 {
		if i%5 == 4 {
			proxy.Cut()
		}
		text := fmt.Sprint(i)
		a.append(text) // made once, although its answer may be lost
		want = append(want, text)
	}
	v.saw(strings.Join(want, " "), 0, 0)
	if b.engine.Stats().Down {
		t.Error("the node says that the engine is down")
	}
}

// One node is cut off.
func TestNodeCutOff(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	own := redistest.Forward(t, server.Addr)
	limits := quick()
	limits.log = history.Config{Keep: 10, TrimAt: 12}
	a, b := start(t, server.Addr, limits), start(t, own.Addr, limits)
	v := watch(b, history.Oldest())
	a.append("1", "2", "3")
	v.saw("1 2 3", 0, 0)
	for _, test := range []struct {
		why    string
		first  int
		last   int
		want   string
		missed uint64
	}{
		{"less than is kept: the node catches up", 4, 8, "1 2 3 4 5 6 7 8", 0},
		{"more than is kept: the viewer is told how many it missed", 9, 50, "", 0},
	} {
		own.Hold()
		for i := test.first; i <= test.last; i++ {
			a.append(fmt.Sprint(i))
		}
		redistest.Wait(t, "the news that the engine is away", func() bool { return b.engine.Stats().Down })
		if got := b.texts(); strings.Contains(got, fmt.Sprint(test.last)) {
			t.Fatalf("%s: the node is not cut off: %q", test.why, got)
		}
		own.Release()
		b.follows(a)
		kept := a.log.Since(history.Oldest()).Entries
		if test.want == "" {
			test.missed = kept[0].Seq - uint64(test.first)
			test.want = "1 2 3 4 5 6 7 8 " + a.texts()
		}
		v.saw(test.want, 0, test.missed)
	}
}

// Two masters are written, and one of them is demoted later.
func TestSplitBrain(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		left := e.Start(t)
		right := e.Replica(t, left.Addr)
		pa, pb := redistest.Forward(t, left.Addr), redistest.Forward(t, left.Addr)
		a, b := start(t, pa.Addr, quick()), start(t, pb.Addr, quick())
		va, vb := watch(a, history.Oldest()), watch(b, history.Oldest())
		a.append("one", "two")
		right.InStep(left.Addr)
		vb.saw("one two", 0, 0)

		right.Promote()
		pb.Target(right.Addr)
		pb.Cut()
		onLeft := a.append("left1", "left2")
		b.eventually("right1")
		va.saw("one two left1 left2", 0, 0)
		vb.saw("one two right1", 0, 0)

		left.Demote(right.Addr) // under the parked reader of a
		redistest.Wait(t, "the news that the master is a replica now", func() bool { return a.engine.Stats().Down })
		if _, err := a.log.Append(ctx0, []byte("x")); err == nil {
			t.Error("an append to a replica")
		}
		pa.Target(right.Addr)
		pa.Cut()
		a.eventually("right2")
		va.saw("one two right1 right2", 1, 0)
		vb.saw("one two right1 right2", 0, 0)
		goesOn(b, onLeft, "one two right1 right2", 1)
		if vb.ever("left1") {
			t.Error("a viewer of the right side was shown the left one's")
		}
	})
}

// A client brings the position of a node that is ahead.
func TestPositionOfANodeThatIsAhead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	own := redistest.Forward(t, server.Addr)
	a, b := start(t, server.Addr, settings{}), start(t, own.Addr, settings{})
	a.append("one")
	b.shows("one")
	own.Hold()
	ahead := a.append("two")
	v := watch(b, ahead)
	if batch := b.log.Since(ahead); batch.Reset || len(batch.Entries) > 0 {
		t.Errorf("a node that is behind answers %+v", batch)
	}
	own.Release()
	b.shows("one two")
	a.append("three")
	v.saw("three", 0, 0)

	raw, err := base64.RawURLEncoding.DecodeString(ahead.String())
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] = 90 // the number of no entry
	forged, err := history.ParsePosition(base64.RawURLEncoding.EncodeToString(raw))
	if err != nil || forged.Seq() != 90 {
		t.Fatal("not the position of entry 90:", forged, err)
	}
	goesOn(b, forged, "one two three", 1)
}

// An erasure that the promoted replica has not seen is made again.
func TestErasedAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why   string
		erase func(*node) error
		want  string // after "new" is appended
	}{
		{"an entry", func(n *node) error { _, err := n.log.Delete(ctx0, 2); return err }, "one three new"},
		{"the first entry", func(n *node) error { _, err := n.log.Delete(ctx0, 1, 2); return err }, "three new"},
		{"everything, and the note", func(n *node) error { _, err := n.log.Clear(ctx0, nil); return err }, "new"},
	} {
		t.Run(test.why, func(t *testing.T) {
			p := startPair(t, redistest.Redis)
			if _, err := p.a.log.Replace(ctx0, []byte("old note"), []byte("one"), []byte("secret"), []byte("three")); err != nil {
				t.Fatal(err)
			}
			p.vb.saw("one secret three", 1, 0)
			p.replica.InStep(p.link.Addr)
			p.link.Hold()
			if err := test.erase(p.a); err != nil {
				t.Fatal(err)
			}
			p.a.follows(p.b)
			redistest.Wait(t, "the erasure on the other node", func() bool { return !strings.Contains(p.b.texts(), "secret") })
			late := watch(p.b, history.Oldest()) // sees only what is still there
			p.failover()
			p.a.eventually("new")
			p.va.saw(test.want, anyResets, 0)
			late.saw(test.want, anyResets, 0)
			if late.ever("secret") {
				t.Error("a viewer was shown what had been erased")
			}
			fresh := start(t, p.replica.Addr, quick())
			if batch := fresh.log.Since(history.Oldest()); texts(batch.Entries) != test.want || strings.Contains(string(batch.Note), "old") && test.want == "new" {
				t.Errorf("a new node has %q and the note %q", texts(batch.Entries), batch.Note)
			}
		})
	}
}

// With Replicas, an erasure says if no replica has it.
func TestNotReplicated(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	link := redistest.Forward(t, master.Addr)
	replica := redistest.Replica(t, link.Addr)
	n := start(t, master.Addr, settings{Config: redislog.Config{Replicas: 1}})
	n.append("one", "two", "three")
	redistest.Wait(t, "an erasure that the replica has", func() bool {
		p := n.append("more")
		deleted, err := n.log.Delete(ctx0, p.Seq())
		if deleted != 1 || err != nil && !errors.Is(err, history.ErrNotErased) {
			t.Error("with a replica:", deleted, err)
		}
		return err == nil
	})
	replica.InStep(link.Addr)
	link.Hold()
	deleted, err := n.log.Delete(ctx0, 2)
	if deleted != 1 || !errors.Is(err, history.ErrNotErased) {
		t.Errorf("without the replica: %d deleted, %v", deleted, err)
	}
	if _, err := n.log.Clear(ctx0, nil); !errors.Is(err, history.ErrNotErased) {
		t.Error("without the replica, Clear:", err)
	}
	if got := n.texts(); got != "" {
		t.Errorf("the erasure is made all the same, but the node has %q", got)
	}
	n.append("four") // waits for no replica
}

// The engine has no memory left.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n := start(t, server.Addr, quick())
		v := watch(n, history.Oldest())
		n.append("one", "two")
		before := server.Do("HGETALL", "{history:room}:head")
		server.Do("CONFIG", "SET", "maxmemory", "1mb")
		_, err := n.log.Append(ctx0, []byte(strings.Repeat("x", 1<<16)))
		if err == nil || errors.Is(err, history.ErrUncertain) || !strings.Contains(err.Error(), "maxmemory") {
			t.Error("an append without memory:", err)
		}
		if after := server.Do("HGETALL", "{history:room}:head"); after != before {
			t.Errorf("the refused append has changed the log:\n%s\n%s", before, after)
		}
		fresh := start(t, server.Addr, quick()) // reading goes on
		if got := fresh.texts(); got != "one two" {
			t.Errorf("a new node has %q", got)
		}
		if deleted, err := n.log.Delete(ctx0, 1); deleted != 1 || err != nil {
			t.Error("an erasure gives memory back, and is refused:", err)
		}
		if _, err := n.log.Clear(ctx0, nil); err != nil {
			t.Error("an erasure gives memory back, and is refused:", err)
		}
		v.saw("", anyResets, 0)
		server.Do("CONFIG", "SET", "maxmemory", "0")
		n.append("three")
		v.saw("three", anyResets, 0)
	})
}

// The first replica that attaches gives the master a new master_replid,
// although nothing is lost.
func TestFirstReplica(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why    string
		before func(*node)
		want   string
		note   string // for a reader from before the Clear
	}{
		{"with entries", func(n *node) { n.append("two") }, "one two", ""},
		{"after a Clear", func(n *node) { n.clear("note") }, "", "note"},
		{"with entries that are all of the time after", func(n *node) {
			n.clear("note")
			n.append("two")
		}, "two", "note"},
	} {
		t.Run(test.why, func(t *testing.T) {
			server := redistest.Start(t)
			n := start(t, server.Addr, settings{})
			first := n.append("one")
			test.before(n)
			before := n.log.Position()
			v := watch(n, before)
			redistest.Replica(t, server.Addr)
			n.append("new")
			v.saw("new", 0, 0)
			n.append("newer")
			v.saw("new newer", 0, 0)
			goesOn(n, before, "new newer", 0)
			want := strings.TrimSpace(test.want + " new newer")
			for _, n := range []*node{n, start(t, server.Addr, settings{})} {
				if b := n.log.Since(history.Oldest()); texts(b.Entries) != want || b.Missed != 0 {
					t.Errorf("from the beginning: %q, missed %d", texts(b.Entries), b.Missed)
				}
				b := n.log.Since(first)
				if string(b.Note) != test.note || b.Reset != (test.note != "") || b.Missed != 0 {
					t.Errorf("from before: %+v, want the note %q", b, test.note)
				}
			}
		})
	}
}

func (n *node) clear(note string) {
	n.t.Helper()
	if _, err := n.log.Clear(ctx0, []byte(note)); err != nil {
		n.t.Fatal(err)
	}
}
