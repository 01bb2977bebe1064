package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/internal/freeport"
)

func guideLimit(t *testing.T) {
	s := start(t, nil)
	began := time.Now()
	for range 10 {
		s.viewer()
	}
	_, res := connect(t, s.addr)
	if res.StatusCode != http.StatusTooManyRequests {
		t.Fatalf("the 11th: got %d, want 429", res.StatusCode)
	}
	after, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || time.Duration(after)*time.Second < time.Minute-time.Since(began) || after > 67 {
		t.Errorf("Retry-After: %q, want the seconds that are left of the minute", res.Header.Get("Retry-After"))
	}
}

func guideWindow(t *testing.T) {
	s := start(t, func(c *config.Config) { c.RateConnections, c.RateWindow = 2, 5*time.Second }) // a slow machine must connect three times in it
	s.viewer()
	s.viewer()
	if p, _ := connect(t, s.addr); p != nil {
		t.Fatal("the third was admitted")
	}
	// The first two stay open: the next one is admitted because the window has
	// passed.
	testkit.Eventually(t, "admitted after the window", func() bool {
		p, _ := connect(t, s.addr)
		return p != nil
	})
}

func guideGiveBack(t *testing.T) {
	s := start(t, trustLoopback)
	from := func(client string) []string { return []string{"X-Forwarded-For", client} }
	open := make([]*peer, 10)
	for i := range open {
		open[i] = s.viewer(from("192.0.2.1")...)
	}
	for range 10 {
		s.viewer(from("192.0.2.2")...)
	}
	open[3].leave()
	testkit.Eventually(t, "one closed, next admitted", func() bool {
		p, _ := connect(t, s.addr, from("192.0.2.1")...)
		return p != nil
	})
	if p, _ := connect(t, s.addr, from("192.0.2.1")...); p != nil {
		t.Error("one closed, two admitted")
	}
	if p, _ := connect(t, s.addr, from("192.0.2.2")...); p != nil {
		t.Error("one client's disconnect admitted another")
	}
}

func guideForget(t *testing.T) {
	before := goroutines()
	s := start(t, func(c *config.Config) { trustLoopback(c); c.RateWindow = 200 * time.Millisecond })
	for i := range 20 {
		p := s.viewer("X-Forwarded-For", "192.0.2."+strconv.Itoa(i))
		p.leave()
	}
	if s.srv.Watch.Limiter().Stats().Clients == 0 {
		t.Fatal("nothing was remembered, so nothing can be forgotten")
	}
	// No sweep runs. The next client's arrival drops clients that are older
	// than two windows.
	testkit.Eventually(t, "idle clients are gone", func() bool {
		if p, _ := connect(t, s.addr, "X-Forwarded-For", "192.0.2.250"); p != nil {
			p.cut()
		}
		return s.srv.Watch.Limiter().Stats().Clients <= 1
	})
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, "no goroutine is left", func() bool { return goroutines() <= before })
}

func guideClientIP(t *testing.T) {
	t.Run("forged", func(t *testing.T) {
		// The peer is no trusted proxy here, so its headers do not count.
		s := start(t, func(c *config.Config) { c.Proxies = nil })
		for i := range 10 {
			n := strconv.Itoa(i)
			s.viewer("X-Forwarded-For", "192.0.2."+n, "X-Real-IP", "198.51.100."+n, "Forwarded", "for=203.0.113."+n)
		}
		if p, res := connect(t, s.addr, "X-Forwarded-For", "192.0.2.77"); p != nil || res.StatusCode != 429 {
			t.Error("a forged address got a count of its own")
		}
	})
	t.Run("proxied", func(t *testing.T) {
		s := start(t, func(c *config.Config) { trustLoopback(c); c.RateConnections = 1 })
		for _, header := range [][]string{
			{"X-Forwarded-For", "192.0.2.1"}, {"X-Forwarded-For", "192.0.2.9, 192.0.2.2"}, {"X-Real-IP", "192.0.2.3"},
		} {
			s.viewer(header...)
			// The addresses left of the one that the proxy saw are the client's
			// own claims.
			if p, _ := connect(t, s.addr, "X-Forwarded-For", "198.51.100.7, "+lastAddr(header[1])); p != nil {
				t.Errorf("%s: admitted twice", header)
			}
		}
	})
}

