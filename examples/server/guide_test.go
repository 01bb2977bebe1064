package main

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
)

// TestGuide tests the security guide's numbered requirements, with one subtest
// for each ID. If a requirement is visible from outside, its subtest uses a
// running server and real sockets.
func TestGuide(t *testing.T) {
	for _, promise := range []struct {
		id   string
		test func(*testing.T)
	}{
		{"H1", fixedHeader("X-Content-Type-Options", "nosniff")},
		{"H2", fixedHeader("X-Frame-Options", "DENY")},
		{"H3", fixedHeader("X-XSS-Protection", "1; mode=block")},
		{"H4", fixedHeader("Referrer-Policy", "strict-origin-when-cross-origin")},
		{"H5", guideCSP},
		{"H6", guideHSTS},
		{"H7", guideEveryResponse},
		{"H8", guideReports},
		{"I1", guideNoSecretInLogs},
		{"I2", guideSameAnswer},
		{"I3", guidePlainErrors},
		{"I4", guidePanic},
		{"W1", guideLimit},
		{"W2", guideWindow},
		{"W3", guideGiveBack},
		{"W4", guideForget},
		{"W5", guideClientIP},
		{"W6", guideOrigin},
		{"W7", guideNothingHeld},
		{"W8", guideLimitsAreConfigured},
		{"E1", guideSecretChecked},
		{"E2", guideDeviceChecked},
		{"E3", guideRefusesToStart},
		{"E4", guideDefaults},
		{"A1", guideTokenToPublish},
		{"A2", guideDeviceList},
		{"A3", guideAlgorithm},
		{"A4", guideStatePerConnection},
		{"A5", guideSchema},
		{"A6", guideExpiry},
		{"A7", guideRefresh},
		{"A8", guideSessions},
		{"A9", guideRoles},
		{"A10", guideAudit},
		{"A11", guideRotate},
		// N1 and N2 need a proxy and fail2ban. They are tested in
		// examples/interop, in proxies and deploy.
		{"N3", guideTLS},
		{"D1", guideRetention},
		{"D2", guideRestartClears},
		{"D3", guideMemoryOnly},
		{"D4", guideTimestamps},
		{"D5", guideEncryptedAtRest},
		{"D6", guideRetentionLimits},
		{"D7", guideExportImport},
		{"D8", guideErasure},
		{"M1", guideLogs},
		{"N4", guideBlocking},
		{"M2", guideMetrics},
		{"M3", guideErrorTracking},
		{"M4", guideHealth},
		{"C1", guideDoctor},
		{"C2", guideIncident},
		{"C3", guideDependencies},
	} {
		t.Run(promise.id, func(t *testing.T) {
			if promise.id != "W4" { // it counts goroutines
				t.Parallel()
			}
			promise.test(t)
		})
	}
}

func production(c *config.Config) { c.Production = true }

func fixedHeader(name, want string) func(*testing.T) {
	return func(t *testing.T) {
		for mode, change := range map[string]func(*config.Config){"development": nil, "production": production} {
			res, _ := start(t, change).get("/")
			if got := res.Header.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s: got %q, want %q once", mode, got, want)
			}
		}
	}
}

