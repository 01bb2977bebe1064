package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// ingest is an error tracker that keeps what it is sent, as it came.
type ingest struct {
	dsn string

	mu        sync.Mutex
	envelopes []string
	hold      chan struct{} // if set, it answers when this is closed
	asked     int
}

const dsnKey = "0123456789abcdef0123456789abcdef"

func newIngest(t *testing.T, hold chan struct{}) *ingest {
	in := &ingest{hold: hold}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.mu.Lock()
		in.asked++
		in.mu.Unlock()
		if hold != nil {
			<-hold
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/api/42/envelope/" || !strings.Contains(r.Header.Get("X-Sentry-Auth"), dsnKey) {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		in.envelopes = append(in.envelopes, string(body))
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(srv.Close)
	in.dsn = strings.Replace(srv.URL, "http://", "http://"+dsnKey+"@", 1) + "/42"
	return in
}

func (in *ingest) counts() (asked, kept int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.asked, len(in.envelopes)
}

// events are the payloads of all envelopes, each of one event and nothing else. The
// envelope's own header names the DSN, which is the ingest's to know.
func (in *ingest) events(t *testing.T) (events []map[string]any, texts []string) {
	t.Helper()
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, envelope := range in.envelopes {
		lines := bufio.NewScanner(strings.NewReader(envelope))
		lines.Buffer(nil, 1<<20)
		var all []string
		for lines.Scan() {
			all = append(all, lines.Text())
		}
		var item struct{ Type string }
		var event map[string]any
		if len(all) != 3 || json.Unmarshal([]byte(all[1]), &item) != nil || item.Type != "event" || json.Unmarshal([]byte(all[2]), &event) != nil {
			t.Fatalf("not an envelope of one event:\n%s", envelope)
		}
		events, texts = append(events, event), append(texts, all[2])
	}
	return events, texts
}

func (in *ingest) tracker(t *testing.T) *tracker {
	t.Helper()
	cfg := testConfig(t)
	cfg.sentryDSN = envcheck.NewSecret(in.dsn)
	errs, err := newTracker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return errs
}

// what an error's text may hold in the worst case, and an event never.
func unspeakable(token string) error {
	return fmt.Errorf("token %s of device at 192.0.2.77:4711 (2001:db8:77::1, [2001:db8:1:2:3:4:5:6]:80) said %q, signed with %s, refresh rgrt_abcDEF-123: %w",
		token, "the machine remembers its childhood", testSecret, &fs.PathError{Op: "open", Path: "/home/artist/relay/auth/blocks.json", Err: syscall.ENOSPC})
}

var never = []string{
	"eyJ", "rgrt_", testSecret, "192.0.2", "4711@", "2001:db8", "childhood", "artist", "/home", "127.0.0.1", "tq8x",
}

// guideErrorTracking looks at what arrives at an ingest: an error, a panic, and that
// of a running server.
func guideErrorTracking(t *testing.T) {
	in := newIngest(t, nil)
	errs := in.tracker(t)
	logs := newLog()
	log := slog.New(errs.handler(slog.NewJSONHandler(logs, nil)))

	token := (&site{t: t, cfg: testConfig(t)}).token(testDevice, time.Hour)
	log.Info("not an error", "error", "harmless")
	log.With("addr", "192.0.2.77", "device", testDevice).Error("publishing failed", "error", errors.New(`dial 192.0.2.77:80: "childhood"`), "text", "childhood")
	errs.send("a bad one", map[string]string{"error": unspeakable(token).Error()}) // not into our own log
	answer := httptest.NewRecorder()
	recovered(log, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var secrets []string
		outOfRange(secrets, len(r.Header.Get("Authorization")))
	})).ServeHTTP(answer, httptest.NewRequest("GET", "/?token="+token, nil))
	if answer.Code != http.StatusInternalServerError {
		t.Errorf("a panic is answered with %d", answer.Code)
	}
	errs.close()

	events, texts := in.events(t)
	if len(events) != 3 {
		t.Fatalf("%d events, want 3", len(events))
	}
	for i, text := range texts {
		for _, bad := range append(never, dsnKey, testDevice, hostname(t)) {
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
	if !strings.Contains(value, "index out of range [0]") || last["function"] != "outOfRange" || last["filename"] != "errors_test.go" {
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
		t.Errorf("the log is not what it was:\n%s", logs)
	}

	// A whole server, which sends what it logs before it ends.
	in = newIngest(t, nil)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(testSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, true, t.TempDir(), []string{"JWT_SECRET_FILE=" + secret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "SENTRY_DSN=" + in.dsn})
	if err := os.WriteFile(secret, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "not reloaded", func() bool { return len(p.stderr.Events("secrets not reloaded")) == 1 })
	if code := p.terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	events, texts = in.events(t)
	if len(events) != 1 || events[0]["message"] != "secrets not reloaded" || strings.Contains(texts[0], filepath.Dir(secret)) {
		t.Errorf("%v", texts)
	}
	if strings.Contains(p.stderr.String(), dsnKey) {
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

// An ingest that does not answer costs a queue, and the stop a moment.
func TestDeadIngest(t *testing.T) {
	for _, row := range []struct {
		name    string
		answers bool // at last, before the stop
	}{{"never", false}, {"late", true}} {
		t.Run(row.name, func(t *testing.T) {
			hold := make(chan struct{})
			in := newIngest(t, hold)
			release := sync.OnceFunc(func() { close(hold) })
			t.Cleanup(release) // before the ingest waits for its requests
			errs := in.tracker(t)
			errs.pace = rate.NewLimiter(rate.Inf, 0) // so that only the queue bounds it
			log := slog.New(errs.handler(slog.NewTextHandler(io.Discard, nil)))
			const many = 10 * trackerQueue
			for range many { // while the first is not answered
				log.Error("again", "error", "the disk is full")
			}
			testkit.Eventually(t, "asked", func() bool { asked, _ := in.counts(); return asked > 0 })
			if row.answers {
				release()
			}
			errs.close()
			if asked, kept := in.counts(); asked > many/2 || (kept > 0) != row.answers {
				t.Errorf("asked %d times and answered %d of %d", asked, kept, many)
			}
		})
	}
}

// A storm of errors is in the log, and at the tracker only as a burst.
func TestErrorStorm(t *testing.T) {
	in := newIngest(t, nil)
	errs := in.tracker(t)
	errs.pace = rate.NewLimiter(0, trackerBurst) // nothing comes back while this runs
	log := slog.New(errs.handler(slog.NewTextHandler(io.Discard, nil)))
	for range 1000 {
		log.WithGroup("g").Error("again", "error", "in a group")
	}
	errs.close()
	events, texts := in.events(t)
	if len(events) != trackerBurst || strings.Contains(texts[0], "in a group") {
		t.Errorf("%d events", len(events))
	}
}

func TestBadDSN(t *testing.T) {
	for _, dsn := range []string{
		"x", "https://" + dsnKey, "https://" + dsnKey + "@/42", "https://sentry.example/42", "ftp://" + dsnKey + "@sentry.example/42",
		"https://" + dsnKey + "@sentry.example/", "https://" + dsnKey + "@sentry.example:port/42", "https://" + dsnKey + "@sentry.example/%zz",
	} {
		_, err := loadConfig(environment(map[string]string{"SENTRY_DSN": dsn}))
		if err == nil || !strings.Contains(err.Error(), "SENTRY_DSN") || len(dsn) > 1 && strings.Contains(err.Error(), dsn) || strings.Contains(err.Error(), dsnKey) {
			t.Errorf("%s: %v", dsn, err)
		}
	}
	cfg, err := loadConfig(environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if errs, err := newTracker(cfg); errs != nil || err != nil {
		t.Errorf("without a DSN: %v, %v", errs, err)
	}
}

func TestClean(t *testing.T) {
	errs := &tracker{secrets: []string{testSecret, "two words of a secret"}}
	for _, row := range []struct{ text, want string }{
		{"the disk is full", "the disk is full"},
		{"write /var/lib/relay/history/log: no space left on device", "write log: no space left on device"},
		{"dial tcp 10.0.0.1:80->[fe80::1%eth0]:9: refused", "dial tcp [addr]:80->[[addr]]:9: refused"},
		{"at ::1 or 1:2:3:4:5:6:7:8", "at [addr] or [addr]"},
		{"relay.go:12:5 at 18:04:05", "relay.go:12:5 at 18:04:05"},
		{`parsing "what \"he\" said": syntax`, `parsing [text]: syntax`},
		{"an open \"quotation", "an open [text]"},
		{"a`b`c", "a[text]c"},
		{"is two words of a secret, or", "is [secret], or"},
		{"key " + dsnKey, "key [secret]"},
		{"short eyJh", "short [token]"},
	} {
		if got := errs.clean(row.text); got != row.want {
			t.Errorf("%q: got %q, want %q", row.text, got, row.want)
		}
	}
	if got := errs.clean(strings.Repeat("ä ", 5000)); len(got) > maxReported+3 || !strings.HasSuffix(got, "…") {
		t.Errorf("%d bytes", len(got))
	}
}

// FuzzClean surrounds what must not leave by anything.
func FuzzClean(f *testing.F) {
	f.Add("token ", " refused")
	f.Add(`"`, `\`)
	f.Add("/a/", "/b")
	f.Add("0:", ":1")
	errs := &tracker{secrets: []string{testSecret}}
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, secret := range []string{testSecret, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "rgrt_c2ln-X1", "192.0.2.77", "2001:db8::77"} {
			if strings.Contains(before+after, secret[:4]) {
				continue
			}
			if got := errs.clean(before + secret + after); strings.Contains(got, secret) {
				t.Errorf("%q leaves in %q", secret, got)
			}
		}
	})
}
