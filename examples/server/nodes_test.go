package main

//lint:file-ignore SA1019 see harness_test.go

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/internal/redistest"
)

// node is one of several servers on one engine, as a process.
type node struct {
	*testSite
	env []string
	op  operated
	p   *process
}

// newNode returns a node that does not run yet.
func newNode(t *testing.T, engine string, more ...string) *node {
	t.Helper()
	port, op := freePort(t), freePort(t)
	n := &node{env: append([]string{
		"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "RATE_LIMIT_CONNECTIONS=10000", "UPGRADES_PER_SECOND=0",
		"REDIS_URL=redis://" + engine, "HISTORY_KEY=" + testKey, "PORT=" + port, "OPERATOR_ADDR=127.0.0.1:" + op,
	}, more...)}
	n.testSite = &testSite{t: t, addr: "127.0.0.1:" + port, cfg: testConfig(t)}
	n.op = operatorAt(&testSite{t: t, addr: "127.0.0.1:" + op, cfg: n.cfg})
	return n
}

// run starts the node, and waits until it listens.
func (n *node) run() *node {
	n.t.Helper()
	n.p = launch(n.t, true, n.t.TempDir(), n.env)
	return n
}

// is waits until /readyz answers with this status and text.
func (n *node) is(status int, text string) *node {
	n.t.Helper()
	testkit.Eventually(n.t, "/readyz says "+text, func() bool {
		res, body := n.get("/readyz")
		return res.StatusCode == status && body == text+"\n"
	})
	return n
}

// verb runs a command with the environment of the node.
func (n *node) verb(code int, args ...string) (stdout, stderr string) {
	n.t.Helper()
	env := envcheck.FromMap(nil)
	for _, v := range n.env {
		name, value, _ := strings.Cut(v, "=")
		env = envcheck.Chain(envcheck.FromMap(map[string]string{name: value}), env)
	}
	var out, errs bytes.Buffer
	if got := run(n.t.Context(), args, env, &out, &errs); got != code {
		n.t.Errorf("%q: exit code %d, want %d:\n%s%s", args, got, code, &out, &errs)
	}
	return out.String(), errs.String()
}

func readyNode(t *testing.T, engine string, more ...string) *node {
	t.Helper()
	return newNode(t, engine, more...).run().is(200, "ready")
}

// Two servers on one engine show the same history, take each message once, and
// clear it for the viewers of both.
func TestNodesShareTheHistory(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		engine := e.Start(t)
		a, b := readyNode(t, engine.Addr), readyNode(t, engine.Addr)
		viewer := b.viewer()
		first := a.publisher()
		first.publish("a", "b")
		first.cut()
		pos, _, texts := viewer.position(2)
		if !slices.Equal(texts, []string{"a", "b"}) {
			t.Errorf("the viewer on the other node got %q", texts)
		}
		device := b.publisher()
		device.publish("b", "c") // b is sent again, to the other node
		if _, kind, texts := a.resume(pos).position(1); kind != "live" || !slices.Equal(texts, []string{"c"}) {
			t.Errorf("the viewer that changed the node got %q in a %s frame, want only c, live", texts, kind)
		}
		a.shows("a", "b", "c")
		viewer.until("c")

		// The operator's calls on one node are in force on both.
		entries, _ := b.verb(0, "export")
		if strings.Count(entries, `"seq":`) != 3 {
			t.Errorf("the export holds\n%s", entries)
		}
		a.verb(0, "erase", "2")
		if texts, kinds := viewer.texts(2); !slices.Equal(texts, []string{"a", "c"}) || kinds[0] != "history" {
			t.Errorf("after the erasure on the other node, the viewer got %q in %q", texts, kinds)
		}
		a.verb(0, "erase", "-all")
		viewer.await(func(m map[string]any) bool { return m["type"] == "history" && len(m["messages"].([]any)) == 0 })
		b.shows()
		device.publish("d")
		a.shows("d")

		// Nothing that the engine keeps can be read.
		if dump := string(engine.Dump()); strings.Contains(dump, `"text"`) || !strings.Contains(dump, "{relay:history}:log") {
			t.Error("the engine's dump holds a message in clear, or no history")
		}
		viewer.cut()
		device.cut()
		a.p.terminate()
		b.p.terminate()
		for _, n := range []*node{a, b} {
			for _, secret := range []string{testKey, testSecret, "redis://"} {
				if strings.Contains(n.p.stderr.String(), secret) {
					t.Errorf("a log holds %q", secret)
				}
			}
		}

		// The commands work on the engine if no server runs.
		if entries, _ := a.verb(0, "export"); strings.Count(entries, `"seq":`) != 1 {
			t.Errorf("without a server, the export holds\n%s", entries)
		}
		a.verb(0, "erase", "-all")
		a.run().is(200, "ready").shows()
	})
}