func guideCSP(t *testing.T) {
	res, _ := start(t, production).get("/")
	policy := res.Header.Get("Content-Security-Policy")
	directives := map[string][]string{}
	for d := range strings.SplitSeq(policy, ";") {
		if f := strings.Fields(d); len(f) > 0 {
			directives[f[0]] = f[1:]
		}
	}
	for _, name := range []string{"style-src", "connect-src"} {
		if got := directives[name]; len(got) != 1 || got[0] != "'self'" {
			t.Errorf("%s is %q, want 'self' and nothing else", name, got)
		}
	}
	// The policy allows one script by nonce, and the script's imports: less
	// than 'self' would allow.
	if got := directives["script-src"]; len(got) != 2 || !strings.HasPrefix(got[0], "'nonce-") || got[1] != "'strict-dynamic'" {
		t.Errorf("script-src is %q, want a nonce and 'strict-dynamic'", got)
	}
	// Browsers report the violations to an endpoint (H8).
	if got := directives["report-to"]; len(got) != 1 || res.Header.Get("Reporting-Endpoints") != got[0]+`="`+"/csp-reports"+`"` {
		t.Errorf("reports go to %q, which is %q", got, res.Header.Get("Reporting-Endpoints"))
	}
	delete(directives, "script-src")
	delete(directives, "report-uri") // an address, not a source
	for _, bad := range []string{"unsafe-inline", "unsafe-eval", "unsafe-hashes", "ws:", "wss:", "data:", "http:", "https:", "*"} {
		for name, sources := range directives {
			for _, s := range sources {
				if strings.Contains(s, bad) {
					t.Errorf("%s holds %q", name, s)
				}
			}
		}
	}
	for _, name := range []string{"default-src", "object-src", "base-uri", "form-action", "frame-ancestors"} {
		got, ok := directives[name]
		if !ok {
			got, ok = directives["default-src"], name == "object-src"
		}
		if !ok || len(got) != 1 || got[0] != "'none'" {
			t.Errorf("%s is %q, want 'none'", name, got)
		}
	}
}

func guideHSTS(t *testing.T) {
	res, _ := start(t, production).get("/")
	if got := res.Header.Get("Strict-Transport-Security"); !strings.HasPrefix(got, "max-age=31536000") {
		t.Errorf("production: got %q, want max-age=31536000 at least", got)
	}
	res, _ = start(t, nil).get("/")
	if got := res.Header.Values("Strict-Transport-Security"); len(got) > 0 {
		t.Errorf("development: got %q, want none", got)
	}
}

var guideHeaders = []string{
	"X-Content-Type-Options", "X-Frame-Options", "X-XSS-Protection", "Referrer-Policy",
	"Content-Security-Policy", "Strict-Transport-Security",
}

// everyAnswer returns an answer of s of each kind that s can give.
func everyAnswer(s *testSite) map[string]*http.Response {
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	answers := map[string]*http.Response{}
	ask := func(name, method, path string, header ...string) {
		answers[name], _ = s.do(method, path, header...)
	}
	ask("page", "GET", "/")
	ask("asset", "GET", "/style.css")
	ask("missing", "GET", "/no-such-page")
	ask("method", "POST", "/")
	ask("redirect", "GET", "//ws")
	ask("health", "GET", "/healthz")
	ask("options", "OPTIONS", "/")
	ask("not an upgrade", "GET", "/ws")
	ask("bad upgrade", "GET", "/ws", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13")
	ask("foreign origin", "GET", "/ws", append(upgrade, "Origin", "https://evil.example")...)
	p, res := connect(s.t, s.addr)
	answers["upgrade"] = res
	_ = p
	for range 100 { // attempts are bounded too
		// A request that is no upgrade at all would not be counted.
		if answers["too many"], _ = s.do("GET", "/ws", upgrade[:6]...); answers["too many"].StatusCode == http.StatusTooManyRequests {
			break
		}
	}
	return answers
}

func guideEveryResponse(t *testing.T) {
	want := map[string]int{
		"page": 200, "asset": 200, "missing": 404, "method": 405, "redirect": 307, "health": 200, "options": 405, "not an upgrade": 426,
		"bad upgrade": 400, "foreign origin": 403, "upgrade": 101, "too many": 429, "panic": 500,
	}
	answers := everyAnswer(start(t, production))
	answers["panic"], _ = panicking(t, production).get("/")
	for name, status := range want {
		res := answers[name]
		if res.StatusCode != status {
			t.Errorf("%s: got %d, want %d", name, res.StatusCode, status)
		}
		for _, h := range guideHeaders {
			got := res.Header.Values(h)
			if len(got) != 1 {
				t.Errorf("%s (%d): %s is %q, want it once", name, res.StatusCode, h, got)
			} else if want := answers["missing"].Header.Get(h); got[0] != want && !(h == "Content-Security-Policy" && res.Request != nil && res.Request.URL.Path == "/") {
				t.Errorf("%s (%d): %s is %q, elsewhere %q", name, res.StatusCode, h, got, want)
			}
		}
	}
}

func guidePlainErrors(t *testing.T) {
	s := start(t, production)
	for _, r := range []struct{ name, method, path string }{
		{"missing", "GET", "/no/such/page"}, {"method", "DELETE", "/"}, {"not an upgrade", "GET", "/ws"},
		{"traversal", "GET", "/..%2f..%2fetc/passwd"}, {"query", "GET", "/nothing?<script>"},
	} {
		res, body := s.do(r.method, r.path)
		if res.StatusCode < 400 {
			t.Errorf("%s: got %d, want an error", r.name, res.StatusCode)
		}
		plainError(t, r.name, res, body)
	}
	res, body := panicking(t, production).get("/")
	plainError(t, "panic", res, body)
}

func plainError(t *testing.T, name string, res *http.Response, body string) {
	t.Helper()
	if len(body) > 64 {
		t.Errorf("%s: an error page of %d bytes: %q", name, len(body), body)
	}
	for _, leak := range []string{"goroutine", ".go", "golang", "nhooyr", "relayguard", "1.2", "/", "<", "panic", "runtime"} {
		if strings.Contains(strings.ToLower(body), leak) {
			t.Errorf("%s: %q holds %q", name, body, leak)
		}
	}
	for _, h := range []string{"Server", "X-Powered-By"} {
		if v := res.Header.Get(h); v != "" {
			t.Errorf("%s: %s: %s", name, h, v)
		}
	}
}

// panicking is a site on which every page panics with a value that must stay
// secret.
func panicking(t *testing.T, change func(*config.Config)) *testSite {
	s := start(t, nil)
	cfg := s.cfg
	if change != nil {
		change(&cfg)
	}
	secure, err := site.Policy(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := secure.Handler(site.Recovered(slog.New(slog.NewJSONHandler(s.logs, nil)), s.srv.Watch.Limiter().Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("canary-of-a-panic")
	}))))
	return &testSite{t: t, srv: s.srv, cfg: cfg, addr: serveAt(t, h), logs: s.logs}
}

