package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// Every measurement works with every contestant. The test makes one small
// round, and does not check the figures.
func TestEverybody(t *testing.T) {
	for _, name := range []string{"cpu", "storm", "idle", "quiet"} {
		quickly(t, name, contestants)
	}
}

func TestNodes(t *testing.T) { quickly(t, "cpu", onEngine) }

// quickly makes one small round.
func quickly(t *testing.T, name string, only []string) {
	t.Helper()
	if lack := missing(only); lack != "" {
		testkit.Missing(t, lack)
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"-quick", "-viewers", "10", "-for", "1s", "-only", strings.Join(only, ","), "-json", name}, &out, &errs)
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); code != 0 || err != nil {
		t.Fatalf("%s: exit code %d, %v\n%s", name, code, err, &errs)
	}
	if len(r.Rows) != len(only) {
		t.Errorf("%s: %d rows", name, len(r.Rows))
	}
	for _, row := range r.Rows {
		if len(row.Values) != 1 || len(row.Failed) > 0 {
			t.Errorf("%s: %s: %d values, failed: %q", name, row.Name, len(row.Values), row.Failed)
		}
	}
}

// The profile of a run is one that pprof reads: gzip, RFC 1952.
func TestProfile(t *testing.T) {
	only := []string{relayTLS}
	if lack := missing(only); lack != "" {
		testkit.Missing(t, lack)
	}
	dir := t.TempDir()
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-quick", "-viewers", "10", "-for", "5s", "-only", relayTLS, "-profile", dir, "cpu"}, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	text, err := os.ReadFile(filepath.Join(dir, relayTLS+".pprof"))
	if err != nil || !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestUsage(t *testing.T) {
	for args, words := range map[string]string{
		"":                    "say one of",
		"ram":                 "say one of",
		"cpu idle":            "say one of",
		"-only socket.io cpu": `not "socket.io"`,
		"-rounds -1 cpu":      "-rounds",
		"-rate 0 cpu":         "-rate",
		"-share 1.5 cpu":      "-share",
		"-profile x idle":     "-profile is for cpu",
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), &out, &errs); code != 2 || !strings.Contains(errs.String(), words) {
			t.Errorf("%q: exit code %d, %q", args, code, &errs)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1}, 2.5}} {
		if got := median(row.values); got != row.want {
			t.Errorf("%v: %v, want %v", row.values, got, row.want)
		}
	}
}
