package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/services/worker/config"
	"github.com/relayguard/relayguard/internal/freeport"
)

// TestMain makes the test binary usable as the worker, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("RELAYGUARD_TEST_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const (
	token    = "Hc7xV2pQm9LsT4wKb8Zd"
	password = "f3Jk8rYq1WnX6vBt5GsP"
)

var key = func() []byte { b := make([]byte, 32); rand.Read(b); return b }()

// start starts the worker in a directory of its own, with an environment that
// holds only the variables.
func start(t *testing.T, dir string, vars map[string]string, args ...string) (cmd *exec.Cmd, stdout, stderr *testkit.Log) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr = new(testkit.Log), new(testkit.Log)
	cmd = exec.Command(exe, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, stdout, stderr
	cmd.Env = []string{"RELAYGUARD_TEST_MAIN=1"}
	for name, value := range vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, stdout, stderr
}

// queue is an HTTP queue, and the service that gets the results.
type queue struct {
	mu      sync.Mutex
	jobs    []string // kind and text
	results map[string]string
	refuse  int // results that are answered with 503
	auth    []string
}

func (q *queue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.Method == http.MethodPost {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s\n%s", r.Header.Get("Job-Id"), body)
		if q.refuse > 0 {
			q.refuse--
			w.WriteHeader(http.StatusServiceUnavailable)
		} else if r.Header.Get("Signature") == hex.EncodeToString(mac.Sum(nil)) && r.Header.Get("Label-team") == "art" {
			q.results[r.Header.Get("Job-Id")] = string(body)
		}
		return
	}
	q.auth = append(q.auth, r.Header.Get("Authorization"))
	if len(q.jobs) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	kind, text, _ := strings.Cut(q.jobs[0], " ")
	w.Header().Set("Job-Id", fmt.Sprint(len(q.jobs)))
	w.Header().Set("Job-Kind", kind)
	q.jobs = q.jobs[1:]
	io.WriteString(w, text)
}

func (q *queue) count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.results)
}

// The worker is configured by its environment, a credential of systemd and a
// .env file together, does its jobs, and stops with a signal.
func TestWorker(t *testing.T) {
	q := &queue{jobs: []string{"upper hello", "sha256 hello", "count a b  c", "other x", "upper " + strings.Repeat("x", 2000)}, results: map[string]string{}, refuse: 2}
	server := httptest.NewServer(q)
	defer server.Close()
	dir, credentials := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, ".env"), "# of the developer\nLABELS=team=art\nWORKERS=2\nPOLL_EVERY=10ms\nQUEUE_URL='"+server.URL+"/wrong'\n")
	write(filepath.Join(dir, "key"), base64.StdEncoding.EncodeToString(key)+"\n")
	write(filepath.Join(credentials, "QUEUE_TOKEN"), token+"\n")
	health := freeport.Addr(t)
	cmd, _, stderr := start(t, dir, map[string]string{
		"CREDENTIALS_DIRECTORY": credentials, "QUEUE_URL": server.URL, "RESULT_URL": server.URL, "SIGNING_KEY_FILE": "key",
		"BACKOFF_FIRST": "1ms", "BACKOFF_MAX": "2ms", "HEALTH_ADDR": health, "MAX_JOB_BYTES": "1KiB", "LOG_FORMAT": "json", "JITTER": "0", "ATTEMTPS": "9",
	})
	testkit.Eventually(t, "three results", func() bool { return q.count() == 3 })
	testkit.Eventually(t, "both errors", func() bool { return strings.Count(stderr.String(), "a job failed") == 2 })
	testkit.Eventually(t, "the answer about its health", func() bool {
		resp, err := http.Get("http://" + health + "/healthz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body) == "ok, 3 jobs done\n"
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	sum := sha256.Sum256([]byte("hello"))
	if q.results["5"] != "HELLO" || q.results["4"] != hex.EncodeToString(sum[:]) || q.results["3"] != "3" {
		t.Errorf("results: %v", q.results)
	}
	if slices.Compact(q.auth)[0] != "Bearer "+token {
		t.Errorf("the queue was asked with %q", q.auth[0])
	}
	log := stderr.String()
	for _, want := range []string{`"meant":"ATTEMPTS"`, "is of the kind", "more than 1024 bytes", `"done":3`} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in the log\n%s", want, log)
		}
	}
	if strings.Contains(log, token) || strings.Contains(log, base64.StdEncoding.EncodeToString(key)) {
		t.Errorf("a secret in the log\n%s", log)
	}
}

