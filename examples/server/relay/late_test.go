package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

// page is what a client shows.
type page struct {
	state wire.State
	text  []byte
}

// take changes p as the message does.
func (p *page) take(m wire.Message) {
	if m.Restarting() {
		*p = page{}
	}
	p.state.Take(&m)
	p.text = append(p.text, m.Text...)
}

func (p *page) holds() string {
	b, _ := json.Marshal(p.state)
	return string(b)
}

// audience is one viewer of a relay, as two clients: one of the original system,
// which knows messages only, and one that believes the state.
type audience struct {
	t *testing.T
	v *viewer
	c *courier

	original, current page
	seen              []string // every text that was ever shown
}

func newAudience(t *testing.T, r *Relay, query string) *audience {
	return &audience{t: t, v: r.newViewer(httptest.NewRequest("GET", "/ws"+query, nil), netip.Addr{}), c: &courier{fanout: r.fanout}}
}

// look gives the audience what it may see now.
func (a *audience) look() {
	a.t.Helper()
	for {
		a.c.bound, _ = a.c.fanout.bound()
		b, whole, _, ok := a.c.ahead(a.v)
		if !ok {
			return
		}
		text, _ := layout(b, whole, 0)
		a.v.pos, a.v.begun = b.To, true
		var frame struct {
			Type     wire.Kind
			State    wire.State
			Messages []wire.Message
		}
		if err := json.Unmarshal(text, &frame); err != nil {
			a.t.Fatal(err)
		}
		if frame.Type == wire.History {
			a.original, a.current = page{}, page{}
		}
		for _, m := range frame.Messages {
			a.original.take(m)
			a.current.take(m)
			a.seen = append(a.seen, m.Text)
		}
		if frame.Type == wire.History {
			a.current.state = frame.State
		}
	}
}

// arrive returns what clients show that have just come.
func arrive(t *testing.T, r *Relay) (original, current page) {
	t.Helper()
	a := newAudience(t, r, "")
	a.look()
	return a.original, a.current
}

// wantPage fails the test if p is not as the life so far is: its state, and at
// least the last bytes of its text.
func wantPage(t *testing.T, who string, p, life page, least int) {
	t.Helper()
	if got, want := p.holds(), life.holds(); got != want {
		t.Fatalf("%s has %s, and the life is %s", who, got, want)
	}
	if !bytes.HasSuffix(life.text, p.text) || len(p.text) < min(least, len(life.text)) {
		t.Fatalf("%s has %d bytes of text, not the last of the %d", who, len(p.text), len(life.text))
	}
}

// hour calls say with the messages of lives that last an hour together, at the
// pace of a device that sends n words at once, and moment between any two. The
// second life is short, and begins with a signal that nothing keeps.
func hour(n int, say func(wire.Message), moment func(i int)) {
	const words = 30_000 // an hour, with a word in 120 ms
	i := 0
	send := func(m wire.Message) { say(m); moment(i); i++ }
	for life, length := range []int{words - 500, 500} {
		restarting, restarts := true, float64(life)
		send(wire.Message{Status: &wire.Status{IsRestarting: &restarting, NumRestarts: &restarts}})
		prompt := fmt.Sprintf("Life %d: think <aloud> & \"end\".", life)
		for w := 0; w < length; w += n {
			m := wire.Message{}
			for k := range n {
				m.Text += fmt.Sprintf("word%d ", w+k)
			}
			switch {
			case w == 0:
				m.Prompt = &prompt
				fallthrough
			case w/n%8 == 0:
				m.Memory = &wire.Memory{AvailableMB: 1, PercentUsed: float64(w), TotalMB: 100}
			}
			send(m)
		}
	}
}

// A visitor sees the prompt, the life and the memory, at whatever moment of an
// hour it comes, and as much text as the history promises.
func TestLateVisitor(t *testing.T) {
	const keepText = 64 << 10
	byText := history.Config{Keep: 2 * keepText, KeepWeight: keepText, Weigh: Weight, Pins: Pins}
	byCount := history.Config{Pins: Pins}
	byAge := history.Config{Pins: Pins, MaxAge: time.Minute}
	tiny := history.Config{Keep: 1, TrimAt: 1, Pins: Pins}
	for _, row := range []struct {
		why     string
		cfg     history.Config
		words   int // in a message
		journal bool
		least   int // bytes of text that the visitor has at least
		silence time.Duration
	}{
		{"kept by text, a word a message", byText, 1, false, keepText, 0},
		{"kept by text, words joined", byText, 6, false, keepText, 0},
		{"kept by number", byCount, 1, false, 1000, 0},
		{"kept by number, the device's words joined", byCount, 6, false, 10_000, 0},
		{"kept by age", byAge, 1, false, 100, 0},
		{"after a silence that is longer than messages are kept", byAge, 60, false, 0, 2 * time.Minute},
		{"a history of one message", tiny, 6, false, 1, 0},
		{"on disk, with restarts", byText, 6, true, keepText, 0},
	} {
		t.Run(row.why, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				open := func() (*history.Log, *Relay) {
					cfg := row.cfg
					if row.journal {
						disk, err := journal.Open(journal.Config{Dir: dir, Keys: [][]byte{make([]byte, journal.KeySize)}, Sync: journal.SyncNever})
						if err != nil {
							t.Fatal(err)
						}
						cfg.Store = disk
					}
					log, err := history.Open(t.Context(), cfg)
					if err != nil {
						t.Fatal(err)
					}
					r, _ := newTestRelay(t, Config{Log: log})
					return log, r
				}
				log, r := open()
				var life page
				hour(row.words, func(m wire.Message) {
					time.Sleep(time.Duration(row.words) * 120 * time.Millisecond)
					if _, _, err := r.storeOnce(t.Context(), "pi-1", &m); err != nil {
						t.Fatal(err)
					}
					m.Timestamp = time.Now().UnixMilli()
					life.take(m)
				}, func(i int) {
					if i%2999 > 2 && len(life.text) > 300 {
						return
					}
					time.Sleep(row.silence)
					if row.journal && i%2999 == 1 {
						if err := log.Close(); err != nil {
							t.Fatal(err)
						}
						log, r = open()
					}
					original, current := arrive(t, r)
					wantPage(t, "a client of the original system", original, life, row.least)
					wantPage(t, "a client", current, life, row.least)
				})
				log.Close()
			})
		})
	}
}