// The devices' permissions are the same on all servers: sessions, revocations,
// and pairs of tokens, also after a restart and a change of HISTORY_KEY.
func TestNodesShareTheAuthority(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	a := readyNode(t, engine.Addr, "NODE_NAME=node-a", "DEVICE_SESSIONS=1", "DEVICE_SESSIONS_OVER=replace")
	b := readyNode(t, engine.Addr, "NODE_NAME=node-b", "DEVICE_SESSIONS=1", "DEVICE_SESSIONS_OVER=replace")
	testkit.Eventually(t, "each knows of the other", func() bool {
		return a.op.metric("relayguard_engine_nodes") == 2 && b.op.metric("relayguard_engine_nodes") == 2
	})

	// One session of the device on all servers.
	first := a.publisher()
	first.publish("a")
	second := b.publisher()
	if _, code := first.end(); code != 4409 {
		t.Errorf("the session on the other node ended with %d, want 4409", code)
	}
	second.publish("b")
	list, _ := a.verb(0, "sessions", "-json")
	var sessions []operate.Session
	if err := json.Unmarshal([]byte(list), &sessions); err != nil || len(sessions) != 1 || sessions[0].Node != "node-b" {
		t.Fatalf("the sessions are %s (%v), want one on node-b", list, err)
	}
	a.verb(0, "sessions", "-end", sessions[0].ID)
	if _, code := second.end(); code < 1000 {
		t.Error("the session was not ended from the other node")
	}

	// A pair is good on every server, and a revocation is in force on all.
	text, _ := a.verb(0, "token", "-pair")
	var pair struct {
		Token        string `json:"token"`
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal([]byte(text), &pair); err != nil {
		t.Fatal(err)
	}
	status, token, next := b.refresh(pair.RefreshToken)
	if status != 200 {
		t.Fatalf("the pair is refreshed with %d", status)
	}
	device := a.viewer()
	device.authenticate(token)
	device.publish("c")
	if told, _ := b.verb(0, "revoke", testDevice); !strings.Contains(told, "1 sessions and 1 families") || strings.Contains(told, "AUTH_DIR") {
		t.Errorf("the revocation says %q", told)
	}
	device.await(func(m map[string]any) bool { return m["status"] == "viewer" })
	if status, _, _ := a.refresh(next); status != 401 {
		t.Errorf("a token of the revoked family is refreshed with %d", status)
	}
	text, _ = b.verb(0, "token", "-pair")
	if err := json.Unmarshal([]byte(text), &pair); err != nil {
		t.Fatal(err)
	}
	device.cut()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, told := a.verb(1, "token", "-check", file); !strings.Contains(told, "it is revoked") {
		t.Errorf("the check of the revoked token says %q", told)
	}

	// Also for a server with another key, which was changed as documented.
	c := readyNode(t, engine.Addr, "HISTORY_KEY="+otherKey, "HISTORY_KEY_PREVIOUS="+testKey)
	stranger := c.viewer()
	stranger.send(`{"token":"` + token + `"}`)
	// A server that has just started may accept the token before it knows the
	// revocations, but authorizes nothing until then.
	for refused := false; !refused; {
		m, err := stranger.next()
		if err != nil && websocket.CloseStatus(err) != 4401 {
			t.Fatalf("a revoked token is let in after a restart, or ends with %v, want 4401:\n%s", err, c.p.stderr)
		}
		refused = err != nil || m["status"] == "viewer"
	}
	if status, _, _ := c.refresh(pair.RefreshToken); status != 200 {
		t.Errorf("after the change of the key, the pair is refreshed with %d", status)
	}
	if dump := string(engine.Dump()); strings.Contains(dump, testDevice) || strings.Contains(dump, "127.0.0.1") {
		t.Error("the engine's dump holds a device or an address in clear")
	}
}

// Clients, blocks and penalties count on all servers together.
func TestNodesShareTheLimits(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	env := []string{"RATE_LIMIT_CONNECTIONS=6", "RATE_LIMIT_WINDOW=1h", "TRUSTED_PROXIES=none"}
	a, b := readyNode(t, engine.Addr, env...), readyNode(t, engine.Addr, env...)
	viewers := []*peer{a.viewer(), a.viewer(), a.viewer(), b.viewer(), b.viewer(), b.viewer()}
	for _, n := range []*node{a, b} {
		if p, res := connect(t, n.addr); p != nil || res.StatusCode != 429 {
			t.Errorf("a seventh connection is let in at %s", n.addr)
		}
	}
	viewers[0].cut()
	testkit.Eventually(t, "the place on the other server is free", func() bool {
		p, _ := connect(t, b.addr)
		if p != nil {
			viewers[0] = p
		}
		return p != nil
	})

	a.verb(0, "block", "127.0.0.1")
	for i, v := range viewers {
		if _, code := v.end(); code != 1008 {
			t.Errorf("viewer %d ended with %d, want 1008", i, code)
		}
	}
	if p, res := connect(t, b.addr); p != nil || res.StatusCode != 403 {
		t.Error("a blocked viewer is let in at the other server")
	}
	if list, _ := b.verb(0, "blocks", "-json"); !strings.Contains(list, `"127.0.0.1/32"`) || !strings.Contains(list, `"lasting": true`) {
		t.Errorf("the other server lists %s", list)
	}
	b.verb(0, "unblock", "127.0.0.1")
	testkit.Eventually(t, "the block has ended", func() bool {
		p, _ := connect(t, a.addr)
		return p != nil
	})
	if dump := string(engine.Dump()); strings.Contains(dump, "127.0.0.1") {
		t.Error("the engine's dump holds an address in clear")
	}
}

// Wrong tokens at all servers count together, but not while a device publishes
// from the same address, at any of them.
func TestNodesShareThePenalties(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	a, b := readyNode(t, engine.Addr), readyNode(t, engine.Addr)
	guess := func(n *node) {
		t.Helper()
		stranger := n.viewer()
		stranger.send(`{"token":"no token"}`)
		if _, code := stranger.end(); code != 4401 {
			t.Errorf("a wrong token ends with %d, want 4401", code)
		}
	}
	device := a.publisher()
	for range 6 {
		guess(a)
		guess(b)
	}
	device.cut()
	testkit.Eventually(t, "no session is left", func() bool {
		list, _ := b.verb(0, "sessions", "-json")
		return strings.TrimSpace(list) == "[]"
	})
	if list, _ := a.verb(0, "blocks", "-json"); strings.TrimSpace(list) != "[]" {
		t.Errorf("the device's address is barred: %s", list)
	}
	// The addresses of sessions are known for a second.
	testkit.Eventually(t, "barred on both servers", func() bool {
		guess(a)
		guess(b)
		list, _ := a.verb(0, "blocks", "-json")
		other, _ := b.verb(0, "blocks", "-json")
		return strings.Contains(list, `"tokens": true`) && strings.Contains(other, `"tokens": true`)
	})
	if dump := string(engine.Dump()); strings.Contains(dump, "127.0.0.1") {
		t.Error("the engine's dump holds an address in clear")
	}
}

// A server with another key than the others ends with a clear error, and a key
// is changed by the two variables.
func TestNodeWithAnotherKey(t *testing.T) {
	engine := redistest.Start(t)
	a := readyNode(t, engine.Addr)
	a.publisher().publish("a")

	wrong := newNode(t, engine.Addr, "HISTORY_KEY="+otherKey).run()
	if code := wrong.p.wait(); code != 1 || !strings.Contains(wrong.p.stderr.String(), "HISTORY_KEY does not open the history in the engine: set HISTORY_KEY to") {
		t.Errorf("exit code %d, want 1:\n%s", code, wrong.p.stderr)
	}
	b := readyNode(t, engine.Addr, "HISTORY_KEY="+otherKey, "HISTORY_KEY_PREVIOUS="+testKey)
	b.shows("a")

	// The new key is in use as soon as everything is erased. The server that
	// lacks it goes on from memory, and says why.
	b.verb(0, "erase", "-all")
	b.publisher().publish("b")
	a.is(200, "degraded: engine")
	testkit.Eventually(t, "the reason is logged", func() bool {
		return len(a.p.stderr.Events("another server has encrypted the history with a key that this one lacks; viewers are served from memory, and publishers wait")) == 1
	})
}

// A server starts without its engine. It says so until it has the history, and
// shows no empty history meanwhile.
func TestNodeStartsBeforeItsEngine(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t, "--appendonly", "yes")
	n := readyNode(t, engine.Addr)
	device := n.publisher()
	device.publish("a")
	device.cut()
	n.p.terminate()
	engine.Kill()

	n.run().is(503, "starting")
	if p, res := connect(t, n.addr); p != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Error("a viewer is let in without a history")
	}
	if res, page := n.get("/"); res.StatusCode != 200 || !strings.Contains(page, "<html") || res.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("the page is answered %s", res.Status)
	}
	if res, _ := n.op.call("DELETE", "/history"); res.StatusCode != 503 {
		t.Errorf("a call of the operator is answered %s", res.Status)
	}
	if _, told := n.verb(1, "health"); !strings.Contains(told, "starting") {
		t.Errorf("server health: %s", told)
	}
	if out, _ := n.verb(0, "check"); !strings.Contains(out, "WARNING: the engine of REDIS_URL cannot be used now") {
		t.Errorf("server check:\n%s", out)
	}
	engine.Restart()
	n.is(200, "ready").shows("a")
	if told := n.p.stderr.Events("the engine cannot be used yet; the server waits for it"); len(told) == 0 || len(told) > 3 {
		t.Errorf("the wait is logged %d times:\n%s", len(told), n.p.stderr)
	}

	// It also ends while it waits.
	n.p.terminate()
	engine.Kill()
	if code := n.run().is(503, "starting").p.terminate(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, n.p.stderr)
	}
}