// A library that quotes a password in an error does not put it into the log.
func TestSecretsOfErrors(t *testing.T) {
	_, _, stderr := start(t, t.TempDir(), map[string]string{
		"QUEUE_URL": "http://127.0.0.1:1/", "RESULT_URL": "http://127.0.0.1:1/", "SIGNING_KEY": base64.StdEncoding.EncodeToString(key), "QUEUE_USER": "u",
		"QUEUE_PASSWORD": password, "PROXY_URL": "socks5://u:" + password + "%40@" + password + ".invalid:1", "HEALTH_ADDR": "",
	})
	testkit.Eventually(t, "an error", func() bool { return strings.Contains(stderr.String(), "a job failed") })
	if log := stderr.String(); strings.Contains(log, password) || !strings.Contains(log, "[redacted]") {
		t.Errorf("the log:\n%s", log)
	}
}

// Every problem is reported at once, without a value, and the process ends.
func TestProblems(t *testing.T) {
	vars := map[string]string{
		"QUEUE_URL": "ftp://hunter2.example", "RESULT_URL": "https://u:hunter2@h", "SIGNING_KEY": "hunter2", "QUEUE_TOKEN": "hunter2", "QUEUE_USER": "u",
		"KINDS": "upper,lower", "RATE": "0", "BACKOFF_MAX": "1ms", "SINCE": "hunter2", "LABELS": "a", "INSTANCE": "A", "CLIENT_KEY_FILE": "hunter2",
		"HEALTH_NETWORKS": "127.0.0.1", "DRY_RUN": "yes", "JOB_TIMEOUT": "1ms",
	}
	const want = `envcheck: QUEUE_URL must be a URL that begins with https:// or http:// and has a host
envcheck: QUEUE_TOKEN must have at least 16 characters
envcheck: QUEUE_PASSWORD is required together with QUEUE_USER; set it or QUEUE_PASSWORD_FILE
envcheck: RESULT_URL must not have a user or a password in it, since it is not treated as a secret
envcheck: SIGNING_KEY must be 32 to 64 bytes in base64
envcheck: KINDS item 2 must be upper, sha256 or count
envcheck: RATE must be a number of 0.001 or more
envcheck: JOB_TIMEOUT must be a duration of 1s or more, like 90s or 1h30m (a day is 24h)
envcheck: BACKOFF_MAX must not be below BACKOFF_FIRST
envcheck: SINCE must be a time like 2026-01-31T18:30:00Z
envcheck: LABELS pair 1 must have the form KEY=VALUE
envcheck: INSTANCE must be at most 32 small letters, digits and hyphens
envcheck: CLIENT_CERT_FILE is required together with CLIENT_KEY_FILE
envcheck: CLIENT_KEY_FILE names a file that does not exist
envcheck: HEALTH_NETWORKS item 1 must be a network like 10.0.0.0/8
envcheck: DRY_RUN must be true or false
`
	cmd, _, stderr := start(t, t.TempDir(), vars)
	if err := cmd.Wait(); err == nil || stderr.String() != want {
		t.Errorf("%v\ngot:\n%s\nwant:\n%s", err, stderr, want)
	}
	cmd, stdout, stderr := start(t, t.TempDir(), vars, "-check")
	if err := cmd.Wait(); err == nil || stderr.String() != want || strings.Count(stdout.String(), "\n") != 31 || strings.Contains(stdout.String(), "hunter2") {
		t.Errorf("-check: %v\n%s%s", err, stdout, stderr)
	}
}

// The .env file that the worker prints can be filled in and read, and it names
// all thirty variables.
func TestExampleFile(t *testing.T) {
	var out strings.Builder
	if code := run(context.Background(), []string{"-example"}, &out, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, v := range new(config.Config).Spec().Vars {
		if !strings.Contains(out.String(), v.Name+"=") {
			t.Errorf("no %s", v.Name)
		}
	}
	if n := len(new(config.Config).Spec().Vars); n != 30 {
		t.Errorf("%d variables, want 30", n)
	}
	text := strings.NewReplacer("SIGNING_KEY=\n", "SIGNING_KEY='"+base64.StdEncoding.EncodeToString(key)+"'\n", "#QUEUE_TOKEN=", "QUEUE_TOKEN="+token).Replace(out.String())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, stdout, stderr := start(t, dir, nil, "-check")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s%s", err, stdout, stderr)
	}
}
