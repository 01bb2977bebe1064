package redislog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	for _, test := range []struct {
		why   string
		cfg   redislog.Config
		field string
		want  redislog.ConfigReason
	}{
		{"without a client there is no engine", redislog.Config{}, "Config.Client", redislog.ConfigMissing},
		{"a short key is a mistake", redislog.Config{Client: client, Keys: [][]byte{make([]byte, 16)}}, "Config.Keys", redislog.ConfigKeySize},
		{"", redislog.Config{Client: client, Replicas: -1}, "Config.Replicas", redislog.ConfigNegative},
		{"", redislog.Config{Client: client, Timeout: -1}, "Config.Timeout", redislog.ConfigNegative},
		{"", redislog.Config{Client: client, Check: -1}, "Config.Check", redislog.ConfigNegative},
	} {
		_, err := redislog.New(test.cfg)
		var problem *redislog.ConfigError
		if !errors.As(err, &problem) || problem.Field != test.field || !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.why, err)
		}
	}
	engine, err := redislog.New(redislog.Config{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Open(ctx0, "room", history.Config{Keep: -1}); err == nil {
		t.Error("a negative Keep was accepted")
	}
}

func TestNodesShareALog(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		a, b := start(t, server.Addr, settings{}), start(t, server.Addr, settings{})
		viewer := watch(b, history.Oldest())
		pos := a.append("one", "two")
		if got := a.texts(); got != "one two" {
			t.Errorf("the node that appended has %q", got)
		}
		viewer.saw("one two", 0, 0)
		if b.log.Position() != pos {
			t.Errorf("the positions differ: %v and %v", pos, b.log.Position())
		}
		b.append("three")
		a.shows("one two three")
		goesOn(a, pos, "three", 0)

		if _, err := b.log.Replace(ctx0, []byte("note"), []byte("four")); err != nil {
			t.Fatal(err)
		}
		a.shows("four")
		if s := a.log.Since(pos); !s.Reset || string(s.Note) != "note" {
			t.Errorf("after a replacement: %+v", s)
		}
		viewer.saw("four", 1, 0)
		five := a.append("five")
		if n, err := b.log.Delete(ctx0, five.Seq(), 99); n != 1 || err != nil {
			t.Error("deleted:", n, err)
		}
		if n, err := b.log.Delete(ctx0, 99); n != 0 || err != nil {
			t.Error("deleted what is not there:", n, err)
		}
		a.shows("four")
		viewer.saw("four", 2, 0)
		if _, err := a.log.Clear(ctx0, nil); err != nil {
			t.Fatal(err)
		}
		viewer.saw("", 3, 0)
		a.append("six")
		viewer.saw("six", 3, 0)
		c := start(t, server.Addr, settings{})
		if got := c.texts(); got != "six" {
			t.Errorf("a new node has %q", got)
		}
		if err := a.log.Finish(ctx0); err != nil {
			t.Fatal(err)
		}
		redistest.Wait(t, "the end of the log on the other node", b.log.Finished)
		if _, err := b.log.Append(ctx0, []byte("x")); !errors.Is(err, history.ErrFinished) {
			t.Error("after the end:", err)
		}
		if err := c.log.Finish(ctx0); err != nil {
			t.Error("a second end:", err)
		}
		if s := a.engine.Stats(); s.Down || s.Retries != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Both nodes append at the same time, and both have the same order.
func TestOneOrder(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	limits := history.Config{Keep: 5000}
	a, b := start(t, server.Addr, settings{log: limits}), start(t, server.Addr, settings{log: limits})
	va, vb := watch(a, history.Oldest()), watch(b, history.Oldest())
	const each, count = 40, 25
	var group sync.WaitGroup
	for i := range each {
		n := []*node{a, b}[i%2]
		group.Go(func() {
			for j := range count {
				if _, err := n.log.Append(ctx0, fmt.Appendf(nil, "%d-%d", i, j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	a.follows(b)
	want := a.texts()
	if b.texts() != want || len(strings.Fields(want)) != each*count {
		t.Errorf("the nodes differ, or have not %d entries", each*count)
	}
	va.saw(want, 0, 0)
	vb.saw(want, 0, 0)
	next := map[string]int{} // each goroutine's own are in its order
	for _, text := range strings.Fields(want) {
		who, n, _ := strings.Cut(text, "-")
		if n != fmt.Sprint(next[who]) {
			t.Fatalf("%s is not in order", text)
		}
		next[who]++
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	limits := history.Config{Keep: 4, TrimAt: 6, MaxBytes: 300, MaxAge: time.Hour}
	a, b := start(t, server.Addr, settings{log: limits}), start(t, server.Addr, settings{log: limits})
	a.append("1", "2", "3", "4", "5", "6", "7")
	b.shows("4 5 6 7")
	if got := server.Do("XLEN", "{history:room}:log"); got != "4" {
		t.Error("the engine keeps", got)
	}
	if got := start(t, server.Addr, settings{log: limits}).texts(); got != "4 5 6 7" {
		t.Errorf("a new node has %q", got)
	}
	long := strings.Repeat("x", 200)
	a.append(long, "y"+long)
	b.shows("y" + long)
	if got := server.Do("XLEN", "{history:room}:log"); got != "1" {
		t.Error("with the limit of bytes, the engine keeps", got)
	}
	if n := a.log.Expire(time.Now().Add(2 * time.Hour)); n != 1 {
		t.Error("expired:", n)
	}
	redistest.Wait(t, "an empty stream", func() bool {
		return !strings.Contains(server.Do("XRANGE", "{history:room}:log", "-", "+"), "y")
	})
	a.append("new")
	b.shows("new")
	if got := start(t, server.Addr, settings{log: limits}).texts(); got != "new" {
		t.Errorf("a new node has %q", got)
	}
}

// A change that depends on a position is made by one node only.
func TestAppendAfter(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := start(t, server.Addr, settings{}), start(t, server.Addr, settings{})
	const ids = 200
	var group sync.WaitGroup
	var mu sync.Mutex
	made := map[string]int{}
	for _, n := range []*node{a, b, a, b} {
		group.Go(func() {
			for id := range ids {
				text := fmt.Sprint("id", id)
				for {
					batch := n.log.Since(history.Oldest())
					if strings.Contains(texts(batch.Entries)+" ", text+" ") {
						break
					}
					_, err := n.log.AppendAfter(ctx0, batch.To, []byte(text))
					if err == nil {
						mu.Lock()
						made[text]++
						mu.Unlock()
						break
					}
					if !errors.Is(err, history.ErrMoved) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	group.Wait()
	a.follows(b)
	if n := len(strings.Fields(a.texts())); n != ids || len(made) != ids {
		t.Errorf("%d entries, %d made", n, len(made))
	}
	for text, n := range made {
		if n != 1 {
			t.Errorf("%s was appended %d times", text, n)
		}
	}
	at := a.log.Position()
	b.append("between")
	if _, err := a.log.ReplaceAfter(ctx0, at, nil, []byte("lost")); !errors.Is(err, history.ErrMoved) {
		t.Error("a replacement after an old position:", err)
	}
	a.follows(b)
	if _, err := a.log.ReplaceAfter(ctx0, a.log.Position(), nil, []byte("kept")); err != nil {
		t.Error(err)
	}
	b.shows("kept")
}

// The documented permissions are enough, and the ones left out are refused.
func TestPermissions(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.User("relay", "secret", "~{history:*", "+@connection", "+evalsha", "+eval", "+xadd", "+xread", "+xrange",
		"+xtrim", "+del", "+hset", "+hdel", "+hmget", "+hgetall", "+get", "+set", "+time", "+info", "+wait")
	client := func(name, password string) rueidis.Client {
		c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, Username: name, Password: password, DisableCache: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	n := startWith(t, client("relay", "secret"), settings{})
	v := watch(n, history.Oldest())
	n.append("one", "two")
	if _, err := n.log.Delete(ctx0, 1); err != nil {
		t.Error(err)
	}
	v.saw("two", 1, 0)
	server.User("poor", "secret", "~{history:*", "+@connection", "+evalsha", "+eval", "+xrange", "+hmget", "+hgetall")
	poor := prepare(t, client("poor", "secret"), settings{})
	if err := poor.open(history.Config{}); err == nil || !strings.Contains(err.Error(), "refuses") {
		t.Error("without permissions:", err)
	}
}

// Close does not wait for what the engine would answer later.
func TestCloseEndsTheReader(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := start(t, server.Addr, settings{Config: redislog.Config{Check: time.Hour}})
	n.append("one")
	redistest.Wait(t, "a parked reader", func() bool { return strings.Contains(server.Do("INFO", "clients"), "blocked_clients:1") })
	closed := make(chan struct{})
	go func() {
		n.log.Close()
		close(closed)
	}()
	redistest.Wait(t, "the end of Close", func() bool {
		select {
		case <-closed:
			return true
		default:
			return false
		}
	})
}

// A log with a name of its own has keys of its own.
func TestNamesAndPrefixes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := start(t, server.Addr, settings{})
	b := start(t, server.Addr, settings{Config: redislog.Config{Prefix: "other"}})
	c, err := a.engine.Open(ctx0, "lobby", history.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a.append("a")
	b.append("b")
	if _, err := c.Append(ctx0, []byte("c")); err != nil {
		t.Fatal(err)
	}
	if a.texts() != "a" || b.texts() != "b" || texts(c.Since(history.Oldest()).Entries) != "c" {
		t.Errorf("%q, %q, %q", a.texts(), b.texts(), texts(c.Since(history.Oldest()).Entries))
	}
	goesOn(a, c.Position(), "a", 1)
}

func TestEnded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := start(t, server.Addr, settings{})
	ctx, cancel := context.WithCancel(ctx0)
	cancel()
	if _, err := n.log.Append(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error("with a context that has ended:", err)
	}
	n.log.Close()
	if _, err := n.log.Append(ctx0, nil); !errors.Is(err, history.ErrClosed) {
		t.Error("after Close:", err)
	}
	client := server.Client()
	server.Kill()
	down := prepare(t, client, settings{Config: redislog.Config{Timeout: 200 * time.Millisecond}})
	if err := down.open(history.Config{}); err == nil {
		t.Error("a log without an engine was opened")
	}
}

// A reader with a position that no process gave gets its Reset also while
// others append all the time.
func TestForeignPositionUnderLoad(t *testing.T) {
	engine := redistest.Start(t)
	writer := start(t, engine.Addr, settings{})
	n := start(t, engine.Addr, settings{Config: redislog.Config{Check: time.Hour}})
	ctx, cancel := context.WithCancel(ctx0)
	var load sync.WaitGroup
	defer load.Wait()
	defer cancel()
	for range 20 {
		load.Go(func() {
			for ctx.Err() == nil {
				_, _ = writer.log.Append(ctx, []byte("more"))
			}
		})
	}
	redistest.Wait(t, "the load", func() bool { return n.log.Position() != history.Position{} && n.log.Stats().Entries > 100 })
	some, stop := context.WithTimeout(ctx0, 30*time.Second)
	defer stop()
	for i := range 15 { // one look may be lucky
		other, err := history.Open(ctx0, history.Config{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := n.log.Reader(other.Position()).Next(some)
		if err != nil || !b.Reset || len(b.Entries) == 0 {
			t.Fatalf("reader %d got a Reset: %v, with %d entries, %v", i, b.Reset, len(b.Entries), err)
		}
	}
}
