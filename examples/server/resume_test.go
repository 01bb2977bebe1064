package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/history"
)

// position reads frames until it has the newest position and n messages.
func (p *peer) position(n int) (pos, kind string, texts []string) {
	p.t.Helper()
	for len(texts) < n {
		m := p.await(func(m map[string]any) bool { return m["type"] != nil })
		pos, kind = m["pos"].(string), m["type"].(string)
		for _, e := range m["messages"].([]any) {
			texts = append(texts, e.(map[string]any)["text"].(string))
		}
	}
	return pos, kind, texts
}

// resume connects again with the position pos.
func (s *testSite) resume(pos string) *peer {
	s.t.Helper()
	p, res := connectTo(s.t, "ws://"+s.addr+"/ws?since="+pos)
	if p == nil {
		s.t.Fatalf("refused: %s", res.Status)
	}
	return p
}

// A viewer that comes back gets the messages that it missed. If the server no
// longer has them all, the viewer gets the history.
func TestResume(t *testing.T) {
	s := start(t, func(c *config.Config) { crowded(c); c.HistoryKeep, c.HistoryTrimAt = 4, 5 })
	device := s.publisher()
	say := func(texts ...string) {
		for _, text := range texts {
			device.send(`{"text":"` + text + `"}`)
		}
	}
	first := s.viewer()
	say("a")
	early, _, _ := first.position(1)
	say("b")
	pos, _, _ := first.position(1)

	for _, row := range []struct {
		name  string
		since string
		say   func()
		kind  string
		want  string
	}{
		{"missed one", pos, func() { say("c") }, "live", "c"},
		{"missed two", pos, func() { say("d") }, "live", "c d"},
		{"not a position", "nonsense", func() {}, "history", "a b c d"},
		{"empty", "", func() {}, "history", "a b c d"},
		{"trimmed", early, func() { say("e", "f") }, "history", "c d e f"},
		{"just not trimmed", pos, func() {}, "live", "c d e f"},
		{"of another life", pos, func() {
			device.send(`{"text":"anew","status":{"is_restarting":true}}`)
			say("g")
		}, "history", "anew g"},
		{"of another server", "", func() {}, "history", "anew g"},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.say()
			testkit.Eventually(t, "it is published", func() bool { return s.ends(row.want) })
			if row.name == "of another server" {
				other := start(t, nil)
				w := other.viewer()
				other.publisher().send(`{"text":"elsewhere"}`)
				row.since, _, _ = w.position(1)
			}
			_, kind, texts := s.resume(row.since).position(len(strings.Fields(row.want)))
			if got := strings.Join(texts, " "); kind != row.kind || got != row.want {
				t.Errorf("got %q in a %s frame, want %q in a %s frame", got, kind, row.want, row.kind)
			}
		})
	}
}

// texts returns the texts in the history.
func (s *testSite) texts() (texts []string) {
	for _, e := range s.srv.History.Since(history.Oldest()).Entries {
		_, text, _ := strings.Cut(string(e.Data), `"text":"`)
		text, _, _ = strings.Cut(text, `"`)
		texts = append(texts, text)
	}
	return texts
}

func (s *testSite) ends(want string) bool {
	return strings.HasSuffix(strings.Join(s.texts(), " "), want)
}

