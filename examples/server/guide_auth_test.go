package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
)

const authFailed = `{"error":"Authentication failed"}`

func claims(device string, exp time.Time) string {
	return fmt.Sprintf(`{"device":%q,"exp":%d}`, device, exp.Unix())
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

// badTokens returns a bad token for each way in which a token can be bad.
func badTokens() map[string]string {
	soon := time.Now().Add(time.Hour)
	good := testkit.Forge(testSecret, hs256, claims(testDevice, soon))
	mac512 := hmac.New(sha512.New, []byte(testSecret))
	part := base64.RawURLEncoding.EncodeToString
	signed512 := part([]byte(`{"alg":"HS512"}`)) + "." + part([]byte(claims(testDevice, soon)))
	mac512.Write([]byte(signed512))
	return map[string]string{
		"unknown device": testkit.Forge(testSecret, hs256, claims("pi-2", soon)),
		"bad signature":  testkit.Forge(strings.ToLower(testSecret), hs256, claims(testDevice, soon)),
		"expired":        testkit.Forge(testSecret, hs256, claims(testDevice, time.Now().Add(-time.Hour))),
		"malformed":      "not.a.token",
		"empty":          "",
		"no expiry":      testkit.Forge(testSecret, hs256, `{"device":"pi-1"}`),
		"never expires":  testkit.Forge(testSecret, hs256, `{"device":"pi-1","exp":0}`),
		"no device":      testkit.Forge(testSecret, hs256, fmt.Sprintf(`{"exp":%d}`, soon.Unix())),
		"device list":    testkit.Forge(testSecret, hs256, fmt.Sprintf(`{"device":["pi-1"],"exp":%d}`, soon.Unix())),
		"twice":          testkit.Forge(testSecret, hs256, fmt.Sprintf(`{"device":"pi-2","device":"pi-1","exp":%d}`, soon.Unix())),
		"not yet":        testkit.Forge(testSecret, hs256, fmt.Sprintf(`{"device":"pi-1","exp":%d,"nbf":%d}`, soon.Unix(), time.Now().Add(30*time.Minute).Unix())),
		"none":           part([]byte(`{"alg":"none"}`)) + "." + part([]byte(claims(testDevice, soon))) + ".",
		"none, signed":   testkit.Forge(testSecret, `{"alg":"none"}`, claims(testDevice, soon)),
		"lies HS512":     testkit.Forge(testSecret, `{"alg":"HS512"}`, claims(testDevice, soon)),
		"real HS512":     signed512 + "." + part(mac512.Sum(nil)),
		"no algorithm":   testkit.Forge(testSecret, `{"typ":"JWT"}`, claims(testDevice, soon)),
		"critical":       testkit.Forge(testSecret, `{"alg":"HS256","crit":["exp"],"exp":1}`, claims(testDevice, soon)),
		"padded":         good + "=",
		"newline":        good[:len(good)-5] + `\n` + good[len(good)-5:],
		"four parts":     good + ".x",
	}
}

// answerTo returns every byte of the server's answer to a first message.
func answerTo(t *testing.T, s *testSite, message string) []byte {
	t.Helper()
	c := upgraded(t, s.addr)
	defer c.conn.Close()
	c.write(clientFrame(finText, []byte(message)))
	return c.rest()
}

// crowded raises the limits, so that one address can act as many.
func crowded(c *config.Config) { c.RateConnections, c.Failures = 1000, 1_000_000 }

func guideSameAnswer(t *testing.T) {
	s := start(t, crowded)
	var want []byte
	for name, token := range badTokens() {
		got := answerTo(t, s, `{"token":"`+token+`"}`)
		if want == nil {
			want = got
			messages, code := parse(t, got)
			if code != 4401 || !slices.Equal(messages, []string{authFailed}) {
				t.Fatalf("%s: got %q and code %d, want %s and 4401", name, messages, code, authFailed)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: answered %q, others %q", name, got, want)
		}
	}
}

func guideNoSecretInLogs(t *testing.T) {
	const canary = "the-canary-sang-6629"
	s := start(t, func(c *config.Config) { crowded(c); c.Production = true })
	good := s.token(testDevice, time.Hour)
	p, _ := connectTo(t, "ws://"+s.addr+"/ws?token="+good+"&since="+canary, "Authorization", "Bearer "+good, "Cookie", canary)
	p.authenticate(good)
	p.send(`{"text":"` + canary + `","prompt":"` + canary + `","id":"` + canary + `"}`)
	p.texts(1)
	p.send(`{"text":"` + canary + `","prompt":7}`)
	p.await(func(m map[string]any) bool { return m["error"] != nil })
	p.send(`{"` + canary + `":`)
	p.end()
	said := []string{good, testSecret, canary}
	for _, token := range badTokens() {
		answerTo(t, s, `{"token":"`+token+`","text":"`+canary+`"}`)
		if len(token) > 16 {
			said = append(said, token, token[len(token)-16:])
		}
	}
	connect(t, s.addr, "Origin", "https://evil.example", "Authorization", "Bearer "+good, "Cookie", canary)
	s.get("/"+canary, "Authorization", canary)
	c := upgraded(t, s.addr)
	c.write(clientFrame(finClose, append([]byte{0x03, 0xe8}, canary...)))
	c.rest()
	testkit.Eventually(t, "all ended", func() bool { return s.srv.Relay.Len() == 0 })
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	logs := s.logs.String()
	written := len(s.logs.Events("auth"))
	for _, e := range s.logs.Events("lines were left out") {
		written += int(e["suppressed"].(float64))
	}
	if written < len(badTokens()) {
		t.Errorf("the log holds too little for this test to mean anything:\n%s", logs)
	}
	for _, secret := range said {
		if strings.Contains(logs, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestGuessingIsBarred sends wrong tokens from one address until the server
// reads no more of them.
func TestGuessingIsBarred(t *testing.T) {
	s := start(t, func(c *config.Config) { trustLoopback(c); c.RateConnections = 100 })
	for range s.cfg.Failures {
		s.refuse("192.0.2.1")
	}
	if !s.barred("192.0.2.1") {
		t.Error("guesses are still read")
	}
	if len(s.logs.Events("address barred from sending tokens")) != 1 {
		t.Error("that is not logged once")
	}
	if s.barred("192.0.2.2") {
		t.Error("another address is barred, too")
	}
}

func guideTokenToPublish(t *testing.T) {
	s := start(t, nil)
	watcher := s.viewer()
	for _, first := range []string{`{"text":"stolen"}`, `{}`, `{"token":null,"text":"stolen"}`} {
		messages, code := parse(t, answerTo(t, s, first))
		if code != 4401 || !slices.Equal(messages, []string{authFailed}) {
			t.Errorf("%s: got %q and %d, want %s and 4401", first, messages, code, authFailed)
		}
	}
	s.publisher().send(`{"text":"allowed"}`)
	if texts, _ := watcher.texts(1); texts[0] != "allowed" {
		t.Errorf("a viewer without a token saw %q first", texts)
	}
}

func guideDeviceList(t *testing.T) {
	s := start(t, func(c *config.Config) { c.Devices = []string{"pi-1", "pi-2"} })
	for _, device := range []string{"pi-1", "pi-2"} {
		s.viewer().authenticate(testkit.Forge(testSecret, hs256, claims(device, time.Now().Add(time.Hour))))
	}
	for _, device := range []string{"pi-3", "pi-1,pi-2", "PI-1", "pi-1 ", ""} {
		token := testkit.Forge(testSecret, hs256, claims(device, time.Now().Add(time.Hour)))
		if _, code := parse(t, answerTo(t, s, `{"token":"`+token+`"}`)); code != 4401 {
			t.Errorf("device %q: code %d, want 4401", device, code)
		}
	}
}

func guideAlgorithm(t *testing.T) {
	s := start(t, crowded)
	bad := badTokens()
	for _, name := range []string{"none", "none, signed", "lies HS512", "real HS512", "no algorithm", "critical"} {
		if _, code := parse(t, answerTo(t, s, `{"token":"`+bad[name]+`"}`)); code != 4401 {
			t.Errorf("%s: code %d, want 4401", name, code)
		}
	}
	// This is the JSON serialization of a token that is valid in its compact
	// form.
	parts := strings.Split(s.token(testDevice, time.Hour), ".")
	flat, _ := json.Marshal(map[string]string{"protected": parts[0], "payload": parts[1], "signature": parts[2]})
	quoted, _ := json.Marshal(string(flat))
	for _, message := range []string{`{"token":` + string(flat) + `}`, `{"token":` + string(quoted) + `}`} {
		if _, code := parse(t, answerTo(t, s, message)); code != 4401 {
			t.Errorf("%s: code %d, want 4401", message, code)
		}
	}
	s.viewer().authenticate(testkit.Forge(testSecret, hs256, claims(testDevice, time.Now().Add(time.Hour))))
}

func guideStatePerConnection(t *testing.T) {
	s := start(t, crowded)
	s.publisher()
	if _, code := parse(t, answerTo(t, s, `{"text":"with another's permission"}`)); code != 4401 {
		t.Errorf("a second connection published on the first one's token: code %d", code)
	}
	// A refused peer is disconnected even if it reads nothing and answers
	// nothing.
	for name, after := range map[string][]byte{
		"answers no close":   nil,
		"stalls in a header": {finText},
		"goes on sending":    bytes.Repeat(clientFrame(finText, []byte(`{"text":"x"}`)), 20),
	} {
		c := upgraded(t, s.addr)
		c.mute = true
		c.write(clientFrame(finText, []byte(`{"token":"bad"}`)))
		_, _ = c.conn.Write(after)
		messages, code := parse(t, c.rest())
		if code != 0 && code != 4401 || len(messages) > 1 {
			t.Errorf("%s: got %q and %d", name, messages, code)
		}
	}
	testkit.Eventually(t, "only the publisher is left", func() bool { return s.srv.Relay.Len() == 1 })
}

func guideSchema(t *testing.T) {
	s := start(t, nil)
	p, watcher := s.publisher(), s.viewer()
	for _, row := range []struct{ message, detail string }{
		{`{}`, "text: is required"},
		{`{"text":null}`, "text: must be a string"},
		{`{"text":"a","memory":{"available_mb":"1","percent_used":2,"total_mb":3}}`, "memory.available_mb: must be a number"},
		{`{"text":"a","status":{"is_restarting":1}}`, "status.is_restarting: must be true or false"},
		{`["text"]`, "message: must be an object"},
	} {
		p.send(row.message)
		m := p.await(func(m map[string]any) bool { return m["error"] != nil })
		if m["error"] != "Invalid message format" || m["detail"] != row.detail {
			t.Errorf("%s: got %v, want detail %q", row.message, m, row.detail)
		}
	}
	p.send(`{"text":"good"}`)
	if texts, _ := watcher.texts(1); texts[0] != "good" {
		t.Errorf("a refused message was published: %q", texts)
	}
}

func guideExpiry(t *testing.T) {
	s := start(t, nil)
	if _, code := parse(t, answerTo(t, s, `{"token":"`+badTokens()["expired"]+`"}`)); code != 4401 {
		t.Errorf("at the handshake: code %d, want 4401", code)
	}
	watcher := s.viewer()
	p := s.viewer()
	exp := time.Now().Add(5 * time.Second) // a slow machine must publish before that
	p.authenticate(testkit.Forge(testSecret, hs256, claims(testDevice, exp)))
	p.send(`{"text":"in time"}`)
	watcher.texts(1)
	<-time.After(time.Until(time.Unix(exp.Unix(), 0).Add(time.Millisecond)))
	p.send(`{"text":"too late"}`)
	p.await(func(m map[string]any) bool { return m["status"] == "viewer" })
	// Neither a viewer nor a closed connection can publish.
	s.publisher().send(`{"text":"next"}`)
	if texts, _ := watcher.texts(1); texts[0] != "next" {
		t.Errorf("published after its token expired: %q", texts)
	}
}

func guideNothingHeld(t *testing.T) {
	s := start(t, func(c *config.Config) { c.RateConnections = 3; c.MaxAttempts = 1000 })
	open := func() int { return s.srv.Watch.Limiter().Stats().Open }
	for name, leave := range map[string]func(){
		"failed upgrade": func() {
			s.get("/ws", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13")
		},
		"no upgrade": func() { s.get("/ws") },
		"closed":     func() { s.viewer().leave() },
		"crashed": func() {
			c := upgraded(t, s.addr)
			_ = c.conn.(*net.TCPConn).SetLinger(0) // a reset, as when a process dies
			c.conn.Close()
		},
		"half closed": func() {
			c := upgraded(t, s.addr)
			_ = c.conn.(*net.TCPConn).CloseWrite()
			c.rest()
		},
		"stalled in a frame, then failed": func() {
			c := upgraded(t, s.addr)
			c.write(clientFrame(finText, []byte(`{"token":"bad"}`)))
			c.write([]byte{finText, 0x80 | 100, 0, 0})
			c.mute = true
			c.rest()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 * s.cfg.RateConnections {
				leave()
				testkit.Eventually(t, "its slot and its connection are free", func() bool { return open() == 0 && s.srv.Relay.Len() == 0 })
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		// The keep-alive ends a connection that stops in the middle of a frame.
		// It takes up to 40 seconds, so this test makes it shorter.
		s := start(t, func(c *config.Config) { c.PingEvery, c.PongWait = 200*time.Millisecond, 200*time.Millisecond })
		c := upgraded(t, s.addr)
		c.write([]byte{finText, 0x80 | 100, 0, 0})
		c.rest()
		testkit.Eventually(t, "gone", func() bool { return s.srv.Relay.Len() == 0 && s.srv.Watch.Limiter().Stats().Open == 0 })
	})
}

func guideLogs(t *testing.T) {
	s := start(t, func(c *config.Config) {
		production(c)
		c.RateConnections, c.HistoryKeep, c.HistoryTrimAt = 5, 2, 3
	})
	p := s.publisher()
	for range 4 {
		p.send(`{"text":"x"}`)
	}
	answerTo(t, s, `{"token":"bad"}`)
	connect(t, s.addr, "Origin", "https://evil.example")
	for range 10 {
		connect(t, s.addr)
	}
	p.leave()
	for _, event := range []struct {
		msg  string
		keys []string
	}{
		{"connected", []string{"addr"}},
		{"disconnected", []string{"addr", "cause"}},
		{"auth", []string{"addr", "outcome"}},
		{"connection refused", []string{"client", "reason", "retry_after"}},
		{"history trimmed", []string{"dropped"}},
	} {
		testkit.Eventually(t, event.msg+" is logged", func() bool { return len(s.logs.Events(event.msg)) > 0 })
		for _, key := range append(event.keys, "time", "level") {
			if _, ok := s.logs.Events(event.msg)[0][key]; !ok {
				t.Errorf("%s: no %s in %v", event.msg, key, s.logs.Events(event.msg)[0])
			}
		}
	}
	outcomes := func() (all []string) {
		for _, e := range s.logs.Events("auth") {
			all = append(all, fmt.Sprint(e["outcome"]))
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	testkit.Eventually(t, "the publisher's end is logged", func() bool { return slices.Contains(outcomes(), "ended") })
	if got := outcomes(); !slices.Equal(got, []string{"authenticated", "ended", "origin_refused", "refused"}) {
		t.Errorf("outcomes: %v", got)
	}
	for _, e := range s.logs.Events("auth") {
		if detail := fmt.Sprint(e["detail"]); e["outcome"] == "origin_refused" && !(strings.Contains(detail, "https://evil.example") && strings.Contains(detail, s.addr)) {
			t.Errorf("a refused origin does not report what was compared: %v", e)
		}
	}
}
