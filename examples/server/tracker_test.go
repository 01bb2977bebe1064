package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/examples/server/tracker"
)

// unspeakable returns an error whose text holds values that no event may hold.
func unspeakable(token string) error {
	return fmt.Errorf("token %s of device at 192.0.2.77:4711 (2001:db8:77::1, [2001:db8:1:2:3:4:5:6]:80) said %q, signed with %s, refresh rgrt_abcDEF-123: %w",
		token, "the machine remembers its childhood", testSecret, &fs.PathError{Op: "open", Path: "/home/artist/relay/auth/blocks.json", Err: syscall.ENOSPC})
}

var never = []string{
	"eyJ", "rgrt_", testSecret, "192.0.2", "4711@", "2001:db8", "childhood", "artist", "/home", "127.0.0.1", "tq8x",
}

// guideErrorTracking checks the events that a tracker gets: an error, a panic,
// and an error of a running server.
func guideErrorTracking(t *testing.T) {
	in := testkit.NewIngest(t, nil)
	cfg := testConfig(t)
	cfg.SentryDSN = envcheck.NewSecret(in.DSN)
	errs, err := tracker.New(cfg.Tracker())
	if err != nil {
		t.Fatal(err)
	}
	logs := newLog()
	log := slog.New(errs.Handler(slog.NewJSONHandler(logs, nil)))

	token := (&testSite{t: t, cfg: testConfig(t)}).token(testDevice, time.Hour)
	log.Info("not an error", "error", "harmless")
	log.With("addr", "192.0.2.77", "device", testDevice).Error("publishing failed", "error", errors.New(`dial 192.0.2.77:80: "childhood"`), "text", "childhood")
	errs.Send("a bad one", map[string]string{"error": unspeakable(token).Error()}) // does not go to the log
	answer := httptest.NewRecorder()
	site.Recovered(log, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var secrets []string
		outOfRange(secrets, len(r.Header.Get("Authorization")))
	})).ServeHTTP(answer, httptest.NewRequest("GET", "/?token="+token, nil))
	if answer.Code != http.StatusInternalServerError {
		t.Errorf("a panic is answered with %d", answer.Code)
	}
	in.Await(t, 3)
	errs.Close()

	events, texts := in.Events(t)
	if len(events) != 3 {
		t.Fatalf("%d events, want 3", len(events))
	}
	for i, text := range texts {
		for _, bad := range append(never, testkit.DSNKey, testDevice, hostname(t)) {
			if strings.Contains(text, bad) {
				t.Errorf("%q leaves in\n%s", bad, text)
			}
		}
		allowed := []string{"contexts", "environment", "event_id", "exception", "level", "message", "platform", "release", "sdk", "tags", "timestamp", "user"}
		for name, value := range events[i] {
			if !slices.Contains(allowed, name) || (name == "user" || name == "contexts") && len(value.(map[string]any)) > 0 {
				t.Errorf("%s leaves: %v", name, value)
			}
		}
	}
	value, _ := exception(t, events[1])
	for _, want := range []string{"[token]", "[addr]", "[text]", "[secret]", "open blocks.json: no space left on device"} {
		if !strings.Contains(value, want) {
			t.Errorf("%q is not in %q", want, value)
		}
	}
	if events[0]["message"] != "publishing failed" || events[0]["level"] != "error" || events[0]["environment"] != "development" {
		t.Errorf("%v", events[0])
	}
	value, frames := exception(t, events[2])
	last := frames[len(frames)-1].(map[string]any)
	if !strings.Contains(value, "index out of range [0]") || last["function"] != "outOfRange" || last["filename"] != "tracker_test.go" {
		t.Errorf("a panic is %q in %v", value, last)
	}
	for _, f := range frames {
		for _, name := range []string{"vars", "context_line", "pre_context", "abs_path"} {
			if _, there := f.(map[string]any)[name]; there {
				t.Errorf("a frame has %s", name)
			}
		}
	}
	if len(logs.Events("panic")) != 1 || len(logs.Events("publishing failed")) != 1 || len(logs.Events("not an error")) != 1 {
		t.Errorf("the log lacks a line:\n%s", logs)
	}

	// A running server sends its logged errors.
	in = testkit.NewIngest(t, nil)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(testSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, true, t.TempDir(), []string{"JWT_SECRET_FILE=" + secret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "SENTRY_DSN=" + in.DSN})
	if err := os.WriteFile(secret, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "not reloaded", func() bool { return len(p.stderr.Events("secrets not reloaded")) == 1 })
	in.Await(t, 1)
	if code := p.terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	events, texts = in.Events(t)
	if len(events) != 1 || events[0]["message"] != "secrets not reloaded" || strings.Contains(texts[0], filepath.Dir(secret)) {
		t.Errorf("%v", texts)
	}
	if strings.Contains(p.stderr.String(), testkit.DSNKey) {
		t.Error("the DSN is in the log")
	}
}

//go:noinline
func outOfRange(list []string, i int) string { return list[i] }

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return `"` + name + `"`
}

func exception(t *testing.T, event map[string]any) (value string, frames []any) {
	t.Helper()
	x := event["exception"].([]any)[0].(map[string]any)
	return x["value"].(string), x["stacktrace"].(map[string]any)["frames"].([]any)
}

func TestBadDSN(t *testing.T) {
	for _, dsn := range []string{
		"x", "https://" + testkit.DSNKey, "https://" + testkit.DSNKey + "@/42", "https://sentry.example/42", "ftp://" + testkit.DSNKey + "@sentry.example/42",
		"https://" + testkit.DSNKey + "@sentry.example/", "https://" + testkit.DSNKey + "@sentry.example:port/42", "https://" + testkit.DSNKey + "@sentry.example/%zz",
	} {
		_, err := config.Load(environment(map[string]string{"SENTRY_DSN": dsn}))
		if err == nil || !strings.Contains(err.Error(), "SENTRY_DSN") || len(dsn) > 1 && strings.Contains(err.Error(), dsn) || strings.Contains(err.Error(), testkit.DSNKey) {
			t.Errorf("%s: %v", dsn, err)
		}
	}
	cfg, err := config.Load(environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if errs, err := tracker.New(cfg.Tracker()); errs != nil || err != nil {
		t.Errorf("without a DSN: %v, %v", errs, err)
	}
}