// A visitor of any node sees the same.
func TestLateVisitorOfNodes(t *testing.T) {
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		open := func() *Relay {
			engine, err := redislog.New(redislog.Config{Client: redistest.Client(t, server.Addr), Keys: [][]byte{make([]byte, redislog.KeySize)}})
			if err != nil {
				t.Fatal(err)
			}
			log, err := engine.Open(t.Context(), "room", history.Config{Keep: 20_000, KeepWeight: 10_000, Weigh: Weight, Pins: Pins})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { log.Close() })
			r, _ := newTestRelay(t, Config{Log: log})
			return r
		}
		nodes := []*Relay{open(), open()}
		var life page
		hour(12, func(m wire.Message) {
			if _, _, err := nodes[len(life.text)%2].storeOnce(t.Context(), "pi-1", &m); err != nil {
				t.Fatal(err)
			}
			life.take(m)
		}, func(i int) {
			if i%200 > 1 {
				return
			}
			if i%600 == 0 {
				nodes[1] = open()
			}
			for _, r := range nodes {
				redistest.Wait(t, "a node that has what another published", func() bool { return r.cfg.Log.Position() == nodes[0].cfg.Log.Position() })
			}
			for n, r := range nodes {
				original, current := arrive(t, r)
				wantPage(t, fmt.Sprint("an original client of node ", n), original, life, 10_000)
				wantPage(t, fmt.Sprint("a client of node ", n), current, life, 10_000)
			}
		})
	})
}

// What is erased is in no state any more, and what an archive holds is back.
func TestStateAfterChanges(t *testing.T) {
	log, err := history.Open(t.Context(), history.Config{Keep: 3, TrimAt: 4, Pins: Pins})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r, _ := newTestRelay(t, Config{Log: log})
	say := func(list ...string) {
		t.Helper()
		for _, data := range list {
			m, err := wire.Decode([]byte(data))
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.storeOnce(t.Context(), "pi-1", &m); err != nil {
				t.Fatal(err)
			}
		}
	}
	shows := func(why, state, text string) {
		t.Helper()
		for _, p := range []func() page{func() page { p, _ := arrive(t, r); return p }, func() page { _, p := arrive(t, r); return p }} {
			p := p()
			if got := p.holds(); got != state || string(p.text) != text {
				t.Errorf("%s: %s and %q, want %s and %q", why, got, p.text, state, text)
			}
		}
	}
	say(`{"text":"","status":{"is_restarting":true,"num_restarts":2}}`, `{"text":"","prompt":"first"}`, `{"text":"","prompt":"second"}`, `{"text":"a"}`, `{"text":"b"}`, `{"text":"c"}`)
	shows("messages were dropped", `{"prompt":"second","status":{"num_restarts":2}}`, "abc")

	b := log.Since(history.Oldest())
	archived := Archived(b.Pins(), b.Entries)
	var numbers []uint64
	for _, e := range archived {
		numbers = append(numbers, e.Seq)
		if err := Check(e); err != nil {
			t.Errorf("%s: %v", e.Data, err)
		}
	}
	if fmt.Sprint(numbers) != "[1 2 3 4 5]" {
		t.Errorf("the archive has the messages %v", numbers)
	}

	if n, err := r.Erase(t.Context(), 2); n != 1 || err != nil {
		t.Errorf("the prompt's message: %d erased, %v", n, err)
	}
	shows("the prompt is erased, and the one before it is not known any more", `{"status":{"num_restarts":2}}`, "abc")
	say(`{"text":"","prompt":"third"}`)
	seq := log.Position().Seq()
	say(`{"text":"d"}`, `{"text":"e"}`)
	shows("another", `{"prompt":"third","status":{"num_restarts":2}}`, "cde")
	if n, err := r.Erase(t.Context(), seq); n != 1 || err != nil {
		t.Errorf("a kept message: %d erased, %v", n, err)
	}
	shows("it is erased", `{"status":{"num_restarts":2}}`, "cde")

	if err := r.Import(t.Context(), Newest(archived, 4)); err != nil {
		t.Fatal(err)
	}
	shows("an import", `{"prompt":"second","status":{"num_restarts":2}}`, "abc")
	if err := r.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	shows("everything is erased", `{}`, "")
}
