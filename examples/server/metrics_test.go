package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/watch"
	"github.com/relayguard/relayguard/wsauth"
)

// operated is the operator's listener of a server, with a token for it.
type operated struct {
	*testSite
	token string
}

// operatorOf returns the operator's listener of the server with this
// environment.
func operatorOf(t *testing.T, env []string) operated {
	t.Helper()
	for _, v := range env {
		if addr, ok := strings.CutPrefix(v, "OPERATOR_ADDR="); ok {
			return operatorAt(&testSite{t: t, addr: addr, cfg: testConfig(t)})
		}
	}
	t.Fatal("no OPERATOR_ADDR")
	return operated{}
}

func operatorAt(s *testSite) operated {
	s.t.Helper()
	token, err := authority.OperatorToken(s.cfg.Keys(), time.Now().Add(time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	return operated{s, token}
}

// operator serves the operator's calls of a server in this process, and returns
// their listener.
func (s *testSite) operator() operated {
	s.t.Helper()
	return operatorAt(&testSite{t: s.t, srv: s.srv, cfg: s.cfg, addr: serveAt(s.t, s.srv.Operator)})
}

func (o operated) call(method, path string) (*http.Response, string) {
	o.t.Helper()
	return o.do(method, path, "Authorization", "Bearer "+o.token)
}

// scrape returns the values of /metrics, by name with labels.
func (o operated) scrape() map[string]float64 {
	o.t.Helper()
	res, body := o.call("GET", "/metrics")
	if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		o.t.Fatalf("/metrics: %s, %s", res.Status, res.Header.Get("Content-Type"))
	}
	found := map[string]float64{}
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			o.t.Fatalf("line %q", line)
		}
		found[line[:i]] = value
	}
	return found
}

func (o operated) metric(name string) float64 {
	o.t.Helper()
	value, ok := o.scrape()[name]
	if !ok {
		o.t.Fatalf("there is no metric %s", name)
	}
	return value
}

func guideMetrics(t *testing.T) {
	s := start(t, func(c *config.Config) {
		production(c)
		trustLoopback(c)
		c.RateConnections, c.HistoryKeep, c.HistoryTrimAt = 4, 2, 3
	})
	op := s.operator()
	if res, _ := op.get("/metrics"); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %s", res.Status)
	}
	watcher, device := s.viewer(), s.publisher()
	for _, text := range []string{"a", "b", "c", "d"} { // the last one causes a clean-up
		device.send(`{"text":"` + text + `"}`)
		watcher.texts(1)
		device.texts(1)
	}
	device.send(`{"text":7}`)
	device.await(func(m map[string]any) bool { return m["error"] != nil })
	s.viewer().texts(2) // a whole history
	const stranger = "192.0.2.7"
	for range 2 { // refused tokens, from an address that no metric may show
		bad := s.viewer("X-Forwarded-For", stranger)
		bad.texts(2)
		bad.send(`{"token":"no token"}`)
		bad.end()
	}
	if p, res := connect(t, s.addr, "Origin", "https://evil.example"); p != nil || res.StatusCode != 403 {
		t.Error("a foreign origin is let in")
	}
	s.viewer().texts(2)
	for range 3 {
		if p, res := connect(t, s.addr); p != nil || res.StatusCode != 429 {
			t.Fatal("more are let in than the limit")
		}
	}
	s.get("/ws", "X-Forwarded-For", stranger) // no upgrade
	s.get("/nothing")
	s.get("/healthz")
	device.leave()

	want := map[string]float64{
		"relayguard_connections_open":                                            3,
		"relayguard_publishers_open":                                             0,
		"relayguard_connections_total":                                           6,
		"relayguard_upgrades_failed_total":                                       1,
		`relayguard_connections_ended_total{cause="authentication failed"}`:      2,
		`relayguard_connections_ended_total{cause="closed"}`:                     1,
		`relayguard_connections_ended_total{cause="too slow"}`:                   0,
		`relayguard_connections_refused_total{reason="limit"}`:                   3,
		`relayguard_connections_refused_total{reason="origin"}`:                  1,
		`relayguard_connections_refused_total{reason="blocked"}`:                 0,
		`relayguard_auth_events_total{outcome="authenticated",reason=""}`:        1,
		`relayguard_auth_events_total{outcome="refused",reason="malformed"}`:     2,
		`relayguard_auth_events_total{outcome="origin_refused",reason="origin"}`: 1,
		"relayguard_messages_invalid_total":                                      1,
		"relayguard_messages_unpublished_total":                                  0,
		"relayguard_history_messages":                                            2,
		"relayguard_history_appended_total":                                      4,
		`relayguard_history_trimmed_total{reason="count"}`:                       2,
		`relayguard_history_trimmed_total{reason="age"}`:                         0,
		"relayguard_history_durable":                                             0,
		"relayguard_history_degraded":                                            0,
		`relayguard_http_responses_total{code="404"}`:                            1,
		`relayguard_http_responses_total{code="200"}`:                            1,
		`relayguard_addresses_blocked_total`:                                     0,
		// Live frames: four to the watcher and four to the device. Histories of
		// two messages: one to the third viewer, to each connection with a bad
		// token, and to the last viewer.
		"relayguard_frames_delivered_total":   12,
		"relayguard_messages_delivered_total": 16,
		"relayguard_merges_total":             0,
		"relayguard_viewer_lag_seconds_count": 8,
	}
	var got map[string]float64
	// The server counts these after the client has seen the effect, and the
	// others before.
	testkit.Eventually(t, "counted", func() bool {
		got = op.scrape()
		for _, name := range []string{"connections_open", "frames_delivered_total", "messages_delivered_total", "viewer_lag_seconds_count"} {
			if got["relayguard_"+name] != want["relayguard_"+name] {
				return false
			}
		}
		return true
	})
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, value)
		}
	}
	for _, name := range []string{"go_goroutines", "go_build_info", "process_open_fds"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(k string) bool { return strings.HasPrefix(k, name) }) {
			t.Errorf("%s is missing", name)
		}
	}
	if _, body := op.call("GET", "/metrics"); strings.Contains(body, stranger) || strings.Contains(body, "127.0.0.1") || strings.Contains(body, testDevice) {
		t.Error("a metric shows an address or a device")
	}
}

