package main

//lint:file-ignore SA1019 see harness_test.go

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/internal/redistest"
)

// follower is a viewer that connects again, to the next of several servers,
// with its position, as the page does.
type follower struct {
	texts  []string
	resets int
}

// followAll watches until it has seen the text last.
func followAll(ctx context.Context, addrs []string, last string) (f follower, err error) {
	pos := ""
	for i := 0; ; i++ {
		if ctx.Err() != nil {
			return f, fmt.Errorf("the end did not come, after %q", f.texts[max(0, len(f.texts)-3):])
		}
		url := "ws://" + addrs[i%len(addrs)] + "/ws"
		if pos != "" {
			url += "?since=" + pos
		}
		ws, _, err := websocket.Dial(ctx, url, nil)
		if err != nil {
			time.Sleep(20 * time.Millisecond) // a viewer's back-off
			continue
		}
		ws.SetReadLimit(-1)
		for {
			_, data, err := ws.Read(ctx)
			var m struct {
				Type, Pos string
				Messages  []struct{ Text string }
			}
			if err != nil || json.Unmarshal(data, &m) != nil {
				break
			}
			if m.Type == "history" && pos != "" {
				f.resets++
			}
			for _, e := range m.Messages {
				f.texts = append(f.texts, e.Text)
			}
			if m.Pos != "" {
				pos = m.Pos
			}
			if n := len(f.texts); n > 0 && f.texts[n-1] == last {
				_ = ws.CloseNow()
				return f, nil
			}
		}
		_ = ws.CloseNow()
	}
}

// publishTo publishes numbers with ids until stop is closed, then the text
// last. It connects again to the next of several servers, and sends again what
// was not acknowledged, as the device does. It counts in sent what it
// publishes.
func publishTo(ctx context.Context, token string, addrs []string, sent *atomic.Int64, stop <-chan struct{}, last string) error {
	var waiting []string // not acknowledged
	ended := false
	for i := 0; ctx.Err() == nil; i++ {
		ws, _, err := websocket.Dial(ctx, "ws://"+addrs[i%len(addrs)]+"/ws?watch=0", nil)
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		ws.SetReadLimit(-1)
		one, cancel := context.WithCancel(ctx)
		acks := make(chan string, 1000)
		var reading sync.WaitGroup
		reading.Go(func() {
			defer cancel()
			for {
				_, data, err := ws.Read(one)
				if err != nil {
					return
				}
				var m struct{ Ack string }
				if json.Unmarshal(data, &m) == nil && m.Ack != "" {
					acks <- m.Ack
				}
			}
		})
		write := func(text string) {
			_ = ws.Write(one, websocket.MessageText, fmt.Appendf(nil, `{"text":%q,"id":%q}`, text, text))
		}
		_ = ws.Write(one, websocket.MessageText, []byte(`{"token":"`+token+`"}`))
		for _, text := range waiting {
			write(text)
		}
		tick := time.NewTicker(10 * time.Millisecond)
		for one.Err() == nil && !(ended && len(waiting) == 0) {
			select {
			case id := <-acks:
				waiting = slices.DeleteFunc(waiting, func(text string) bool { return text == id })
			case <-tick.C:
				if ended || len(waiting) > 100 {
					continue
				}
				text := fmt.Sprint(sent.Add(1))
				select {
				case <-stop:
					ended, text = true, last
				default:
				}
				waiting = append(waiting, text)
				write(text)
			case <-one.Done():
			}
		}
		tick.Stop()
		cancel()
		_ = ws.CloseNow()
		reading.Wait()
		if ended && len(waiting) == 0 {
			return nil
		}
	}
	return ctx.Err()
}

