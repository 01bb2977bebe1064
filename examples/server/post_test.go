package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// posted is the answer to a request for /publish.
type posted struct {
	Status        int `json:"-"`
	Pos           string
	Duplicate     bool
	Error, Detail string
	header        http.Header
}

func (p posted) String() string {
	return fmt.Sprintf("%d %q %q %v", p.Status, p.Error, p.Detail, p.Duplicate)
}

// post publishes body with token. header replaces or, with "-", removes fields.
func (s *testSite) post(token, body string, header ...string) posted {
	s.t.Helper()
	return s.postTo("/publish", token, body, header...)
}

// postTo is post at another path.
func (s *testSite) postTo(path, token, body string, header ...string) (p posted) {
	s.t.Helper()
	req, err := http.NewRequest("POST", "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i+1] == "-" {
			req.Header.Del(header[i])
		}
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil || res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Cache-Control") != "no-store" {
		s.t.Fatalf("%s: %q (%v) as %q", res.Status, text, err, res.Header.Get("Content-Type"))
	}
	if (res.StatusCode == 202) != (p.Pos != "") || (res.StatusCode == 202) == (p.Error != "") {
		s.t.Errorf("%s: %s", res.Status, text)
	}
	for name := range res.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			s.t.Errorf("%s: %s opens the path to other pages", res.Status, name)
		}
	}
	p.Status, p.header = res.StatusCode, res.Header
	return p
}