func lastAddr(list string) string { return strings.TrimSpace(list[strings.LastIndex(list, ",")+1:]) }

func guideOrigin(t *testing.T) {
	const host = "relay.example"
	behindTLS := []string{"Host", host, "X-Forwarded-Proto", "https"}
	s := start(t, func(c *config.Config) { production(c); trustLoopback(c); c.RateConnections = 100 })
	for _, row := range []struct {
		origin string
		want   int
		why    string
	}{
		{"https://relay.example", 101, "the site's own"},
		{"https://RELAY.example", 101, "hosts have no case"},
		{"https://relay.example:443", 101, "the scheme's own port, written out"},
		{"", 101, "not a browser"},
		{"https://evil-relay.example", 403, "ends with the site"},
		{"https://relay.example.evil", 403, "begins with the site"},
		{"https://sub.relay.example", 403, "a subdomain is another origin"},
		{"http://relay.example", 403, "other scheme"},
		{"https://relay.example:8443", 403, "other port"},
		{"https://relay.example:80", 403, "another scheme's port"},
		{"null", 403, "sandboxed pages and files"},
		{"https://evil.example", 403, "foreign"},
		{"https://relay.example@evil.example", 403, "user info"},
		{"https://relay.example/", 403, "an origin has no path"},
		{"relay.example", 403, "no scheme"},
		{"*", 403, "no pattern"},
	} {
		header := behindTLS
		if row.origin != "" {
			header = append(header[:len(header):len(header)], "Origin", row.origin)
		}
		_, res := connect(t, s.addr, header...)
		if res.StatusCode != row.want {
			t.Errorf("%q: got %d, want %d (%s)", row.origin, res.StatusCode, row.want, row.why)
		}
	}
	if res, _ := s.get("/ws", append(behindTLS, "Origin", "", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")...); res.StatusCode != 403 {
		t.Errorf("an empty origin: got %d, want 403", res.StatusCode)
	}
	if _, res := connect(t, s.addr, append(behindTLS, "Origin", "https://relay.example", "Origin", "https://evil.example")...); res.StatusCode != 403 {
		t.Errorf("two origins: got %d, want 403", res.StatusCode)
	}

	listed := start(t, func(c *config.Config) { production(c); trustLoopback(c); c.Origins = []string{"https://art.example"} })
	for origin, want := range map[string]int{"https://art.example": 101, "https://relay.example": 403} {
		if _, res := connect(t, listed.addr, append(behindTLS, "Origin", origin)...); res.StatusCode != want {
			t.Errorf("with a list, %q: got %d, want %d", origin, res.StatusCode, want)
		}
	}
	if _, res := connect(t, start(t, nil).addr, "Origin", "https://evil.example"); res.StatusCode != 101 {
		t.Errorf("development: got %d, want 101", res.StatusCode)
	}
}

func guideSecretChecked(t *testing.T) {
	for _, row := range []struct{ secret, why string }{
		{"", "missing"},
		{"-", "unset"},
		{"tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3D", "31 characters"},
		{"your-very-long-secure-random-string-here-32-chars-minimum", "the guide's own example"},
		{strings.Repeat("a", 40), "one character repeated"},
		{strings.Repeat("Ab3$", 12), "a short string repeated"},
		{"abcdefghijklmnopqrstuvwxyz0123456789", "a sequence"},
		{"qwertyuiopasdfghjklzxcvbnm1234567890", "keyboard rows"},
		{"tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3D\x00", "a control character"},
	} {
		_, err := config.Load(environment(map[string]string{"JWT_SECRET": row.secret}))
		if err == nil {
			t.Errorf("accepted: %s", row.why)
		} else if !strings.Contains(err.Error(), "JWT_SECRET") || len(row.secret) > 1 && strings.Contains(err.Error(), row.secret) {
			t.Errorf("%s: the error must name the variable and not its value: %v", row.why, err)
		}
	}
	if _, err := config.Load(environment(nil)); err != nil {
		t.Errorf("a valid value is refused: %v", err)
	}
}

func guideDeviceChecked(t *testing.T) {
	for value, want := range map[string][]string{
		"pi-1": {"pi-1"}, "pi-1,PI_2": {"pi-1", "PI_2"}, "pi-1, pi-2": {"pi-1", "pi-2"},
		"": nil, "-": nil, "pi 1": nil, "pi-1;pi-2": nil, "pi/1": nil, "pi-1,,pi-2": nil, "gerät": nil, "a\nb": nil,
	} {
		cfg, err := config.Load(environment(map[string]string{"ALLOWED_DEVICE_ID": value}))
		if want == nil && err == nil {
			t.Errorf("%q is accepted", value)
		}
		if want != nil && (err != nil || strings.Join(cfg.Devices, "|") != strings.Join(want, "|")) {
			t.Errorf("%q: got %q, %v", value, cfg.Devices, err)
		}
	}
}

func guideRefusesToStart(t *testing.T) {
	const weak = "hunter2-hunter2"
	p := launch(t, false, t.TempDir(), []string{
		"JWT_SECRET=" + weak, "ALLOWED_DEVICE_ID=not ok", "PORT=99999", "NODE_ENV=staging", "RATE_LIMIT_WINDOW=soon", "HISTORY_KEEP=-4",
	})
	if code := p.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	message := p.stderr.String()
	for _, name := range []string{"JWT_SECRET", "ALLOWED_DEVICE_ID", "PORT", "NODE_ENV", "RATE_LIMIT_WINDOW", "HISTORY_KEEP"} {
		if !strings.Contains(message, name) {
			t.Errorf("%s is not named:\n%s", name, message)
		}
	}
	if strings.Contains(message+p.stdout.String(), weak) {
		t.Errorf("the secret is shown:\n%s", message)
	}
}

func guideDefaults(t *testing.T) {
	cfg := testConfig(t)
	if cfg.Port != 3000 || cfg.Host != "127.0.0.1" || cfg.Production {
		t.Errorf("got %s:%d, production %v; want 127.0.0.1:3000, false", cfg.Host, cfg.Port, cfg.Production)
	}
	if cfg.RateConnections != 10 || cfg.RateWindow != time.Minute || cfg.HistoryKeep != 1000 || cfg.HistoryTrimAt != 1200 {
		t.Errorf("the guide's numbers: got %d in %v, %d of %d", cfg.RateConnections, cfg.RateWindow, cfg.HistoryKeep, cfg.HistoryTrimAt)
	}
	for _, p := range cfg.Proxies {
		if !p.Addr().IsLoopback() {
			t.Errorf("%v is trusted by default", p)
		}
	}
	cfg, err := config.Load(environment(map[string]string{"NODE_ENV": "production", "PORT": "8080"}))
	if err != nil || !cfg.Production || cfg.Port != 8080 {
		t.Errorf("got production %v, port %d, %v", cfg.Production, cfg.Port, err)
	}
	// H6 and W6 test the effects of production from outside.
	p := launch(t, true, t.TempDir(), []string{"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "NODE_ENV=production", "PORT=" + freePort(t)})
	s := &testSite{t: t, addr: p.addr}
	if res, _ := s.get("/"); res.Header.Get("Strict-Transport-Security") == "" {
		t.Error("no HSTS in production")
	}
	if _, res := connect(t, p.addr, "Origin", "https://evil.example"); res.StatusCode != 403 {
		t.Errorf("foreign origin: got %d, want 403", res.StatusCode)
	}
}

// freePort returns a port that no process uses at this moment.
// freePort returns a port that stays free until a process of the test listens.
func freePort(t *testing.T) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(freeport.Addr(t))
	return port
}

func guideRetention(t *testing.T) {
	s := start(t, func(c *config.Config) { c.PublishRate, c.PublishBurst = 1e6, 1e6 })
	p := s.publisher()
	watcher := s.viewer()
	for i := range 1201 {
		p.send(`{"text":"` + strconv.Itoa(i) + `"}`)
		if i == 1199 {
			watcher.texts(1200)
			if texts, _ := s.viewer().texts(1200); texts[0] != "0" {
				t.Errorf("at 1,200 all are kept, but the first is %s", texts[0])
			}
		}
	}
	watcher.texts(1)
	texts, kinds := s.viewer().texts(1000)
	if len(texts) != 1000 || texts[0] != "201" || texts[999] != "1200" || kinds[0] != "history" {
		t.Errorf("past 1,200: got %d from %s to %s in a %s frame, want 1,000 from 201 to 1200", len(texts), texts[0], texts[len(texts)-1], kinds[0])
	}
}

func guideRestartClears(t *testing.T) {
	for name, restart := range map[string]string{
		"bare":    `{"text":"","status":{"is_restarting":true,"num_restarts":2}}`,
		"telling": `{"text":"again","status":{"is_restarting":true,"num_restarts":2}}`,
		"figures": `{"text":"","memory":{"available_mb":1,"percent_used":2,"total_mb":3},"status":{"is_restarting":true}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			p, watcher := s.publisher(), s.viewer()
			p.send(`{"text":"old"}`)
			watcher.texts(1)
			p.send(restart)
			m := watcher.await(func(m map[string]any) bool { return m["type"] != nil })
			if n := len(m["messages"].([]any)); n != 1 {
				t.Errorf("the restart comes %d times", n)
			}
			first := m["messages"].([]any)[0].(map[string]any)
			if status, _ := first["status"].(map[string]any); m["type"] != "live" || status["is_restarting"] != true {
				t.Errorf("the viewer sees the restart as %v, want its live message", m)
			}
			p.send(`{"text":"new"}`)
			watcher.texts(1)
			want := []string{"new"}
			if name == "telling" {
				want = []string{"again", "new"}
			}
			if name == "figures" {
				want = []string{"", "new"}
			}
			texts, _ := s.viewer().texts(len(want))
			if strings.Join(texts, "|") != strings.Join(want, "|") {
				t.Errorf("a later viewer sees %q, want %q", texts, want)
			}
		})
	}
}

func guideMemoryOnly(t *testing.T) {
	dir := t.TempDir()
	env := []string{"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t)}
	p := launch(t, true, dir, env)
	s := &testSite{t: t, addr: p.addr, cfg: testConfig(t)}
	s.publisher().send(`{"text":"kept nowhere"}`)
	s.viewer().texts(1)
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	for _, secret := range []string{testSecret, "kept nowhere", "eyJ"} { // every token begins with the last
		if strings.Contains(p.stdout.String()+p.stderr.String(), secret) {
			t.Errorf("the process printed %q", secret)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files were written: %v, %v", files, err)
	}
	s.addr = launch(t, true, dir, env).addr
	watcher := s.viewer()
	s.publisher().send(`{"text":"first"}`)
	if texts, _ := watcher.texts(1); texts[0] != "first" {
		t.Errorf("the restarted server still knew %q", texts)
	}
}

func guideTimestamps(t *testing.T) {
	s := start(t, nil)
	before := time.Now().UnixMilli()
	s.publisher().send(`{"text":"a","timestamp":1,"user":"ann","ip":"192.0.2.1","device":"pi-1","id":"x"}`)
	m := s.viewer().await(func(m map[string]any) bool { return m["type"] != nil })["messages"].([]any)[0].(map[string]any)
	at, _ := m["timestamp"].(float64)
	if int64(at) < before || int64(at) > time.Now().UnixMilli() {
		t.Errorf("timestamp %v is not the time of publishing", m["timestamp"])
	}
	delete(m, "timestamp")
	if got, _ := json.Marshal(m); string(got) != `{"text":"a"}` {
		t.Errorf("more than text and time was passed on: %s", got)
	}
}

// stubborn connects, and then reads nothing and answers nothing.
func stubborn(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte(handshake(addr))); err != nil {
		t.Fatal(err)
	}
	return conn
}

func handshake(host string) string {
	return "GET /ws HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// The environment alone can lower the limits.
func guideLimitsAreConfigured(t *testing.T) {
	p := launch(t, true, t.TempDir(), []string{
		"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t),
		"RATE_LIMIT_CONNECTIONS=2", "RATE_LIMIT_WINDOW=1h",
	})
	s := &testSite{t: t, addr: p.addr}
	s.viewer()
	s.viewer()
	_, res := connect(t, p.addr)
	wait, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if res.StatusCode != http.StatusTooManyRequests || err != nil || wait < 60 {
		t.Errorf("the third of two got %s, Retry-After %q; want 429 and most of an hour", res.Status, res.Header.Get("Retry-After"))
	}
}

// CI audits the dependencies of all modules on every change, and a document
// describes how to update them.
func guideDependencies(t *testing.T) {
	for name, wants := range map[string][]string{
		"../../.ci/run":             {`"$tools/govulncheck" -db "file://$tools/vulndb/osv" ./... ./examples/...`, `(cd examples/interop && "$tools/govulncheck"`, "tidy .\ntidy examples\n", "tidy examples/interop\n"},
		"../../.github/SECURITY.md": {"govulncheck", "go get -u ./..."},
	} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not hold %q", name, want)
			}
		}
	}
}

// serveAt serves h on a real socket for the length of the test.
func serveAt(t *testing.T, h http.Handler) (addr string) {
	t.Helper()
	ln := loopback(t)
	srv := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Shutdown(context.Background())
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// A page somewhere else costs the address of its visitor nothing: no slot, no
// attempt, no penalty.
func TestForeignPagesCostNothing(t *testing.T) {
	s := start(t, func(c *config.Config) { production(c); trustLoopback(c); c.RateConnections, c.MaxAttempts = 2, 3 })
	visitor := from("192.0.2.50")
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	for range 100 {
		for want, header := range map[int][]string{
			http.StatusUpgradeRequired: {"Sec-Fetch-Site", "cross-site"},
			http.StatusForbidden:       append([]string{"Origin", "https://evil.example"}, upgrade...),
		} {
			if res, _ := s.do("GET", "/ws", append(header, visitor...)...); res.StatusCode != want {
				t.Fatalf("a request of a foreign page is answered %d, want %d", res.StatusCode, want)
			}
		}
		if res, _ := s.do("POST", "/ws", visitor...); res.StatusCode != http.StatusMethodNotAllowed {
			t.Fatalf("a form of a foreign page is answered %d", res.StatusCode)
		}
	}
	for range 2 {
		if p, res := connect(t, s.addr, visitor...); p == nil {
			t.Fatalf("the visitor's own page is refused with %d", res.StatusCode)
		}
	}
	if p, res := connect(t, s.addr, visitor...); p != nil || res.StatusCode != http.StatusTooManyRequests {
		t.Error("the limit does not hold")
	}
	// The page asks why its upgrade failed, and learns it.
	for range 10 {
		if res, _ := s.do("GET", "/ws", visitor...); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
			t.Fatalf("a page that asks is answered %d", res.StatusCode)
		}
	}
	s.must("block", "192.0.2.50")
	if res, _ := s.do("GET", "/ws", visitor...); res.StatusCode != http.StatusForbidden {
		t.Errorf("a page that asks is answered %d, want 403", res.StatusCode)
	}
}