// If a device sends a message again, on the same or another connection, the
// server acknowledges it again and publishes it once.
func TestPublishOnce(t *testing.T) {
	t.Parallel()
	s := start(t, crowded)
	answered := func(p *peer, want map[string]any) {
		t.Helper()
		if m := p.await(func(m map[string]any) bool { return m["type"] == nil }); !reflect.DeepEqual(m, want) {
			t.Errorf("got %v, want %v", m, want)
		}
	}
	ack := func(p *peer, id string) { t.Helper(); answered(p, map[string]any{"ack": id}) }
	known := func(p *peer, id string) { t.Helper(); answered(p, map[string]any{"ack": id, "duplicate": true}) }
	device := s.publisher()
	for i := range 3 {
		id := strconv.Itoa(i)
		device.send(fmt.Sprintf(`{"text":"%s","id":"%s"}`, id, id))
		ack(device, id)
		device.send(fmt.Sprintf(`{"text":"%s","id":"%s"}`, id, id))
		known(device, id)
	}
	again := s.publisher()
	again.send(`{"text":"1","id":"1"}`)
	known(again, "1")
	again.send(`{"text":"no id"}`)
	again.send(`{"text":"no id"}`)
	again.send(`{"text":"","id":"r","status":{"is_restarting":true}}`)
	ack(again, "r")
	again.send(`{"text":"new life","id":"4"}`)
	ack(again, "4")
	again.send(`{"text":"","id":"r","status":{"is_restarting":true}}`)
	known(again, "r")
	if got := strings.Join(s.texts(), "|"); got != "new life" {
		t.Errorf("a restart that was sent again cleared what followed it: %q", got)
	}
	if got, logged := s.srv.Relay.Stats().Duplicates, len(s.logs.Events("message was published before")); got != 5 || logged != 5 {
		t.Errorf("%d duplicates are counted and %d are logged, want 5", got, logged)
	}

	// Each device has its own ids, and the server knows only the newest
	// thousand.
	for i := range 1000 {
		id := "n" + strconv.Itoa(i)
		again.send(`{"text":"x","id":"` + id + `"}`)
		ack(again, id)
	}
	again.send(`{"text":"long ago","id":"4"}`)
	ack(again, "4")
	if !s.ends("long ago") {
		t.Error("an id is remembered for more than a thousand messages")
	}
}

// A viewer that connected while the history was empty sees the end of a life as
// every other viewer does: as a live message with a restart signal.
func TestRestartBeforeTheFirstMessage(t *testing.T) {
	for _, signal := range []string{`{"text":"","status":{"is_restarting":true}}`, `{"text":"again","status":{"is_restarting":true}}`} {
		s := start(t, crowded)
		watcher, device := s.viewer(), s.publisher()
		testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Len() == 2 })
		device.send(signal)
		m := watcher.await(func(m map[string]any) bool { return m["type"] != nil })
		messages := m["messages"].([]any)
		if m["type"] != "live" || len(messages) != 1 {
			t.Fatalf("%s: %v", signal, m)
		}
		if status, _ := messages[0].(map[string]any)["status"].(map[string]any); status["is_restarting"] != true {
			t.Errorf("%s: %v", signal, m)
		}
	}
}

// A viewer that comes back sees what happens after it has come back as live,
// and a restart signal too: the signal may be kept nowhere else.
func TestRestartAfterResuming(t *testing.T) {
	for _, row := range []struct {
		why  string
		miss string // published while the viewer is away
		want string // the kinds of the frames until the signal
	}{
		{"nothing was missed", "", "live"},
		{"a message was missed, and the restart clears it", `{"text":"two","id":"2"}`, "live"},
	} {
		t.Run(row.why, func(t *testing.T) {
			s := start(t, crowded)
			device := s.publisher()
			device.send(`{"text":"one","id":"1"}`)
			pos := device.await(func(m map[string]any) bool { return m["type"] == "live" })["pos"].(string)
			if row.miss != "" {
				device.send(row.miss)
				device.await(func(m map[string]any) bool { return m["ack"] == "2" })
			}
			watcher := s.resume(pos)
			testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Len() == 2 })
			device.send(`{"text":"","status":{"is_restarting":true,"num_restarts":3}}`)
			watcher.await(func(m map[string]any) bool {
				if m["type"] == nil {
					return false
				}
				if m["type"] != row.want {
					t.Fatalf("a frame of another kind: %v", m)
				}
				messages := m["messages"].([]any)
				status, _ := messages[len(messages)-1].(map[string]any)["status"].(map[string]any)
				return status["is_restarting"] == true
			})
		})
	}
}

