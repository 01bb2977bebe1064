package main

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/wsauth"
)

// What is done to one room, or told about it, leaves the others as they are.
func TestRoomsApart(t *testing.T) {
	t.Parallel()
	s := withRooms(t, func(c *config.Config) { c.ShowWatching = true })
	one, same, two := s.in("pi-1"), s.in("pi-1"), s.in("pi-2")
	for room, n := range map[string]int{"pi-1": 2, "pi-2": 1} {
		testkit.Eventually(t, "the viewers of "+room+" are counted", func() bool { return s.srv.Rooms.Get(room).Watching() == n })
	}
	speaker := s.grant("pi-1", "speaker")

	// A token without permission is no obstacle for another one of the same
	// device and address.
	if p := s.postTo("/publish?room=pi-2", s.token("pi-1", time.Hour), `{"text":"a"}`); p.Status != 403 {
		t.Errorf("another device's room: %v", p)
	}
	for _, room := range []string{"pi-1", "pi-2"} {
		if p := s.postTo("/publish?room="+room, speaker, `{"text":"to `+room+`","id":"same"}`); p.Status != 202 || p.Duplicate {
			t.Errorf("an id that another room knows: %v", p)
		}
	}
	for _, row := range []struct {
		in       *peer
		room     string
		watching float64
	}{{one, "pi-1", 2}, {same, "pi-1", 2}, {two, "pi-2", 1}} {
		m := row.in.await(func(m map[string]any) bool { return m["type"] != nil })
		if text := fmt.Sprint(m["messages"]); m["watching"] != row.watching || !strings.Contains(text, "to "+row.room) {
			t.Errorf("%s gets %v", row.room, m)
		}
	}

	// Both messages have the same number in their rooms.
	exported := func(room string) string {
		t.Helper()
		code, out := s.roomVerb("export", "-room", room)
		if code != exitOK {
			t.Fatal(out)
		}
		return out
	}
	seq := s.srv.Rooms.Get("pi-1").Log.Position().Seq()
	if other := s.srv.Rooms.Get("pi-2").Log.Position().Seq(); other != seq {
		t.Fatalf("the numbers are %d and %d", seq, other)
	}
	file := filepath.Join(t.TempDir(), "a.jsonl")
	if code, out := s.roomVerb("export", "-room", "pi-2", "-o", file); code != exitOK {
		t.Fatal(out)
	}
	if code, out := s.roomVerb("erase", "-room", "pi-2", strconv.FormatUint(seq, 10)); code != exitOK {
		t.Error(out)
	}
	if out := exported("pi-2"); strings.Contains(out, "to pi-2") {
		t.Errorf("erased, but exported: %s", out)
	}
	if code, out := s.roomVerb("import", "-room", "stage", file); code != exitOK {
		t.Error(out)
	}
	if out := exported("stage"); !strings.Contains(out, "to pi-2") {
		t.Errorf("imported, but not exported: %s", out)
	}
	if out := exported("pi-1"); !strings.Contains(out, "to pi-1") || strings.Contains(out, "to pi-2") {
		t.Errorf("after an erasure and an import in other rooms: %s", out)
	}

	// The disk of one room says nothing of the other's.
	ready := func() string { _, body := s.get("/readyz"); return strings.TrimSpace(body) }
	for _, step := range []struct {
		room string
		err  error
		want string
	}{
		{"pi-1", os.ErrPermission, "degraded"},
		{"stage", os.ErrPermission, "degraded"},
		{"pi-1", nil, "degraded"},
		{"stage", nil, "ready"},
	} {
		if s.srv.DiskState(step.room, step.err); ready() != step.want {
			t.Errorf("after %v in %s: %s, want %s", step.err, step.room, ready(), step.want)
		}
	}

	// A block concerns all rooms.
	if n := s.srv.Rooms.Disconnect(func(netip.Addr) bool { return true }); n != 3 {
		t.Errorf("%d connections are closed", n)
	}
	for _, p := range []*peer{one, same, two} {
		if _, code := p.end(); code != int(websocket.StatusPolicyViolation) {
			t.Errorf("a blocked viewer's connection ends with %d", code)
		}
	}
}

