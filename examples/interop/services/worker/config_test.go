package worker_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/interop/services/worker"
	"github.com/relayguard/relayguard/examples/services/worker/config"
)

const (
	token = "Hc7xV2pQm9LsT4wKb8Zd"
	key   = "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="
)

// environment returns a good environment with changes. A name with a minus
// before it is not set.
func environment(changes ...string) map[string]string {
	vars := map[string]string{
		"QUEUE_URL": "https://queue.example/next", "RESULT_URL": "https://api.example/results", "QUEUE_TOKEN": token, "SIGNING_KEY": key,
		"KINDS": "upper,count", "WORKERS": "8", "RATE": "2.5", "POLL_EVERY": "2s", "JOB_TIMEOUT": "1m", "STOP_TIMEOUT": "5s", "MAX_JOB_BYTES": "2MiB",
		"ATTEMPTS": "3", "BACKOFF_FIRST": "50ms", "BACKOFF_MAX": "5s", "BACKOFF_FACTOR": "1.5", "JITTER": "0.25", "SINCE": "2026-01-31T18:30:00Z",
		"LABELS": "region=eu,team=art", "INSTANCE": "worker-1", "PROXY_URL": "http://u:p@proxy.example:3128", "HEALTH_ADDR": "0.0.0.0:9090",
		"HEALTH_NETWORKS": "10.0.0.0/8", "LOG_LEVEL": "warn", "LOG_FORMAT": "json", "DRY_RUN": "true",
	}
	for _, change := range changes {
		name, value, set := strings.Cut(change, "=")
		if delete(vars, name); set {
			vars[name] = value
		}
	}
	return vars
}

// Both accept the same environments, read the same values, and refuse the same
// environments without showing a value.
func TestBothDecideAlike(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		ok      bool
		why     string
		changes []string
	}{
		{true, "all variables", nil},
		{true, "defaults", []string{"KINDS", "WORKERS", "RATE", "SINCE", "LABELS", "JITTER", "HEALTH_ADDR", "PROXY_URL", "DRY_RUN"}},
		{true, "an empty one is not set", []string{"WORKERS="}},
		{true, "no health", []string{"HEALTH_ADDR="}},
		{true, "a secret in a file", []string{"SIGNING_KEY", "SIGNING_KEY_FILE=" + file}},
		{true, "a user", []string{"QUEUE_TOKEN", "QUEUE_USER=u", "QUEUE_PASSWORD=" + token}},
		{true, "a certificate", []string{"CLIENT_CERT_FILE=" + file, "CLIENT_KEY_FILE=" + file, "CA_FILE=" + file}},
		{false, "a secret twice", []string{"SIGNING_KEY_FILE=" + file}},
		{false, "no such file", []string{"SIGNING_KEY", "SIGNING_KEY_FILE=" + dir + "/hunter2"}},
		{false, "no queue", []string{"QUEUE_URL"}},
		{false, "another scheme", []string{"QUEUE_URL=ftp://hunter2"}},
		{false, "a password that is no secret", []string{"RESULT_URL=https://u:hunter2@h"}},
		{false, "a short token", []string{"QUEUE_TOKEN=hunter2"}},
		{false, "a short key", []string{"SIGNING_KEY=aHVudGVyMg=="}},
		{false, "no base64", []string{"SIGNING_KEY=hunter2!"}},
		{false, "a kind that is not known", []string{"KINDS=upper,hunter2"}},
		{false, "too many", []string{"WORKERS=257"}},
		{false, "no number", []string{"WORKERS=hunter2"}},
		{false, "no rate", []string{"RATE=0"}},
		{false, "a duration without a unit", []string{"POLL_EVERY=222"}},
		{false, "too short", []string{"JOB_TIMEOUT=1ms"}},
		{false, "too large", []string{"MAX_JOB_BYTES=2GiB"}},
		{false, "wraps around", []string{"ATTEMPTS=257"}},
		{false, "NaN", []string{"JITTER=NaN"}},
		{false, "crossed", []string{"BACKOFF_FIRST=6s"}},
		{false, "no time", []string{"SINCE=hunter2"}},
		{false, "no pair", []string{"LABELS=hunter2"}},
		{false, "a name with a space", []string{"INSTANCE=hunter 2"}},
		{false, "half a certificate", []string{"CLIENT_KEY_FILE=" + file}},
		{false, "another proxy", []string{"PROXY_URL=ftp://u:hunter2@h"}},
		{false, "no port", []string{"HEALTH_ADDR=hunter2"}},
		{false, "no network", []string{"HEALTH_NETWORKS=hunter2"}},
		{false, "no level", []string{"LOG_LEVEL=hunter2"}},
		{false, "no format", []string{"LOG_FORMAT=hunter2"}},
		{false, "no credentials", []string{"QUEUE_TOKEN"}},
		{false, "both", []string{"QUEUE_USER=u", "QUEUE_PASSWORD=" + token}},
		{false, "a user without a password", []string{"QUEUE_USER=u"}},
	} {
		vars := environment(row.changes...)
		var ours config.Config
		err := ours.Spec().Load(envcheck.FromMap(vars))
		theirs, peerErr := worker.Load(maps.Clone(vars))
		if (err == nil) != row.ok || (peerErr == nil) != row.ok {
			t.Errorf("%s: here %v, there %v", row.why, err, peerErr)
		}
		if text := fmt.Sprintf("%v %+v %v", err, ours, peerErr); strings.Contains(text, "hunter2") {
			t.Errorf("%s: a value shows: %s", row.why, text)
		}
		if row.ok && values(ours) != peerValues(theirs) {
			t.Errorf("%s:\nhere  %s\nthere %s", row.why, values(ours), peerValues(theirs))
		}
	}
}