// A client that only publishes gets answers and no frames.
func TestPublishOnly(t *testing.T) {
	s := start(t, crowded)
	s.publisher().publish("before")
	device, res := connectTo(t, "ws://"+s.addr+"/ws?watch=0")
	if device == nil {
		t.Fatal(res.Status)
	}
	device.send(`{"token":"` + s.token(testDevice, time.Hour) + `"}`)
	watcher := s.viewer()
	for i := range 20 {
		device.send(fmt.Sprintf(`{"text":"%d","id":"%d"}`, i, i))
	}
	watcher.until("19")
	for acks := 0; acks < 20; {
		m, err := device.next()
		if err != nil || m["type"] != nil {
			t.Fatalf("a frame for a client that does not watch: %v, %v", m, err)
		}
		if m["ack"] != nil {
			acks++
		}
	}
}

// The server drops frames with messages that have become too old.
func TestExpiredIsNotInAFrame(t *testing.T) {
	s := start(t, func(c *config.Config) { crowded(c); c.HistoryMaxAge = time.Hour })
	device := s.publisher()
	publish := func(text string) {
		device.send(`{"text":"` + text + `","id":"` + text + `"}`)
		device.await(func(m map[string]any) bool { return m["ack"] == text })
	}
	publish("zero")
	old := s.srv.History.Position().String()
	if err := s.srv.Relay.Clear(t.Context()); err != nil { // viewers come back with their old position
		t.Fatal(err)
	}
	publish("one")
	for _, want := range []int{1, 0} {
		p := s.resume(old)
		if m := p.await(func(m map[string]any) bool { return m["type"] != nil }); len(m["messages"].([]any)) != want {
			t.Errorf("want %d messages: %v", want, m)
		}
		p.leave()
		s.srv.History.Expire(time.Now().Add(2 * time.Hour))
	}
}

// A viewer can begin with the newest messages, and knows what still holds.
func TestLast(t *testing.T) {
	s := start(t, crowded)
	device := s.publisher()
	device.send(`{"text":"a","prompt":"Think."}`)
	for _, text := range []string{"b", "c", "d"} {
		device.send(`{"text":"` + text + `"}`)
	}
	device.texts(4)
	for query, want := range map[string]string{"last=2": "cd", "last=9": "abcd", "last=0": "", "last=x": "abcd"} {
		p, res := connectTo(t, "ws://"+s.addr+"/ws?"+query)
		if p == nil {
			t.Fatal(res.Status)
		}
		m := p.await(func(m map[string]any) bool { return m["type"] != nil })
		texts := ""
		for _, e := range m["messages"].([]any) {
			texts += e.(map[string]any)["text"].(string)
		}
		state, _ := m["state"].(map[string]any)
		if m["type"] != "history" || texts != want || state["prompt"] != "Think." {
			t.Errorf("%s: %v", query, m)
		}
	}
}

// A message that is too old is in no frame that the relay keeps in memory.
func TestOldFrames(t *testing.T) {
	t.Parallel()
	tried := func(age time.Duration) bool {
		s := start(t, func(c *config.Config) { crowded(c); c.HistoryMaxAge = age })
		device, viewer := s.publisher(), s.viewer()
		device.publish("old")
		from, _, _ := viewer.position(1)
		testkit.Eventually(t, "half its age", func() bool { return time.Since(s.srv.History.Stats().Oldest) > age/2 })
		device.publish("new")
		viewer.position(1)
		made := func() uint64 {
			before := s.srv.Relay.Stats().Encoded
			s.resume(from).await(func(m map[string]any) bool { return m["type"] != nil })
			return s.srv.Relay.Stats().Encoded - before
		}
		if n := made(); n != 0 && s.srv.History.Stats().TrimmedByAge == 0 {
			t.Errorf("%d frames are made for what the viewer has got", n)
		}
		testkit.Eventually(t, "the old message is dropped", func() bool { return s.srv.History.Stats().TrimmedByAge > 0 })
		for range 100 { // the relay learns of it a moment later
			n := made()
			if s.srv.History.Stats().Entries == 0 {
				return false // the new one was dropped too
			}
			if n > 0 {
				return true
			}
		}
		t.Error("the frames from before are sent after the old message is dropped")
		return true
	}
	for age := 2 * time.Second; !tried(age); age *= 2 { // of a slow machine
	}
}