// crowd runs a device and viewers on two nodes, onA and onB at first, while
// change changes the nodes. It requires that each viewer sees each message
// once, in order.
func crowd(t *testing.T, onA, onB int, a, b *node, change func(published func(more int64))) {
	t.Helper()
	const last = "the end"
	ctx, cancel := context.WithTimeout(t.Context(), 2*testkit.Patience)
	defer cancel()
	var sent atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	var seen []follower
	for i := range onA + onB {
		all.Go(func() {
			addrs := []string{a.addr, b.addr}
			if i >= onA {
				slices.Reverse(addrs)
			}
			f, err := followAll(ctx, addrs, last)
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, f)
			if err != nil {
				t.Error(err)
			}
		})
	}
	testkit.Eventually(t, "the viewers are connected", func() bool {
		return a.op.metric("relayguard_connections_open") == float64(onA) && b.op.metric("relayguard_connections_open") == float64(onB)
	})
	device := make(chan error, 1)
	go func() {
		device <- publishTo(ctx, a.token(testDevice, time.Hour), []string{a.addr, b.addr}, &sent, stop, last)
	}()
	change(func(more int64) {
		t.Helper()
		from := sent.Load()
		testkit.Eventually(t, "the device goes on", func() bool { return sent.Load() >= from+more })
	})
	close(stop)
	if err := <-device; err != nil {
		t.Fatalf("the device did not end: %v", err)
	}
	all.Wait()
	n := int(sent.Load()) // the last one is the text last
	want := make([]string, 0, n)
	for i := 1; i < n; i++ {
		want = append(want, fmt.Sprint(i))
	}
	want = append(want, last)
	wrong := 0
	for _, f := range seen {
		if !slices.Equal(f.texts, want) || f.resets > 0 {
			if wrong++; wrong == 1 {
				t.Errorf("a viewer got %d messages with %d resets, want %d; the first difference is at %d", len(f.texts), f.resets, len(want), differ(f.texts, want))
			}
		}
	}
	t.Logf("%d viewers got %d messages, %d of them wrongly", len(seen), n, wrong)
}

func differ(a, b []string) int {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// keepAll are variables with which a history frame never replaces what a viewer
// missed.
var keepAll = []string{"HISTORY_KEEP=100000"}

// If a server is killed with 500 viewers and the device, all of them go on at
// the other one, without a gap and without a duplicate.
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	a, b := readyNode(t, engine.Addr, keepAll...), readyNode(t, engine.Addr, keepAll...)
	crowd(t, 500, 10, a, b, func(published func(int64)) {
		published(50)
		if err := a.p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		a.p.wait()
		published(100)
	})
	b.p.terminate()
}

// While both servers are restarted one after the other, no viewer loses a
// message or gets one twice.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	a, b := readyNode(t, engine.Addr, keepAll...), readyNode(t, engine.Addr, keepAll...)
	crowd(t, 50, 50, a, b, func(published func(int64)) {
		for _, n := range []*node{a, b} {
			published(30)
			if code := n.p.terminate(); code != 0 {
				t.Errorf("exit code %d:\n%s", code, n.p.stderr)
			}
			published(30)
			n.run().is(200, "ready")
		}
		published(30)
	})
}

// If a server is killed, what its clients had open stays counted until its
// lease ends, fifteen seconds later at most, and is free from then on.
func TestKilledNodeFreesItsClients(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	// So a client may have five connections open, and opens one in a second.
	env := []string{"RATE_LIMIT_CONNECTIONS=1", "RATE_LIMIT_WINDOW=1s", "TRUSTED_PROXIES=none"}
	a := readyNode(t, engine.Addr, env...)
	leases := make(map[string]string) // the number of a in each set of leases
	testkit.Eventually(t, "a lease", func() bool {
		for _, key := range strings.Fields(engine.Do("KEYS", "relay:*nodes")) {
			leases[key] = engine.Do("ZRANGE", key, "0", "0")
		}
		return len(leases) > 0
	})
	b := readyNode(t, engine.Addr, env...)
	admits := func(n *node) bool {
		p, _ := connect(t, n.addr)
		return p != nil
	}
	for range 5 {
		testkit.Eventually(t, "a connection", func() bool { return admits(a) })
	}
	full := func() {
		t.Helper()
		refused := func() float64 { return b.op.metric(`relayguard_connections_refused_total{reason="open"}`) }
		before := refused()
		testkit.Eventually(t, "too many are open", func() bool {
			if admits(b) {
				t.Fatal("a sixth connection is let in")
			}
			return refused() > before
		})
	}
	full()
	if err := a.p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	a.p.wait()
	full()
	now, _, _ := strings.Cut(engine.Do("TIME"), "\n")
	second, _ := strconv.Atoi(now)
	for key, number := range leases {
		end, err := strconv.ParseFloat(strings.TrimSpace(engine.Do("ZSCORE", key, number)), 64)
		if most := float64(second+1+15) * 1e6; err != nil || end > most {
			t.Errorf("%s ends %.0f s too late (%v)", key, (end-most)/1e6, err)
		}
		engine.Do("ZADD", key, "XX", "1", number) // as if that time had come
	}
	testkit.Eventually(t, "a connection in place of one of the dead server's", func() bool { return admits(b) })
	b.p.terminate()
}