// While the engine is away, viewers are served from memory, also new ones, and
// publishers wait. Nothing is lost, and nothing comes twice.
func TestEngineAway(t *testing.T) {
	t.Parallel()
	const away, back = "the engine is away; viewers are served from memory, and publishers wait", "the engine is back"
	engine := redistest.Start(t)
	s := start(t, func(c *config.Config) { onEngine(t, c, engine.Addr); c.EnginePatience = testkit.Patience })
	viewer, device := s.viewer(), s.publisher()
	device.publish("a")
	viewer.texts(1)
	op := s.operator()
	if got := op.metric("relayguard_engine_away"); got != 0 {
		t.Errorf("relayguard_engine_away is %v before", got)
	}

	engine.Pause()
	device.send(`{"text":"b","id":"b"}`)
	s.readyz(200, "degraded: engine")
	s.shows("a")
	if got := op.metric("relayguard_engine_away"); got != 1 {
		t.Errorf("relayguard_engine_away is %v meanwhile", got)
	}
	if res, told := op.call("DELETE", "/history"); res.StatusCode != 500 || !strings.Contains(told, "engine") {
		t.Errorf("clearing is answered %s %q", res.Status, told)
	}
	engine.Continue()
	device.await(func(m map[string]any) bool { return m["ack"] == "b" })
	s.readyz(200, "ready")
	device.publish("c")
	viewer.until("c")
	s.stop()
	if n, m := len(s.logs.Events(away)), len(s.logs.Events(back)); n != 1 || m != 1 {
		t.Errorf("the outage is logged %d times and its end %d times, want each once:\n%s", n, m, s.logs)
	}
}

