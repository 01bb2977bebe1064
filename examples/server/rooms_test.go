package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// withRooms is a server with the rooms pi-1, pi-2 and stage, of which no device
// has the name of the last.
func withRooms(t *testing.T, more ...func(*config.Config)) *testSite {
	t.Helper()
	return start(t, func(c *config.Config) {
		c.Devices, c.Rooms = []string{"pi-1", "pi-2"}, []string{"pi-1", "pi-2", "stage"}
		c.RateConnections = 1000
		for _, change := range more {
			change(c)
		}
	})
}

// in opens a connection to a room.
func (s *testSite) in(room string) *peer {
	s.t.Helper()
	p, res := connectTo(s.t, "ws://"+s.addr+"/ws?room="+room)
	if p == nil {
		s.t.Fatalf("%s: refused: %s", room, res.Status)
	}
	return p
}

// grant returns a token of a device with a role and a scope.
func (s *testSite) grant(device, role string, scope ...string) string {
	s.t.Helper()
	token, err := authority.Sign(site.Grants(s.cfg), refresh.Grant{Subject: device, Role: role, Scope: scope}, time.Hour, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// Each room is a conversation of its own, over every transport.
func TestRooms(t *testing.T) {
	t.Parallel()
	s := withRooms(t)
	one, two := s.in("pi-1"), s.in("pi-2")
	events, _ := s.events("?room=pi-1")
	device, other := s.in("pi-1"), s.in("pi-2")
	device.authenticate(s.token("pi-1", time.Hour))
	other.authenticate(s.token("pi-2", time.Hour))
	device.publish("first")
	other.publish("second")
	if p := s.postTo("/publish?room=pi-1", s.token("pi-1", time.Hour), `{"text":"third"}`); p.Status != 202 {
		t.Errorf("a request to publish: %v", p)
	}
	if got, _ := one.texts(2); !slices.Equal(got, []string{"first", "third"}) {
		t.Errorf("room pi-1 has %q", got)
	}
	if got, _ := two.texts(1); !slices.Equal(got, []string{"second"}) {
		t.Errorf("room pi-2 has %q", got)
	}
	if got, _ := events.next(); !strings.Contains(got.data, "first") || strings.Contains(got.data, "second") {
		t.Errorf("the events of pi-1: %s", got.data)
	}
	late := s.in("stage")
	s.speak("stage", "fourth")
	if got, _ := late.texts(1); !slices.Equal(got, []string{"fourth"}) {
		t.Errorf("stage has %q", got)
	}

	// What an operator does concerns one room.
	op := s.operator()
	for room, want := range map[string]float64{"pi-1": 2, "pi-2": 1, "stage": 1} {
		if got := op.metric(`relayguard_room_published_total{room="` + room + `"}`); got != want {
			t.Errorf("%v messages of %s are counted, want %v", got, room, want)
		}
	}
	if got := op.metric("relayguard_history_appended_total"); got != 4 {
		t.Errorf("%v messages are counted, want 4", got)
	}
	if got := op.metric(`relayguard_room_viewers_open{room="pi-1"}`); got != 3 {
		t.Errorf("%v watch pi-1, want 3", got)
	}
	code, out := s.roomVerb("sessions", "-json")
	var w operate.Watching
	if res, body := op.call("GET", "/watching"); res.StatusCode != 200 || json.Unmarshal([]byte(body), &w) != nil || len(w.Rooms) != 3 || w.Rooms[0] != (operate.RoomWatching{Room: "pi-1", Here: 3, All: 3}) || w.Here != 7 {
		t.Errorf("watching: %s", body)
	}
	if code != exitOK || strings.Count(out, `"device"`) != 4 {
		t.Errorf("sessions: %s", out)
	}
	if code, out = s.roomVerb("sessions"); code != exitOK || !strings.Contains(out, "Connections that watch: 7.\n  pi-1: 3\n  pi-2: 2\n  stage: 2\n") {
		t.Errorf("sessions: %s", out)
	}
	if code, out = s.roomVerb("export", "-room", "pi-1"); code != exitOK || !strings.Contains(out, "first") || strings.Contains(out, "second") {
		t.Errorf("the export of pi-1: %s", out)
	}
	if code, out = s.roomVerb("erase", "-room", "pi-1", "-all"); code != exitOK {
		t.Errorf("erase: %s", out)
	}
	if code, out = s.roomVerb("export", "-room", "pi-1"); code != exitOK || strings.Contains(out, "first") {
		t.Errorf("erased, but exported: %s", out)
	}
	if code, out = s.roomVerb("export", "-room", "pi-2"); code != exitOK || !strings.Contains(out, "second") {
		t.Errorf("an erasure in another room took pi-2's: %s", out)
	}
	for _, args := range [][]string{{"export"}, {"erase", "-all"}, {"import", "x"}} {
		if code, out = s.roomVerb(args...); code != exitFailed || !strings.Contains(out, "name a room with -room: ROOMS is pi-1, pi-2, stage") {
			t.Errorf("%q: %d: %s", args, code, out)
		}
	}
	if code, out = s.roomVerb("export", "-room", "attic"); code != exitFailed || !strings.Contains(out, `-room is "attic"`) {
		t.Errorf("an unknown room: %d: %s", code, out)
	}
	for path, want := range map[string]string{"/history/export": "name a room", "/history/export?room=attic": "no such room (ROOMS: pi-1, pi-2, stage)"} {
		if res, body := op.call("GET", path); res.StatusCode/100 != 4 || !strings.Contains(body, want) {
			t.Errorf("%s: %s: %s", path, res.Status, body)
		}
	}
}

// speak publishes in a room that no device has the name of.
func (s *testSite) speak(room, text string) {
	s.t.Helper()
	p := s.in(room)
	p.authenticate(s.grant("pi-1", "speaker", "publish:"+room))
	p.publish(text)
}

func (s *testSite) roomVerb(args ...string) (code int, output string) {
	s.t.Helper()
	code, stdout, stderr := command(s.t, map[string]string{"JWT_SECRET": testSecret, "OPERATOR_ADDR": s.op, "ALLOWED_DEVICE_ID": strings.Join(s.cfg.Devices, ","), "ROOMS": strings.Join(s.cfg.Rooms, ",")}, args...)
	return code, stdout + stderr
}

// A token permits to publish in the room of its device, and in those that it
// names.
func TestRoomPermissions(t *testing.T) {
	t.Parallel()
	s := withRooms(t)
	for _, row := range []struct {
		why, device, role string
		scope             []string
		in                []string
	}{
		{"a device's own room", "pi-1", "", nil, []string{"pi-1"}},
		{"another device's", "pi-2", "", nil, []string{"pi-2"}},
		{"no permission to publish", "pi-1", "auditor", nil, nil},
		{"admin is no other device", "pi-1", "admin", nil, []string{"pi-1"}},
		{"admin without publish", "pi-1", "admin", []string{"audit"}, nil},
		{"all rooms", "pi-1", "speaker", nil, []string{"pi-1", "pi-2", "stage"}},
		{"those of the scope", "pi-2", "speaker", []string{"publish:stage", "publish:pi-1"}, []string{"pi-1", "stage"}},
		{"its own by name", "pi-2", "speaker", []string{"publish:pi-2"}, []string{"pi-2"}},
		{"an empty scope", "pi-2", "speaker", []string{}, nil},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Parallel()
			token := s.grant(row.device, row.role, row.scope...)
			for _, room := range s.cfg.Rooms {
				may := slices.Contains(row.in, room)
				want := http.StatusForbidden
				if may {
					want = http.StatusAccepted
				}
				if p := s.postTo("/publish?room="+room, token, `{"text":"a"}`); p.Status != want {
					t.Errorf("%s: a request is answered %v, want %d", room, p, want)
				} else if !may && p.Detail != "the token has no permission to publish in this room" {
					t.Errorf("%s: the detail is %q", room, p.Detail)
				}
				p := s.in(room)
				p.authenticate(token)
				p.send(`{"text":"a","timestamp":1700000000000,"id":"x"}`)
				answer := p.await(func(m map[string]any) bool { return m["ack"] != nil || m["status"] != nil })
				if got := answer["ack"] != nil; got != may {
					t.Errorf("%s: a message is answered %v", room, answer)
				}
			}
		})
	}
	t.Run("commands", func(t *testing.T) {
		t.Parallel()
		s := *s
		s.t = t
		for args, want := range map[string]string{
			"-device pi-2 -role speaker -scope publish:stage": "",
			"-device pi-2 -scope publish:stage":               `the role has the permissions publish`,
			"-device pi-2 -role speaker -scope publish:attic": `the role has the permissions publish:pi-1, publish:pi-2, publish:stage`,
		} {
			code, out := s.roomVerb(append([]string{"token"}, strings.Fields(args)...)...)
			if (code == exitOK) != (want == "") || !strings.Contains(out, want) {
				t.Errorf("token %s: %d: %s", args, code, out)
			}
		}
		if code, out := s.verb("token", "-role", "speaker"); code == exitOK || !strings.Contains(out, "-role is \"speaker\", which is none of") {
			t.Errorf("a speaker without rooms: %s", out)
		}
	})
}

