package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/internal/redistest"
)

// keepingLives makes a server keep lives in dir.
func keepingLives(t *testing.T, dir string, more map[string]string) func(*config.Config) {
	return func(c *config.Config) {
		env := map[string]string{"LIVES_DIR": dir, "HISTORY_KEY": testKey, "RATE_LIMIT_CONNECTIONS": "1000"}
		for name, value := range more {
			env[name] = value
		}
		var err error
		if *c, err = config.Load(environment(env)); err != nil {
			t.Fatal(err)
		}
	}
}

// listed returns the lives that visitors can see.
func (s *testSite) listed() []lives.Life {
	s.t.Helper()
	res, body := s.get("/lives", "Accept", "application/json")
	var list struct{ Lives []lives.Life }
	if err := json.Unmarshal([]byte(body), &list); err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" {
		s.t.Fatalf("%s, %v: %s", res.Status, err, body)
	}
	return list.Lives
}

// live publishes texts and a restart signal, and waits for the life to be kept.
func (s *testSite) live(device *peer, texts ...string) lives.Life {
	s.t.Helper()
	before := len(s.listed())
	for i, text := range texts {
		device.send(fmt.Sprintf(`{"text":%q,"memory":{"available_mb":1,"percent_used":%d,"total_mb":10}}`, text, 90+i))
	}
	device.send(`{"text":"","status":{"is_restarting":true,"num_restarts":7}}`)
	testkit.Eventually(s.t, "the life to be kept", func() bool { return len(s.listed()) > before })
	return s.listed()[0]
}

// frames returns the texts of a life as its page gets them.
func (s *testSite) frames(id string) (texts, kinds []string) {
	s.t.Helper()
	res, body := s.get("/lives/" + id + ".jsonl")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/jsonl" || res.Header.Get("Cache-Control") != "no-store" {
		s.t.Fatalf("%s, %v", res.Status, res.Header)
	}
	lines := strings.Split(strings.TrimSpace(body), "\n")
	for _, line := range lines[:len(lines)-1] {
		var f struct {
			Type     string
			Messages []struct {
				Text      string
				Timestamp int64
			}
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil || len(f.Messages) != 1 || f.Messages[0].Timestamp < 1e12 {
			s.t.Fatalf("%v: %s", err, line)
		}
		texts, kinds = append(texts, f.Messages[0].Text), append(kinds, f.Type)
	}
	if last := lines[len(lines)-1]; last != `{"end":true}` {
		s.t.Errorf("the last line is %s", last)
	}
	return texts, kinds
}