// A publisher whose message cannot be stored for too long is told so, and what
// it has not seen acknowledged is stored once when it comes back.
func TestEngineAwayForLong(t *testing.T) {
	engine := redistest.Start(t)
	s := start(t, func(c *config.Config) { onEngine(t, c, engine.Addr); c.EnginePatience = 300 * time.Millisecond })
	device := s.publisher()
	device.publish("a")
	engine.Pause()
	device.send(`{"text":"b","id":"b"}`)
	if got, code := device.end(); code != 1013 {
		t.Errorf("the publisher got %v and code %d, want 1013", got, code)
	}
	engine.Continue()
	s.readyz(200, "ready")
	s.publisher().publish("b", "c")
	s.shows("a", "b", "c")
}

// onEngine changes the configuration to that of a server on an engine, which
// notices failures soon.
func onEngine(t *testing.T, c *config.Config, addr string) {
	t.Helper()
	env := environment(map[string]string{"REDIS_URL": "redis://" + addr, "HISTORY_KEY": testKey, "RATE_LIMIT_CONNECTIONS": "1000"})
	with, err := config.Load(env)
	if err != nil {
		t.Fatal(err)
	}
	*c = with
	c.EngineCheck, c.EngineTimeout = 200*time.Millisecond, 300*time.Millisecond
}

// readyz waits until /readyz answers with this status and text.
func (s *testSite) readyz(status int, text string) {
	s.t.Helper()
	(&node{testSite: s}).is(status, text)
}