// The list of rooms, the page of each, and what is neither.
func TestRoomPages(t *testing.T) {
	t.Parallel()
	s := withRooms(t)
	device := s.in("pi-1")
	device.authenticate(s.token("pi-1", time.Hour))
	device.send(`{"text":"a","timestamp":1700000000000,"id":"x","memory":{"available_mb":58,"percent_used":42,"total_mb":100},"status":{"num_restarts":6}}`)
	device.await(func(m map[string]any) bool { return m["ack"] != nil })
	for path, want := range map[string]struct {
		status int
		has    string
	}{
		"/":                         {200, `<a href="r/pi-2/">pi-2</a>`},
		"/rooms.js":                 {200, "rooms.json"},
		"/style.css":                {200, ""},
		"/r/pi-1/":                  {200, ` data-room="pi-1"`},
		"/r/pi-1/?wall":             {200, ` class="wall"`},
		"/r/pi-1/app.js":            {200, ""},
		"/r/pi-1/version.txt":       {200, ""},
		"/r/pi-1/qr.svg":            {200, ""},
		"/r/attic/":                 {404, ""},
		"/r/":                       {404, ""},
		"/r/pi-1/nothing":           {404, ""},
		"/r/pi-1/rooms.json":        {404, ""},
		"/r/pi-1/ws":                {404, ""},
		"/ws":                       {400, "name a room, as in ?room=pi-1"},
		"/ws?room=":                 {400, "name a room"},
		"/ws?room=attic":            {404, "no such room"},
		"/ws?room=pi-1&room=pi-2":   {404, "no such room"},
		"/ws?room=pi-1":             {426, ""},
		"/events":                   {400, "name a room"},
		"/events?room=attic":        {404, "no such room"},
		"/publish?room=attic":       {404, `"detail":"there is no such room"`},
		"/publish?room=pi-1":        {405, ""},
		"/rooms.html":               {404, ""},
		"/healthz":                  {200, "ok"},
		"/r/pi-1/../pi-2/style.css": {307, ""},
	} {
		res, body := s.get(path)
		if res.StatusCode != want.status || !strings.Contains(body, want.has) {
			t.Errorf("%s: %s: %.300s", path, res.Status, body)
		}
		if cache := res.Header.Get("Cache-Control"); want.status/100 == 4 && strings.Contains(want.has, "room") && cache != "no-store" {
			t.Errorf("%s: Cache-Control is %q", path, cache)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || (path == "/" || path == "/r/pi-1/") != strings.Contains(csp, "'nonce-") && path != "/r/pi-1/?wall" {
			t.Errorf("%s: %s", path, csp)
		}
	}
	// The Location is relative, since a proxy can serve the site below a path.
	for path, want := range map[string]string{"/r/pi-2": "pi-2/", "/r/pi-2?wall&qr": "pi-2/?wall&qr", "/r/pi-2?//evil.example": "pi-2/?//evil.example"} {
		if res, _ := s.get(path); res.StatusCode != 308 || res.Header.Get("Location") != want {
			t.Errorf("%s: %s to %q", path, res.Status, res.Header.Get("Location"))
		}
	}
	if _, body := s.get("/r/pi-1/", "Host", "art.example"); !strings.Contains(body, `content="http://art.example/r/pi-1/"`) || !strings.Contains(body, `content="http://art.example/r/pi-1/share.png"`) || !strings.Contains(body, "<title>pi-1 – ") {
		t.Error("the page's address is not that of the room")
	}
	if res, _ := s.do("POST", "/"); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s", res.Status)
	}
	testkit.Eventually(t, "the list shows the life", func() bool {
		_, body := s.get("/")
		_, data := s.get("/rooms.json")
		return strings.Contains(body, `<progress max="100" value="42"`) && strings.Contains(body, "Life 7") &&
			strings.Contains(data, `{"name":"pi-1","state":"live","percent":42,"life":7}`) && strings.Contains(data, `{"name":"pi-2","state":"roomEmpty"}`)
	})
	if res, _ := s.get("/rooms.json"); res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("rooms.json: %v", res.Header)
	}
}