func guidePanic(t *testing.T) {
	s := panicking(t, nil)
	// There are more panics than slots, so each panic must release its slot.
	for range 2 * s.cfg.RateConnections {
		res, body := s.get("/")
		if res.StatusCode != http.StatusInternalServerError || body != "Internal server error\n" {
			t.Fatalf("got %d %q, want a plain 500", res.StatusCode, body)
		}
	}
	if logs := s.logs.String(); !strings.Contains(logs, `"msg":"panic"`) || strings.Contains(logs, "canary-of-a-panic") {
		t.Errorf("a panic must be logged with its stack and without its value:\n%s", logs)
	}
}

func guideHealth(t *testing.T) {
	s := start(t, nil)
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if res, body := s.get(path); res.StatusCode != 200 || body != want {
			t.Errorf("%s: got %d %q, want 200 %q", path, res.StatusCode, body, want)
		}
	}
	s.srv.DiskState("", errors.New("no space left"))
	if res, body := s.get("/readyz"); res.StatusCode != 200 || body != "degraded\n" {
		t.Errorf("/readyz while the disk fails: got %d %q, want 200 \"degraded\"", res.StatusCode, body)
	}
	s.srv.DiskState("", nil)
	// A viewer that does not answer the close delays the server's stop for a
	// moment.
	stubborn(t, s.addr)
	testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Len() == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	testkit.Eventually(t, "stopping", s.srv.Relay.Stopping)
	// Without a socket, since the listener closes after a moment that a slow
	// machine can miss.
	ask := func(path string, header ...string) (status int, body string) {
		r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		s.srv.Handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if status, body := ask("/readyz"); status != http.StatusServiceUnavailable || body != "stopping\n" {
		t.Errorf("/readyz while stopping: got %d %q", status, body)
	}
	if status, _ := ask("/ws", "Connection", "Upgrade", "Upgrade", "websocket"); status != http.StatusServiceUnavailable {
		t.Errorf("a connection while stopping: got %d", status)
	}
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(testkit.Patience):
		t.Error("does not stop")
	}
}