// Every kind of event has a count of 0 from the start, so that the first event
// shows as a rise.
func TestMetricsHoldEveryKind(t *testing.T) {
	got := start(t, nil).operator().scrape()
	for _, kind := range wsauth.EventKinds() {
		name := fmt.Sprintf(`relayguard_auth_events_total{outcome=%q,reason=""}`, kind)
		if value, ok := got[name]; !ok || value != 0 {
			t.Errorf("%s is %v (%v)", name, value, ok)
		}
	}
}

// TestMetricsAreDocumented requires that site/metrics.md lists the metrics of
// the server. With UPDATE_DOCS=1 it writes that file.
func TestMetricsAreDocumented(t *testing.T) {
	const name = "site/metrics.md"
	families, err := start(t, func(c *config.Config) { c.Rooms = []string{testDevice} }).srv.Metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprint(&b, `# Metrics

Prometheus reads these metrics with `+"`GET /metrics`"+` on the operator's listener (OPERATOR_ADDR). There are also `+"`go_…`"+` for Go's
runtime and the build, and `+"`process_…`"+` for the process. A label has few values, and a stranger can choose none of them. This
file is made from examples/server/site/metrics.go by UPDATE_DOCS=1 go test ./examples/server.

| Name | Type | Labels | Meaning |
|---|---|---|---|
`)
	own := regexp.MustCompile("^" + watch.Namespace + "_[a-z_]+$")
	for _, f := range families {
		switch {
		case own.MatchString(f.GetName()):
		case strings.HasPrefix(f.GetName(), "go_"), strings.HasPrefix(f.GetName(), "process_"):
			continue
		default:
			t.Errorf("%s is not a name like the others", f.GetName())
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), labels(f), f.GetHelp())
	}
	b.WriteString(`
A scrape needs a token, like every call of the operator. Prometheus reads the token from a file (` + "`authorization: {credentials_file: …}`" + `):

    go run ./examples/server token -role metrics -ttl 8760h >metrics.token
`)
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text, err := os.ReadFile(name); err != nil || !bytes.Equal(text, b.Bytes()) {
		t.Errorf("%s is not what site/metrics.go generates (%v): run this test with UPDATE_DOCS=1", name, err)
	}
}

func labels(f *dto.MetricFamily) string {
	var names []string
	for _, l := range f.GetMetric()[0].GetLabel() {
		names = append(names, "`"+l.GetName()+"`")
	}
	return strings.Join(names, ", ")
}
