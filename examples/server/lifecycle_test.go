package main

//lint:file-ignore SA1019 see harness_test.go

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
)

func TestStopWithViewers(t *testing.T) {
	t.Parallel()
	const viewers = 500
	p := launch(t, true, t.TempDir(), []string{
		"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "RATE_LIMIT_CONNECTIONS=100000",
	})
	s := &testSite{t: t, addr: p.addr}
	codes := make([]int, viewers)
	var all sync.WaitGroup
	for i := range codes {
		v := s.viewer()
		// It reads from now on, or it would not answer pings while the others
		// connect.
		all.Go(func() {
			var err error
			for err == nil {
				_, _, err = v.ws.Read(context.Background())
			}
			codes[i] = int(websocket.CloseStatus(err))
		})
	}
	// One viewer does not answer, and must not delay the others.
	stubborn(t, p.addr)

	before := time.Now()
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d, want 0:\n%s", code, p.stderr)
	}
	t.Logf("stopped with %d viewers in %v", viewers, time.Since(before).Round(time.Millisecond))
	all.Wait()
	for i, code := range codes {
		if code != 1001 {
			t.Fatalf("viewer %d: close code %d, want 1001", i, code)
		}
	}
}

// TestNothingIsLeft opens and closes connections of every kind, and counts the
// goroutines and files that remain.
func TestNothingIsLeft(t *testing.T) {
	s := start(t, func(c *config.Config) { c.RateConnections, c.MaxAttempts = 10_000, 100_000 })
	s.get("/") // creates everything that is created only once, before counting
	s.publisher().cut()
	testkit.Eventually(t, "gone", func() bool { return s.srv.Relay.Len() == 0 })
	http.DefaultClient.CloseIdleConnections()
	goroutinesBefore, filesBefore := goroutines(), descriptors(t)

	for round := range 10 {
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				switch i % 4 {
				case 0:
					s.viewer().leave()
				case 1:
					s.viewer().cut()
				case 2:
					s.publisher().cut()
				case 3:
					c := upgraded(t, s.addr)
					c.write([]byte{finText, 0x80 | 50, 1})
					c.conn.Close()
				}
			})
		}
		all.Wait()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	testkit.Eventually(t, "no connection is left", func() bool { return s.srv.Relay.Len() == 0 && s.srv.Watch.Limiter().Stats().Open == 0 })
	testkit.Eventually(t, "no goroutine is left", func() bool { return goroutines() <= goroutinesBefore })
	testkit.Eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= filesBefore })
}

func descriptors(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		testkit.Missing(t, "descriptors are counted in /proc/self/fd: run this on Linux")
	}
	return len(files)
}