// Viewers of all rooms come back as slowly as those of one conversation: each
// room counts those of the others.
func TestRoomsGoodbye(t *testing.T) {
	t.Parallel()
	const count = 30 // as many as UPGRADES_PER_SECOND admits at once
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("room-%d", i))
	}
	s := withRooms(t, func(c *config.Config) { c.Rooms, c.UpgradesPerSecond = names, count/2 })
	waits := make([]time.Duration, count)
	var all sync.WaitGroup
	for i, name := range names {
		p := s.in(name)
		all.Go(func() { waits[i] = p.goodbye(name) })
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	all.Wait()
	// Together they take 4 seconds. Alone, each would come after 2.
	if latest := slices.Max(waits); latest < 3*time.Second {
		t.Errorf("all viewers come back within %v", latest)
	}
}

// The lists of sessions and of events, and the log, name the room.
func TestRoomsAreNamed(t *testing.T) {
	t.Parallel()
	s := withRooms(t)
	device := s.in("pi-1")
	device.authenticate(s.token("pi-1", time.Hour))
	if p := s.postTo("/publish?room=stage", s.grant("pi-2", "speaker"), `{"text":"a"}`); p.Status != 202 {
		t.Fatal(p)
	}
	op := s.operator()
	var sessions []operate.Session
	if _, body := op.call("GET", "/sessions"); json.Unmarshal([]byte(body), &sessions) != nil || len(sessions) != 2 {
		t.Fatal(body)
	}
	var events []trail.Entry
	if _, body := op.call("GET", "/audit"); json.Unmarshal([]byte(body), &events) != nil {
		t.Fatal(body)
	}
	for device, room := range map[string]string{"pi-1": "pi-1", "pi-2": "stage"} {
		if !slices.ContainsFunc(sessions, func(s operate.Session) bool { return s.Device == device && s.Room == room }) {
			t.Errorf("the sessions do not say that %s is in %s: %+v", device, room, sessions)
		}
		if !slices.ContainsFunc(events, func(e trail.Entry) bool {
			return e.Outcome == string(wsauth.EventAuthenticated) && e.Device == device && e.Room == room
		}) {
			t.Errorf("the events do not say that %s is in %s: %+v", device, room, events)
		}
		if !slices.ContainsFunc(s.logs.Events("auth"), func(e map[string]any) bool {
			return e["subject"] == device && e["room"] == room && e["client"] == "127.0.0.1/32"
		}) {
			t.Errorf("the log does not say that %s is in %s", device, room)
		}
	}
	for _, list := range []string{"sessions", "audit"} {
		if code, out := s.roomVerb(list); code != exitOK || !strings.Contains(out, "stage") {
			t.Errorf("%s: %s", list, out)
		}
	}
}

// Rooms are the same on all servers that share an engine.
func TestNodesRooms(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		engine := e.Start(t)
		more := []string{"ROOMS=*", "ALLOWED_DEVICE_ID=pi-1,pi-2", "SHOW_WATCHING=true"}
		a, b := readyNode(t, engine.Addr, more...), readyNode(t, engine.Addr, more...)
		one, two := b.in("pi-1"), b.in("pi-2")
		device := a.in("pi-1")
		device.authenticate(a.token("pi-1", time.Hour))
		device.publish("over nodes")
		if got, _ := one.texts(1); got[0] != "over nodes" {
			t.Errorf("the other node shows %q", got)
		}
		if out, _ := a.verb(exitOK, "export", "-room", "pi-2"); strings.Contains(out, "over nodes") {
			t.Errorf("the other room has %s", out)
		}
		other := b.in("pi-2")
		other.authenticate(b.token(testDevice, time.Hour))
		other.send(`{"text":"x","timestamp":1700000000000}`)
		other.await(func(m map[string]any) bool { return m["status"] == "viewer" })
		elsewhere := a.in("pi-2")
		says := func(want string) {
			t.Helper()
			testkit.Eventually(t, "sessions says "+want, func() bool {
				out, _ := b.verb(exitOK, "sessions")
				return strings.Contains(out, want)
			})
		}
		says("  pi-2: 3, of which 2 on this server\n")
		two.leave()
		other.leave()
		says("  pi-2: 1, of which 0 on this server\n")
		elsewhere.leave()
		one.leave()
		says("Connections that watch: 1, of which 0 on this server.\n  pi-1: 1, of which 0 on this server\n") // the device
		if out, _ := b.verb(exitOK, "sessions", "-json"); !strings.Contains(out, `"room": "pi-1"`) {
			t.Errorf("the other node's session has no room: %s", out)
		}
		b.verb(exitOK, "erase", "-room", "pi-1", "-all")
		testkit.Eventually(t, "what one node has erased is erased on the other", func() bool {
			out, _ := a.verb(exitOK, "export", "-room", "pi-1")
			return !strings.Contains(out, "over nodes")
		})
	})
}