func values(c config.Config) string {
	return fmt.Sprint(c.Queue, c.Token.Reveal(), c.User, c.Password.Reveal(), c.Result, c.SigningKey.Reveal(), c.Kinds, c.Workers, number(c.Rate), c.Poll,
		c.JobTimeout, c.StopTimeout, c.MaxBytes, c.Attempts, c.First, c.Max, c.Factor, c.Jitter, moment(c.Since), len(c.Labels), c.Labels, c.Instance, c.CA, c.Cert,
		c.CertKey, c.Proxy.Reveal(), c.HealthAddr, c.HealthNetworks, c.LogLevel, c.LogFormat, c.DryRun)
}

func peerValues(c worker.Config) string {
	return fmt.Sprint(&c.Queue, c.Token.Reveal(), c.User, c.Password.Reveal(), &c.Result, c.Key, c.Kinds, c.Workers, number(c.Rate), c.Poll,
		c.JobTimeout, c.StopTimeout, int64(c.MaxBytes), c.Attempts, c.First, c.Max, c.Factor, c.Jitter, moment(c.Since), len(c.Labels), c.Labels, c.Instance, c.CA, c.Cert,
		c.CertKey, c.ProxyURL, c.HealthAddr, c.HealthNetworks, c.LogLevel, c.LogFormat, c.DryRun)
}

func number(n *float64) string {
	if n == nil {
		return "none"
	}
	return fmt.Sprint(*n)
}

func moment(t *time.Time) string {
	if t == nil {
		return "none"
	}
	return t.Format(time.RFC3339)
}

// The configuration with envcheck takes fewer lines than the one with the other
// library, also counted in bytes, although it documents each variable.
func TestLines(t *testing.T) {
	lines, size := count(t, "../../../services/worker/config/config.go")
	peerLines, peerSize := count(t, "config.go")
	t.Logf("envcheck: %d lines, %d bytes; caarlos0/env: %d lines, %d bytes", lines, size, peerLines, peerSize)
	if lines > peerLines || size > peerSize {
		t.Errorf("envcheck takes %d lines and %d bytes, caarlos0/env %d and %d", lines, size, peerLines, peerSize)
	}
}

// count returns the lines of a file that are not blank and not comments, and
// their bytes.
func count(t *testing.T, name string) (lines, size int) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			lines++
			size += len(line)
		}
	}
	return lines, size
}