// TestDemo runs the README's command and checks its promises: a page, a stream
// within moments, and a valid token.
func TestDemo(t *testing.T) {
	t.Parallel()
	// This is the environment of a real installation, which the demonstration
	// must not touch.
	installation := t.TempDir()
	history, auth, in := filepath.Join(installation, "history"), filepath.Join(installation, "auth"), testkit.NewIngest(t, nil)
	if err := os.Mkdir(auth, 0o700); err != nil {
		t.Fatal(err)
	}
	const damaged = "not JSON, and the server would refuse to start"
	if err := os.WriteFile(filepath.Join(auth, "revocations.json"), []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, true, t.TempDir(), []string{
		"PORT=" + freePort(t), "HISTORY_DIR=" + history, "HISTORY_KEY=" + testKey, "AUTH_DIR=" + auth, "SENTRY_DSN=" + in.DSN,
	}, "-demo")
	s := &testSite{t: t, addr: p.addr}
	if res, body := s.get("/"); res.StatusCode != 200 || !strings.Contains(body, "<html") {
		t.Errorf("no page: %d", res.StatusCode)
	}
	watcher := s.viewer()
	memory := watcher.await(func(m map[string]any) bool {
		if m["type"] == nil {
			return false
		}
		for _, e := range m["messages"].([]any) {
			if e.(map[string]any)["memory"] != nil {
				return true
			}
		}
		return false
	})
	if memory == nil {
		t.Error("no memory figures")
	}
	testkit.Eventually(t, "all is printed", func() bool { return strings.Contains(p.stdout.String(), "Ctrl-C") })
	out := p.stdout.String()
	if !strings.Contains(out, "http://"+p.addr+"/") {
		t.Errorf("the page's address is not printed:\n%s", out)
	}
	_, token, _ := strings.Cut(out, `{"token":"`)
	token, _, _ = strings.Cut(token, `"`)
	guest := s.viewer()
	guest.authenticate(token)
	guest.send(`{"text":"a visitor"}`)
	for seen := false; !seen; {
		texts, _ := watcher.texts(1)
		seen = strings.Contains(strings.Join(texts, "|"), "a visitor")
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
	if _, err := os.Stat(history); err == nil {
		t.Error("the demonstration writes to the installation's history")
	}
	if text, err := os.ReadFile(filepath.Join(auth, "revocations.json")); err != nil || string(text) != damaged {
		t.Errorf("the installation's revocations are %q, %v", text, err)
	}
	if asked, _ := in.Counts(); asked > 0 {
		t.Error("the demonstration reports to the installation's error tracker")
	}
}

func TestVerbs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte(testSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := []string{"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice}
	for _, row := range []struct {
		name string
		env  []string
		args []string
		code int
		out  string // on standard output
		err  string // on standard error
	}{
		{"check", good, []string{"check"}, 0, "JWT_SECRET", ""},
		{"-check", good, []string{"-check"}, 0, "usable", ""},
		{"check from a file", []string{"JWT_SECRET_FILE=" + file, good[1]}, []string{"check"}, 0, "file", ""},
		{"check, both", append(good, "JWT_SECRET_FILE="+file), []string{"check"}, 1, "JWT_SECRET_FILE", ""},
		{"check, bad", good[:1], []string{"check"}, 1, "ALLOWED_DEVICE_ID", ""},
		{"near miss", append(good, "RATE_LIMIT_CONECTIONS=3"), []string{"check"}, 0, "misspelt RATE_LIMIT_CONNECTIONS?", ""},
		{"marks crossed, and more", append(good, "HISTORY_TRIM_AT=10", "LOG_LEVEL=loud"), []string{"check"}, 1, "HISTORY_TRIM_AT must not", ""},
		{"origin pattern", append(good, "ALLOWED_ORIGINS=https://*.example"), []string{"check"}, 1, "ALLOWED_ORIGINS", ""},
		{"operator everywhere", append(good, "OPERATOR_ADDR=:3001"), []string{"check"}, 1, "OPERATOR_ADDR", ""},
		{"operator on no port", append(good, "OPERATOR_ADDR=127.0.0.1:0"), []string{"check"}, 1, "OPERATOR_ADDR", ""},
		{"host by name", append(good, "HOST=no such host"), []string{"check"}, 1, "HOST", ""},
		{"too small", append(good, "HISTORY_MAX_BYTES=10"), []string{"check"}, 1, "HISTORY_MAX_BYTES", ""},
		{"secret", nil, []string{"secret"}, 0, "", ""},
		{"token", good, []string{"token", "-ttl", "1h"}, 0, "ey", ""},
		{"token, unknown device", good, []string{"token", "-device", "pi-9"}, 1, "", "pi-9"},
		{"token, no environment", nil, []string{"token"}, 1, "", "JWT_SECRET"},
		{"unknown verb", good, []string{"sevre"}, 2, "", "usage"},
		{"unknown flag", good, []string{"-dmeo"}, 2, "", "usage"},
		{"help", nil, []string{"-h"}, 0, "", "usage"},
		{"port in use", append(good, "PORT="+busyPort(t)), nil, 1, "", "PORT"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := launch(t, false, dir, row.env, row.args...)
			if code := p.wait(); code != row.code {
				t.Errorf("exit code %d, want %d", code, row.code)
			}
			if !strings.Contains(p.stdout.String(), row.out) || !strings.Contains(p.stderr.String(), row.err) {
				t.Errorf("got\n%s\nand\n%s\nwant %q and %q", p.stdout, p.stderr, row.out, row.err)
			}
			if strings.Contains(p.stdout.String()+p.stderr.String(), testSecret) {
				t.Error("the secret is printed")
			}
		})
	}
}

// busyPort returns a port on which another listener listens during the test.
func busyPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}