func (s *testSite) role(role string) string {
	s.t.Helper()
	token, err := authority.Sign(site.Grants(s.cfg), refresh.Grant{Subject: testDevice, Role: role}, time.Hour, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// What one way publishes, the other knows: viewers, ids and positions.
func TestPost(t *testing.T) {
	s := start(t, crowded)
	token := s.token(testDevice, time.Hour)
	viewer := s.viewer()
	first := s.post(token, `{"text":"a","id":"1"}`)
	if first.Status != 202 || first.Duplicate {
		t.Fatalf("%v", first)
	}
	viewer.until("a")
	if again := s.post(token, `{"text":"a","id":"1"}`); again.Status != 202 || !again.Duplicate {
		t.Errorf("sent again: %v", again)
	}
	device := s.publisher()
	device.send(`{"text":"a","id":"1"}`)
	if m := device.await(func(m map[string]any) bool { return m["ack"] == "1" }); m["duplicate"] != true {
		t.Errorf("sent again over the socket: %v", m)
	}
	device.publish("b")
	if p := s.post(token, `{"text":"c"}`); p.Status != 202 {
		t.Errorf("without an id: %v", p)
	}
	if _, kind, texts := s.resume(first.Pos).position(2); kind != "live" || !slices.Equal(texts, []string{"b", "c"}) {
		t.Errorf("after the position of a message come %q in a %s frame", texts, kind)
	}
	signal := s.post(token, `{"text":"","status":{"is_restarting":true,"num_restarts":1},"id":"2"}`)
	viewer.await(func(m map[string]any) bool {
		messages, _ := m["messages"].([]any)
		return len(messages) == 1 && messages[0].(map[string]any)["status"] != nil
	})
	s.shows()
	if again := s.post(token, `{"text":"a","id":"1"}`); signal.Status != 202 || !again.Duplicate {
		t.Errorf("after a restart signal (%v), the id is answered with %v", signal, again)
	}
	s.post(token, `{"text":"d"}`)
	s.shows("d")
}

func TestPostRefuses(t *testing.T) {
	s := start(t, func(c *config.Config) { crowded(c); production(c); c.Origins = []string{"https://art.example"} })
	token, other := s.token(testDevice, time.Hour), s.role("metrics")
	expired, err := verifier(t, s.cfg).SignAt(wsauth.ClaimSet{Subject: testDevice, ExpiresAt: time.Now().Add(-time.Hour)}, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	const message = `{"text":"a"}`
	for _, row := range []struct {
		why, token, body string
		header           []string
		status           int
		err, detail      string
	}{
		{"no JSON", token, `{"text":`, nil, 400, "Invalid JSON", ""},
		{"no UTF-8", token, "{\"text\":\"\xff\"}", nil, 400, "Invalid JSON", ""},
		{"nested deeply, as over the socket", token, `{"text":"a","x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, nil, 400, "Invalid JSON", ""},
		{"the schema", token, `{"text":1}`, nil, 400, "Invalid message format", "text: must be a string"},
		{"an id that is too long", token, `{"text":"a","id":"` + strings.Repeat("x", 65) + `"}`, nil, 400, "Invalid message format", "id: must have at most 64 characters"},
		{"a token in the body", token, `{"text":"a","token":"x"}`, nil, 400, "Invalid message format", "token: belongs in the header Authorization"},
		{"no token", "", message, nil, 401, "Authentication failed", ""},
		{"a wrong token", "x.y.z", message, nil, 401, "Authentication failed", ""},
		{"an expired token", expired, message, nil, 401, "Authentication failed", ""},
		{"another scheme", token, message, []string{"Authorization", "Basic " + token}, 401, "Authentication failed", ""},
		{"a token that reads metrics", other, message, nil, 403, "Forbidden", "permission to publish"},
		{"a foreign page", token, message, []string{"Origin", "https://evil.example"}, 403, "Forbidden", "another origin"},
		{"a foreign page that hides its origin", token, message, []string{"Sec-Fetch-Site", "cross-site"}, 403, "Forbidden", "another origin"},
		{"more than a message may have", token, `{"text":"` + strings.Repeat("a", relay.MaxMessage) + `"}`, nil, 413, "Message too big", "65536 bytes"},
		{"a form, which any page can send", token, "text=a", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "Unsupported media type", "application/json"},
		{"plain text", token, message, []string{"Content-Type", "text/plain"}, 415, "Unsupported media type", "application/json"},
		{"another encoding", token, message, []string{"Content-Type", "application/json; charset=latin1"}, 415, "Unsupported media type", ""},
		{"compressed", token, message, []string{"Content-Encoding", "gzip"}, 415, "Unsupported media type", "not compressed"},
	} {
		p := s.post(row.token, row.body, row.header...)
		if p.Status != row.status || p.Error != row.err || !strings.Contains(p.Detail, row.detail) || row.detail == "" && p.Detail != "" && row.status != 415 {
			t.Errorf("%s: %d %q %q, want %d %q %q", row.why, p.Status, p.Error, p.Detail, row.status, row.err, row.detail)
		}
		if (p.header.Get("WWW-Authenticate") != "") != (row.status == 401) {
			t.Errorf("%s: %d asks for %q", row.why, p.Status, p.header.Get("WWW-Authenticate"))
		}
	}
	for _, method := range []string{"GET", "PUT", "OPTIONS"} {
		res, body := s.do(method, "/publish", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST")
		if res.StatusCode != 405 || res.Header.Get("Allow") != "POST" || !strings.HasPrefix(body, `{"error":`) || res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %s %v %s", method, res.Status, res.Header, body)
		}
	}
	s.shows()
	for _, origin := range []string{"-", "https://art.example"} {
		if p := s.post(token, message, "Origin", origin, "Content-Type", "application/json; charset=UTF-8"); p.Status != 202 {
			t.Errorf("from %s: %v", origin, p)
		}
	}
	if n := len(s.logs.Events("auth")); n == 0 || !strings.Contains(s.logs.String(), `"outcome":"origin_refused"`) {
		t.Errorf("%d events of the audit, and none of a foreign page", n)
	}
}

// The longest message of the socket is the longest here too.
func TestPostOfTheLongestMessage(t *testing.T) {
	s := start(t, crowded)
	frame := `{"text":""}`
	body := strings.Replace(frame, `""`, `"`+strings.Repeat("a", relay.MaxMessage-len(frame))+`"`, 1)
	if p := s.post(s.token(testDevice, time.Hour), body); p.Status != 202 || len(body) != relay.MaxMessage {
		t.Errorf("%d bytes: %v", len(body), p)
	}
}

// A wrong token counts against its address, and the address is barred from both
// ways. A device that publishes from there is spared.
func TestPostPenalty(t *testing.T) {
	s := start(t, func(c *config.Config) { crowded(c); trustLoopback(c); c.Failures = 10 })
	token := s.token(testDevice, time.Hour)
	guess := func(client string) posted { return s.post("x.y.z", `{"text":"a"}`, from(client)...) }
	for range s.cfg.Failures {
		if p := guess("192.0.2.7"); p.Status != 401 {
			t.Fatalf("a guess: %v", p)
		}
	}
	p := s.post(token, `{"text":"a"}`, from("192.0.2.7")...)
	if p.Status != 403 || !strings.Contains(p.Detail, "address") || !s.barred("192.0.2.7") {
		t.Errorf("after ten guesses, the right token is answered %v", p)
	}
	if p := s.post(token, `{"text":"a"}`, from("192.0.2.8")...); p.Status != 202 {
		t.Errorf("at another address: %v", p)
	}
	for range 2 * s.cfg.Failures {
		guess("192.0.2.8")
	}
	if p := s.post(token, `{"text":"a"}`, from("192.0.2.8")...); p.Status != 202 {
		t.Errorf("guesses behind the address of a device bar the device: %v", p)
	}
	s.must("block", "192.0.2.8")
	if p := s.post(token, `{"text":"a"}`, from("192.0.2.8")...); p.Status != 403 {
		t.Errorf("from a blocked address: %v", p)
	}
}

// All requests of a device are one session, which the operator sees, ends and
// revokes like any other.
func TestPostIsASession(t *testing.T) {
	s := start(t, crowded)
	token := s.token(testDevice, time.Hour)
	for i := range 50 {
		if p := s.post(token, fmt.Sprintf(`{"text":"%d"}`, i)); p.Status != 202 {
			t.Fatalf("%v", p)
		}
	}
	// A new token changes the session's no more than on the socket.
	if p := s.post(s.token(testDevice, 2*time.Hour), `{"text":"a"}`); p.Status != 202 {
		t.Fatalf("%v", p)
	}
	if n := strings.Count(s.logs.String(), `"outcome":"authenticated"`); n != 1 {
		t.Errorf("51 messages are %d events of the audit", n)
	}
	var sessions []operate.Session
	if code, out := s.verb("sessions", "-json"); code != 0 || json.Unmarshal([]byte(out), &sessions) != nil || len(sessions) != 1 || sessions[0].Device != testDevice {
		t.Fatalf("the sessions are %s", out)
	}
	s.must("sessions", "-end", sessions[0].ID)
	if p := s.post(token, `{"text":"b"}`); p.Status != 409 || !strings.Contains(p.Detail, "ended") {
		t.Errorf("after the operator has ended the session: %v", p)
	}

	other := start(t, crowded)
	if p := other.post(token, `{"text":"a"}`); p.Status != 202 {
		t.Fatalf("%v", p)
	}
	if out := other.must("revoke", testDevice); !strings.Contains(out, "1 sessions") {
		t.Errorf("the revocation says %s", out)
	}
	if p := other.post(token, `{"text":"b"}`); p.Status != 401 {
		t.Errorf("with a revoked token: %v", p)
	}
	other.shows("a")
	later, err := verifier(t, other.cfg).SignAt(wsauth.ClaimSet{Subject: testDevice, ExpiresAt: time.Now().Add(time.Hour)}, time.Now().Add(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if p := other.post(later, `{"text":"c"}`); p.Status != 202 {
		t.Errorf("with a token of after the revocation: %v", p)
	}
}

// DEVICE_SESSIONS bounds both ways together.
func TestPostObeysDeviceSessions(t *testing.T) {
	s := start(t, func(c *config.Config) { crowded(c); c.DeviceSessions = 1 })
	token := s.token(testDevice, time.Hour)
	device := s.publisher()
	if p := s.post(token, `{"text":"a"}`); p.Status != 409 || !strings.Contains(p.Detail, "as many connections") {
		t.Errorf("beside a connection: %v", p)
	}
	s.shows()
	device.leave()
	testkit.Eventually(t, "the place is free", func() bool { return s.post(token, `{"text":"b"}`).Status == 202 })
	if p := s.post(s.token(testDevice, 2*time.Hour), `{"text":"c"}`); p.Status != 202 {
		t.Errorf("with the next token of the same device: %v", p)
	}
	late := s.viewer()
	late.send(`{"token":"` + token + `"}`)
	if _, code := late.end(); code != 4401 {
		t.Errorf("a connection beside the requests ends with %d, want 4401", code)
	}

	replacing := start(t, func(c *config.Config) { crowded(c); c.DeviceSessions, c.OverSessions = 1, wsauth.OverLimitReplace })
	if p := replacing.post(token, `{"text":"a"}`); p.Status != 202 {
		t.Errorf("%v", p)
	}
	newer := replacing.publisher()
	if p := replacing.post(token, `{"text":"b"}`); p.Status != 409 || !strings.Contains(p.Detail, "newer connection") {
		t.Errorf("after a newer connection: %v", p)
	}
	newer.publish("c") // is not replaced in turn
	replacing.shows("a", "c")
}

func TestPostIsLimited(t *testing.T) {
	s := start(t, func(c *config.Config) { crowded(c); c.PublishRate, c.PublishBurst = 1.0/3600, 5 })
	token := s.token(testDevice, time.Hour)
	var wait sync.WaitGroup
	answers := make(chan posted, 20)
	for range cap(answers) {
		wait.Go(func() { answers <- s.post(token, `{"text":"a"}`) })
	}
	wait.Wait()
	close(answers)
	count := map[int]int{}
	for p := range answers {
		count[p.Status]++
		if seconds, err := strconv.Atoi(p.header.Get("Retry-After")); p.Status == 429 && (err != nil || seconds < 1) {
			t.Errorf("429 with Retry-After %q", p.header.Get("Retry-After"))
		}
	}
	if count[202] != 5 || count[429] != 15 {
		t.Errorf("20 messages with a burst of 5 are answered %v", count)
	}
	s.shows("a", "a", "a", "a", "a")
}

// Several servers that share an engine take each message once, also if its
// token is revoked at the other, and say so while the engine is away.
func TestNodesTakePosts(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	a, b := readyNode(t, engine.Addr), readyNode(t, engine.Addr)
	token := a.token(testDevice, time.Hour)
	viewer := b.viewer()
	first := a.post(token, `{"text":"a","id":"1"}`)
	again := b.post(token, `{"text":"a","id":"1"}`)
	if first.Status != 202 || first.Duplicate || again.Status != 202 || !again.Duplicate {
		t.Errorf("%v, and on the other server %v", first, again)
	}
	viewer.until("a")
	if p := b.post(token, `{"text":"b","id":"2"}`); p.Status != 202 {
		t.Errorf("%v", p)
	}
	if _, kind, texts := b.resume(first.Pos).position(1); kind != "live" || !slices.Equal(texts, []string{"b"}) {
		t.Errorf("on the other server, after the position come %q in a %s frame", texts, kind)
	}
	testkit.Eventually(t, "each knows the sessions of the other", func() bool {
		var sessions []operate.Session
		list, _ := a.verb(0, "sessions", "-json")
		return json.Unmarshal([]byte(list), &sessions) == nil && len(sessions) == 2
	})

	engine.Pause()
	p := a.post(token, `{"text":"c","id":"3"}`)
	if p.Status != 503 || p.header.Get("Retry-After") == "" {
		t.Errorf("while the engine is away: %v", p)
	}
	engine.Continue()
	testkit.Eventually(t, "the message is taken", func() bool {
		p = b.post(token, `{"text":"c","id":"3"}`)
		return p.Status == 202
	})
	viewer.until("c")
	a.shows("a", "b", "c")

	b.verb(0, "revoke", testDevice)
	testkit.Eventually(t, "the revocation is in force on the other server", func() bool { return a.post(token, `{"text":"d","id":"4"}`).Status == 401 })
}

// A server that waits for its engine, or stops, says so.
func TestPostBeforeTheEngine(t *testing.T) {
	n := newNode(t, "127.0.0.1:"+freePort(t)).run().is(503, "starting")
	if p := n.post("x", `{"text":"a"}`); p.Status != 503 || p.header.Get("Retry-After") == "" || !strings.Contains(p.Detail, "starting") {
		t.Errorf("%v", p)
	}
}
