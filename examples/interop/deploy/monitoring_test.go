package deploy_test

//lint:file-ignore SA1019 the newer schema is for Grafana 12 and later; every Grafana imports the older one

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"go.yaml.in/yaml/v3"
)

// documented returns the metrics of metrics.md and their types.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../server/site/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		metrics[row[1]] = row[2]
	}
	if len(metrics) < 20 {
		t.Fatalf("%d metrics are documented", len(metrics))
	}
	return metrics
}

// uses checks that a query is valid and that its metrics exist, and records
// them.
func uses(t *testing.T, metrics map[string]string, where, query string, used map[string]bool) {
	t.Helper()
	for name, value := range map[string]string{"$__rate_interval": "5m", "$job": "relay", "$instance": ".+"} {
		query = strings.ReplaceAll(query, name, value)
	}
	expr, err := metricsql.Parse(query)
	if err != nil {
		t.Errorf("%s: %s: %v", where, query, err)
		return
	}
	metricsql.VisitAll(expr, func(e metricsql.Expr) {
		m, ok := e.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		for _, filters := range m.LabelFilterss {
			if len(filters) == 0 || filters[0].Label != "__name__" {
				t.Errorf("%s: a query without a metric: %s", where, query)
				continue
			}
			name := filters[0].Value
			switch {
			case name == "up", strings.HasPrefix(name, "go_"), strings.HasPrefix(name, "process_"):
			case metrics[name] == "counter" || metrics[name] == "gauge":
				used[name] = true
			case strings.HasSuffix(name, "_bucket") && metrics[strings.TrimSuffix(name, "_bucket")] == "histogram":
				used[strings.TrimSuffix(name, "_bucket")] = true
			default:
				t.Errorf("%s: metrics.md has no %s", where, name)
			}
			rated := regexp.MustCompile(`(rate|increase|changes)\(` + name)
			if counts := metrics[name] == "counter" || strings.HasSuffix(name, "_bucket"); counts != rated.MatchString(query) && metrics[name] != "" {
				t.Errorf("%s: a %s is %s", where, metrics[name], query)
			}
		}
	})
}

// TestGrafana reads the dashboard with Grafana's own types, and checks its
// queries.
func TestGrafana(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	text := shipped(t, "grafana.json")
	var d dashboard.Dashboard
	// If there are no problems, the error is an empty list, which is not nil.
	if err := d.UnmarshalJSONStrict([]byte(text)); err != nil && err.Error() != "" {
		t.Errorf("the dashboard cannot be read: %v", err)
	}
	if err := d.Validate(); err != nil {
		t.Errorf("the dashboard is not valid: %v", err)
	}
	var plain struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr string }
		}
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	if err := json.Unmarshal([]byte(text), &plain); err != nil {
		t.Fatal(err)
	}
	metrics, used := documented(t), map[string]bool{}
	ids, places := map[int]bool{}, map[string]string{}
	for _, p := range plain.Panels {
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("%s: no queries, or the number of another", p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				place := fmt.Sprint(x, y)
				if other := places[place]; other != "" || x >= 24 {
					t.Fatalf("%s overlaps %s, or is outside the dashboard", p.Title, other)
				}
				places[place] = p.Title
			}
		}
		for _, target := range p.Targets {
			uses(t, metrics, p.Title, target.Expr, used)
		}
	}
	for _, a := range plain.Annotations.List {
		uses(t, metrics, a.Name, a.Expr, used)
	}
	// A new metric must be on the dashboard.
	for name := range metrics {
		if !used[name] && name != "relayguard_frames_encoded_total" {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// TestPrometheus checks the alerts' queries. If promtool is installed, it
// checks both files.
func TestPrometheus(t *testing.T) {
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(shipped(t, "relay-alerts.yml")), &alerts); err != nil {
		t.Fatal(err)
	}
	metrics, seen := documented(t), 0
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			seen++
			uses(t, metrics, r.Alert, r.Expr, map[string]bool{})
			if r.Annotations["summary"] == "" {
				t.Errorf("%s has no summary", r.Alert)
			}
		}
	}
	if seen < 5 {
		t.Errorf("%d alerts", seen)
	}

	promtool := program(t, "promtool", "prometheus")
	dir := t.TempDir()
	token := put(t, dir, "relay.token", "x")
	put(t, dir, "relay-alerts.yml", shipped(t, "relay-alerts.yml"))
	conf := shipped(t, "prometheus.yml")
	if n := strings.Count(conf, "credentials_file: /etc/prometheus/relay.token\n"); n != 1 {
		t.Fatalf("prometheus.yml names the token's file %d times", n)
	}
	put(t, dir, "prometheus.yml", strings.Replace(conf, "/etc/prometheus/relay.token\n    static", token+"\n    static", 1))
	if out, err := exec.Command(promtool, "check", "config", filepath.Join(dir, "prometheus.yml")).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