func TestLives(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lives")
	s := start(t, keepingLives(t, dir, nil))
	if res, body := s.get("/lives"); res.StatusCode != 200 || !strings.Contains(body, "No life has ended yet.") {
		t.Errorf("an empty list: %s, %s", res.Status, body)
	}
	device := s.publisher()
	life := s.live(device, "first ", "last <b>words</b>")
	if life.Number != nil || *life.MemoryPercent != 91 || life.Messages != 2 || life.Cause != "restart" || life.Truncated || life.Incomplete || life.Unreadable {
		t.Errorf("%+v", life)
	}
	if texts, kinds := s.frames(life.ID); !slices.Equal(texts, []string{"first ", "last <b>words</b>"}) || !slices.Equal(kinds, []string{"history", "live"}) {
		t.Errorf("frames %q of the kinds %q", texts, kinds)
	}
	second := s.live(device, "second")
	if *second.Number != 8 {
		t.Errorf("after 7 restarts: %+v", second)
	}
	if list := s.listed(); len(list) != 2 || list[0].ID != second.ID || list[1].ID != life.ID {
		t.Errorf("listed: %+v", list)
	}

	t.Run("pages", func(t *testing.T) {
		for path, want := range map[string]string{
			"/lives":            `href="lives/` + second.ID + `"`,
			"/lives/" + life.ID: `src="../replay.js"`,
			"/":                 `<a href="lives">`,
		} {
			res, body := s.get(path)
			csp := res.Header.Get("Content-Security-Policy")
			if res.StatusCode != 200 || !strings.Contains(body, want) || !strings.Contains(csp, "'nonce-") || !strings.Contains(csp, "require-trusted-types-for") ||
				res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: %s, %v\n%s", path, res.Status, res.Header, body)
			}
			if strings.Contains(body, "words") {
				t.Errorf("%s has the text", path)
			}
			if res, body := s.do("HEAD", path); res.StatusCode != 200 || body != "" {
				t.Errorf("HEAD %s: %s, %q", path, res.Status, body)
			}
		}
		if _, body := s.get("/lives"); !strings.Contains(body, "Life 8") || !strings.Contains(body, "90%") {
			t.Error(body)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		for _, row := range []struct {
			method, path string
			header       []string
			status       int
			why          string
		}{
			{"POST", "/lives", nil, 405, "nothing is sent"},
			{"DELETE", "/lives/" + life.ID, nil, 405, "only an operator erases"},
			{"PUT", "/lives/" + life.ID + ".jsonl", nil, 405, "nothing is sent"},
			{"GET", "/lives/", nil, 404, "no life"},
			{"GET", "/lives/x", nil, 404, "no ID"},
			{"GET", "/lives/" + life.ID + ".json", nil, 404, "no such form"},
			{"GET", "/lives/20261127-000000-aaaaaaaa.jsonl", nil, 404, "no such life"},
			{"GET", "/lives/..%2flock.jsonl", nil, 404, "a path"},
			{"GET", "/lives/" + life.ID + ".jsonl", []string{"Sec-Fetch-Site", "cross-site"}, 403, "a foreign page costs its visitor no slot"},
			{"HEAD", "/lives/" + life.ID + ".jsonl", nil, 200, "reading"},
		} {
			res, _ := s.do(row.method, row.path, row.header...)
			if res.StatusCode != row.status || (row.status == 405) != (res.Header.Get("Allow") == "GET, HEAD") || res.Header.Get("X-Frame-Options") != "DENY" {
				t.Errorf("%s %s (%s): %s, %v", row.method, row.path, row.why, res.Status, res.Header)
			}
		}
	})
	t.Run("nothing is readable on the disk", func(t *testing.T) {
		names, _ := filepath.Glob(filepath.Join(dir, "*.life"))
		for _, name := range names {
			if data, err := os.ReadFile(name); err != nil || strings.Contains(string(data), "first") || strings.Contains(string(data), "timestamp") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(names) != 2 {
			t.Errorf("%v", names)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		m := s.operator().scrape()
		if m["relayguard_lives_kept"] != 2 || m["relayguard_lives_bytes"] < 500 || m["relayguard_lives_failed_total"] != 0 || m["relayguard_lives_unreadable"] != 0 {
			t.Errorf("%v", m)
		}
	})
	t.Run("verbs", func(t *testing.T) {
		code, out := s.verb("lives")
		if code != 0 || !strings.Contains(out, life.ID) || !strings.Contains(out, "91 %") {
			t.Errorf("lives: %d, %s", code, out)
		}
		if code, out := s.verb("lives", "-json"); code != 0 || !strings.Contains(out, `"number": 8`) {
			t.Errorf("lives -json: %d, %s", code, out)
		}
		if code, out := s.verb("lives", "-erase", "20261127-000000-aaaaaaaa"); code != 1 || !strings.Contains(out, "There is no life") {
			t.Errorf("an unknown ID: %d, %s", code, out)
		}
		if code, out := s.verb("lives", "-erase", life.ID); code != 0 {
			t.Errorf("erase: %d, %s", code, out)
		}
		if res, _ := s.get("/lives/" + life.ID); res.StatusCode != 404 || len(s.listed()) != 1 {
			t.Errorf("after its erasure: %s", res.Status)
		}
		if code, out := s.verb("audit"); code != 0 || !strings.Contains(out, "DELETE /lives/"+life.ID) {
			t.Errorf("the audit: %d, %s", code, out)
		}
		if code, out := s.verb("lives", "-erase-all", "-erase", life.ID); code != 2 {
			t.Errorf("both: %d, %s", code, out)
		}
		if code, out := s.verb("lives", "-erase-all"); code != 0 || len(s.listed()) != 0 {
			t.Errorf("erase-all: %d, %s", code, out)
		}
		if names, _ := filepath.Glob(filepath.Join(dir, "*.life*")); len(names) != 0 {
			t.Errorf("left on the disk: %v", names)
		}
	})
	if logs := s.logs.String(); strings.Contains(logs, "words") || !strings.Contains(logs, "a life that has ended is kept") {
		t.Error("the log has the text, or not the life")
	}
}

// What an operator erases from the history is not in the life either.
func TestLivesErased(t *testing.T) {
	t.Parallel()
	s := start(t, keepingLives(t, t.TempDir(), nil))
	device := s.publisher()
	device.publish("good ", "bad")
	viewer := s.viewer()
	viewer.until("bad")
	_, export := s.operator().call("GET", "/history/export")
	if code, out := s.verb("erase", numberOf(t, export, "bad")); code != 0 {
		t.Fatal(code, out)
	}
	life := s.live(device, "end")
	if texts, _ := s.frames(life.ID); !slices.Equal(texts, []string{"good ", "end"}) {
		t.Errorf("the life is %q", texts)
	}
}

// Reading a life takes a slot, as a stream of events does.
func TestLivesLimited(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) {
		keepingLives(t, t.TempDir(), map[string]string{"RATE_LIMIT_CONNECTIONS": "2"})(c)
		c.MaxAttempts = 4
	})
	life := s.live(s.publisher(), "a")
	for range 3 { // the publisher was the first attempt
		if res, _ := s.get("/lives/" + life.ID + ".jsonl"); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
	}
	for _, path := range []string{"/lives/" + life.ID + ".jsonl", "/lives/" + life.ID, "/lives"} {
		if res, _ := s.get(path); res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

// A server keeps no lives unless it is told to.
func TestLivesOff(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, path := range []string{"/lives", "/lives/", "/lives/20261127-000000-aaaaaaaa", "/lives/20261127-000000-aaaaaaaa.jsonl"} {
		if res, _ := s.get(path, "Accept", "application/json"); res.StatusCode != 404 {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	if _, body := s.get("/"); strings.Contains(body, `href="lives"`) || strings.Contains(body, "data-lives") {
		t.Error("the page leads to lives")
	}
	if code, out := s.verb("lives"); code != 1 || !strings.Contains(out, "LIVES_DIR is not set") {
		t.Errorf("%d, %s", code, out)
	}
}

// If the disk fails, the relay goes on without the life, and says so.
func TestLivesLost(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "lives")
	s := start(t, keepingLives(t, dir, nil))
	device := s.publisher()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	device.publish("a")
	device.send(`{"text":"","status":{"is_restarting":true}}`)
	op := s.operator()
	testkit.Eventually(t, "the loss to be counted", func() bool { return op.metric("relayguard_lives_failed_total") == 1 })
	device.publish("b")
	s.viewer().until("b")
	if len(s.logs.Events("a life that has ended is not kept")) != 1 {
		t.Error(s.logs)
	}
}

// Lives outlast the server, and the one that runs goes on with the history. No
// second server takes the directory, and another key opens nothing.
func TestLivesOutlast(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := operable(t, durable(t, filepath.Join(dir, "history"), "LIVES_DIR="+filepath.Join(dir, "lives")))
	s, p := serving(t, env)
	device := s.publisher()
	first := s.live(device, "a")
	device.publish("b")
	refused(t, append(slices.Clone(env), "HISTORY_DIR=", "PORT="+freePort(t)), "another process uses LIVES_DIR")
	if p.terminate() != 0 {
		t.Error(p.stderr)
	}
	s, p = serving(t, env)
	second := s.live(s.publisher(), "c")
	if texts, _ := s.frames(second.ID); !slices.Equal(texts, []string{"", "b", "c"}) {
		t.Errorf("the life that ran is %q", texts)
	}
	if texts, _ := s.frames(first.ID); !slices.Equal(texts, []string{"a"}) {
		t.Errorf("the first life is %q", texts)
	}
	p.terminate()
	other := append(slices.Clone(env), "HISTORY_DIR=", "HISTORY_KEY="+otherKey)
	s, p = serving(t, other)
	if list := s.listed(); len(list) != 2 || !list[0].Unreadable || !list[1].Unreadable || list[0].ID != second.ID {
		t.Errorf("with another key: %+v", list)
	}
	if res, _ := s.get("/lives/" + first.ID + ".jsonl"); res.StatusCode != 500 {
		t.Errorf("with another key: %s", res.Status)
	}
	if res, body := s.get("/lives"); res.StatusCode != 200 || !strings.Contains(body, "This life cannot be read.") {
		t.Errorf("with another key: %s, %s", res.Status, body)
	}
	p.terminate()
	s, _ = serving(t, append(other, "HISTORY_KEY_PREVIOUS="+testKey))
	if texts, _ := s.frames(first.ID); !slices.Equal(texts, []string{"a"}) {
		t.Errorf("with both keys: %q", texts)
	}
}

// A life that ends while viewers are held is kept when the server stops, without
// what viewers did not see.
func TestLivesEndWithTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := operable(t, durable(t, filepath.Join(dir, "history"), "LIVES_DIR="+filepath.Join(dir, "lives")))
	s, p := serving(t, env)
	device, viewer := s.publisher(), s.viewer()
	device.publish("a")
	viewer.until("a")
	runVerb(t, 0, env, "hold")
	device.publish("never shown")
	device.send(`{"text":"","id":"again","status":{"is_restarting":true}}`)
	device.await(func(m map[string]any) bool { return m["ack"] == "again" })
	if list := s.listed(); len(list) != 0 {
		t.Errorf("viewers have not seen the end: %+v", list)
	}
	if p.terminate() != 0 {
		t.Error(p.stderr)
	}
	s, _ = serving(t, env)
	list := s.listed()
	if len(list) != 1 {
		t.Fatalf("kept: %+v", list)
	}
	if texts, _ := s.frames(list[0].ID); !slices.Equal(texts, []string{"a"}) {
		t.Errorf("the life is %q", texts)
	}
}

// Each room has its own lives, beside its page.
func TestLivesInRooms(t *testing.T) {
	t.Parallel()
	s := withRooms(t, func(c *config.Config) {
		rooms, devices := c.Rooms, c.Devices
		keepingLives(t, t.TempDir(), nil)(c)
		c.Rooms, c.Devices = rooms, devices
	})
	for _, room := range []string{"pi-1", "pi-2"} {
		device := s.in(room)
		device.authenticate(s.grant(room, "publisher"))
		device.send(`{"text":"of ` + room + `"}`)
		device.send(`{"text":"","status":{"is_restarting":true}}`)
	}
	testkit.Eventually(t, "both lives to be kept", func() bool { return s.srv.Lives.Stats().Lives == 2 })
	var ids []string
	for _, room := range []string{"pi-1", "pi-2"} {
		list := s.srv.Lives.List(room)
		if len(list) != 1 || list[0].Room != room {
			t.Fatalf("%s: %+v", room, list)
		}
		id := list[0].ID
		ids = append(ids, id)
		at := "/r/" + room + "/lives"
		if res, body := s.get(at + "/" + id + ".jsonl"); res.StatusCode != 200 || !strings.Contains(body, "of "+room) {
			t.Errorf("%s: %s, %s", room, res.Status, body)
		}
		if res, body := s.get(at); res.StatusCode != 200 || strings.Count(body, `href="lives/`) != 1 || !strings.Contains(body, `href="lives/`+id) {
			t.Errorf("%s: %s, %s", room, res.Status, body)
		}
		if res, body := s.get(at + "/" + id); res.StatusCode != 200 || !strings.Contains(body, `src="../replay.js"`) {
			t.Errorf("%s: %s", room, res.Status)
		}
		for _, part := range []string{"replay.js", "lives.js", "lives.css", "style.css"} {
			if res, _ := s.get("/r/" + room + "/" + part); res.StatusCode != 200 {
				t.Errorf("%s: %s: %s", room, part, res.Status)
			}
		}
		if _, body := s.get("/r/" + room + "/"); !strings.Contains(body, `<a href="lives">`) {
			t.Errorf("%s: the page does not lead to its lives", room)
		}
	}
	for path, why := range map[string]string{
		"/lives": "there is no conversation without a room", "/lives/" + ids[0]: "there is no conversation without a room",
		"/r/pi-2/lives/" + ids[0]: "a life of another room", "/r/pi-2/lives/" + ids[0] + ".jsonl": "a life of another room",
		"/r/none/lives": "no such room",
	} {
		if res, _ := s.get(path); res.StatusCode != 404 {
			t.Errorf("%s (%s): %s", path, why, res.Status)
		}
	}
	if res, body := s.get("/r/stage/lives"); res.StatusCode != 200 || !strings.Contains(body, "No life has ended yet.") {
		t.Errorf("a room without lives: %s", res.Status)
	}
	if code, out := s.verb("lives"); code != 0 || !strings.Contains(out, "pi-1") || !strings.Contains(out, ids[1]) {
		t.Errorf("%d, %s", code, out)
	}
	if code, out := s.verb("lives", "-room", "pi-1"); code != 0 || !strings.Contains(out, ids[0]) || strings.Contains(out, ids[1]) {
		t.Errorf("of one room: %d, %s", code, out)
	}
	if code, out := s.verb("lives", "-room", "pi-1", "-erase-all"); code != exitUsage || s.srv.Lives.Stats().Lives != 2 {
		t.Errorf("-room and -erase-all: %d, %s", code, out)
	}
}

// Each of several servers keeps the lives that it saw end, without what was
// erased on any of them.
func TestNodesKeepLives(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	node := func() *testSite {
		return start(t, func(c *config.Config) {
			onEngine(t, c, engine.Addr)
			c.LivesDir = t.TempDir()
		})
	}
	a, b := node(), node()
	device := a.publisher()
	device.publish("good ", "bad")
	viewer := b.viewer()
	viewer.until("bad")
	if n, err := b.srv.Relay.Erase(t.Context(), 2); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	device.publish("end")
	viewer.until("end")
	life := a.live(device)
	testkit.Eventually(t, "the other server to keep the life", func() bool { return len(b.listed()) == 1 })
	for _, kept := range []struct {
		s  *testSite
		id string
	}{{a, life.ID}, {b, b.listed()[0].ID}} {
		if texts, _ := kept.s.frames(kept.id); !slices.Equal(texts, []string{"good ", "end"}) {
			t.Errorf("a life is %q", texts)
		}
	}
	if res, _ := b.get("/lives/" + life.ID); res.StatusCode != 404 {
		t.Errorf("the life of the other server: %s", res.Status)
	}
}

// check says what keeps a server from keeping lives, and what to do.
func TestLivesChecked(t *testing.T) {
	dir := t.TempDir()
	file, open := filepath.Join(dir, "file"), filepath.Join(dir, "open")
	if os.WriteFile(file, nil, 0o600) != nil || os.Mkdir(open, 0o700) != nil || os.Chmod(open, 0o777) != nil {
		t.Fatal("no files")
	}
	for _, row := range []struct {
		why, dir, key, says string
		code                int
	}{
		{"as documented", filepath.Join(dir, "lives"), testKey, "Anyone can see them at /lives.", 0},
		{"no key", filepath.Join(dir, "lives"), "-", "HISTORY_KEY is required if LIVES_DIR is set", 1},
		{"a file", file, testKey, "name one, which need not exist", 1},
		{"other files", dir, testKey, "holds other files", 1},
		{"any user may write to it", open, testKey, "set the mode 0700", 1},
	} {
		var out strings.Builder
		env := environment(map[string]string{"LIVES_DIR": row.dir, "HISTORY_KEY": row.key})
		if code := run(t.Context(), []string{"check"}, env, &out, &out); code != row.code || !strings.Contains(out.String(), row.says) {
			t.Errorf("%s: %d, %s", row.why, code, out.String())
		}
	}
	for path, apart := range map[string]bool{dir + "/": false, dir + "/lives": false, dir + "/../lives": true, dir + "-lives": true} {
		_, err := config.Load(environment(map[string]string{"LIVES_DIR": path, "HISTORY_DIR": dir, "HISTORY_KEY": testKey}))
		if (err == nil) != apart || err != nil && !strings.Contains(err.Error(), "must be another directory") {
			t.Errorf("LIVES_DIR %s beside HISTORY_DIR %s: %v", path, dir, err)
		}
	}
}