// Without ROOMS, there is one conversation, and no room in it.
func TestNoRooms(t *testing.T) {
	t.Parallel()
	const shared = "several devices share one conversation: ROOMS=* gives each a room of its own"
	s := start(t, nil)
	for path, status := range map[string]int{"/ws?room=pi-1": 404, "/events?room=pi-1": 404, "/ws?room=": 426, "/r/pi-1/": 404, "/rooms.json": 404, "/": 200} {
		if res, body := s.get(path); res.StatusCode != status || strings.Contains(body, "data-room") {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	if code, out := s.verb("export", "-room", "pi-1"); code != exitFailed || !strings.Contains(out, "leave -room out") {
		t.Errorf("export -room: %d: %s", code, out)
	}
	for _, row := range []struct {
		args    []string
		devices string
		want    int
		why     string
	}{
		{nil, "pi-1", 0, "one device"},
		{nil, "pi-1,pi-2", 1, "two devices"},
		{[]string{"-demo"}, "", 0, "the demonstration, which has a device for a guest"},
	} {
		p := launch(t, true, t.TempDir(), []string{"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + row.devices, "PORT=" + freePort(t)}, row.args...)
		if got := len(p.stderr.Events(shared)); got != row.want {
			t.Errorf("%s: %d warnings, want %d", row.why, got, row.want)
		}
	}
}

// Rooms keep their histories apart on disk, also for commands while no server
// runs.
func TestRoomsOnDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "history")
	loaded, err := config.Load(environment(map[string]string{"HISTORY_DIR": dir, "HISTORY_KEY": testKey}))
	if err != nil {
		t.Fatal(err)
	}
	kept := func(c *config.Config) { c.HistoryDir, c.HistoryKey = dir, loaded.HistoryKey }
	s := withRooms(t, kept)
	s.speak("stage", "kept")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = withRooms(t, kept)
	if got, _ := s.in("stage").texts(1); got[0] != "kept" {
		t.Errorf("after a restart, stage has %q", got)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"JWT_SECRET": testSecret, "HISTORY_KEY": testKey, "OPERATOR_ADDR": "", "HISTORY_DIR": dir, "ROOMS": "stage,pi-1"}
	file := filepath.Join(t.TempDir(), "a.jsonl")
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"export", "-room", "stage", "-o", file}, "messages: 1"},
		{[]string{"import", "-room", "pi-1", file}, "messages: 1 of 1"},
		{[]string{"erase", "-room", "stage", "-all"}, "erased"},
		{[]string{"export", "-room", "stage"}, "messages: 0"},
		{[]string{"export", "-room", "pi-1"}, `kept`},
	} {
		if code, out, errs := command(t, env, step.args...); code != exitOK || !strings.Contains(out+errs, step.want) {
			t.Errorf("%q: %d: %s", step.args, code, out+errs)
		}
	}
	for why, row := range map[string]struct {
		prepare func(dir string) error
		rooms   []string
		want    string
	}{
		"the history of one conversation": {func(dir string) error {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600)
		}, []string{"pi-1"}, "holds the history of one conversation"},
		"the histories of rooms":      {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "pi-1"), 0o700) }, nil, "holds other files"},
		"a directory for other users": {func(dir string) error { return os.Mkdir(dir, 0o777) }, []string{"pi-1"}, "no other user can write"},
	} {
		dir := filepath.Join(t.TempDir(), "history")
		if err := row.prepare(dir); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(why, "other users") {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		cfg := testConfig(t)
		cfg.HistoryDir, cfg.HistoryKey, cfg.Rooms = dir, loaded.HistoryKey, row.rooms
		if _, err := site.New(cfg, site.Options{Log: slog.New(slog.NewJSONHandler(newLog(), nil))}); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// A class of thirty: each device has a room, and each viewer sees its own only.
func TestClassOfThirty(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprintf("pupil-%02d", i))
	}
	s := start(t, func(c *config.Config) { c.Devices, c.Rooms, c.RateConnections = names, names, 1000 })
	done := make(chan string)
	for _, name := range names {
		go func() {
			viewer, device := s.in(name), s.in(name)
			device.authenticate(s.token(name, time.Hour))
			for i := range 10 {
				device.send(fmt.Sprintf(`{"text":"%s-%d ","timestamp":1700000000000}`, name, i))
			}
			got, _ := viewer.texts(10)
			for i, text := range got {
				if text != fmt.Sprintf("%s-%d ", name, i) {
					done <- fmt.Sprintf("%s sees %q", name, got)
					return
				}
			}
			done <- ""
		}()
	}
	for range names {
		if problem := <-done; problem != "" {
			t.Error(problem)
		}
	}
}

// A room that no client uses takes little memory and no goroutine.
func TestIdleRooms(t *testing.T) { // alone: it measures the process
	const count = 1000
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("room-%d", i))
	}
	cfg := testConfig(t)
	measure := func() (heap uint64, goroutines int) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	log := slog.New(slog.NewJSONHandler(newLog(), nil))
	before, routines := measure()
	cfg.Rooms = names
	s, err := site.New(cfg, site.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	after, all := measure()
	each := float64(after-before) / count / 1024
	t.Logf("an idle room takes %.1f KiB and %.3f goroutines", each, float64(all-routines)/count)
	if each > 24 {
		t.Errorf("an idle room takes %.1f KiB", each)
	}
	if all-routines > count/10 {
		t.Errorf("%d goroutines for %d idle rooms", all-routines, count)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
