package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// The programs of publishing.md work as they are there, also if the relay makes
// them wait, or if an answer is lost.
func TestPublishingPrograms(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("publishing.md")
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, crowded)
	origin := &url.URL{Scheme: "http", Host: s.addr}
	for _, program := range []struct{ heading, fence, file, name, install string }{
		{"curl", "sh", "publish.sh", "curl", "curl"},
		{"Python", "python", "publish.py", "python3", "python3"},
		{"JavaScript", "js", "publish.mjs", "node", "nodejs"},
	} {
		t.Run(program.heading, func(t *testing.T) {
			interpreter, err := exec.LookPath(program.name)
			if err != nil {
				testkit.Missing(t, "no "+program.name+": install it (on Debian: apt-get install "+program.install+")")
			}
			if program.heading == "curl" {
				interpreter = "sh"
			}
			_, rest, _ := strings.Cut(string(page), "## "+program.heading+"\n\n```"+program.fence+"\n")
			text, _, found := strings.Cut(rest, "```\n")
			if lines := strings.Count(text, "\n"); !found || lines > 20 {
				t.Fatalf("the program has %d lines", lines)
			}
			file := filepath.Join(t.TempDir(), program.file)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}

			// The first request is not answered by the relay, and the answer to
			// the second is lost.
			var asked atomic.Int64
			forward := httputil.NewSingleHostReverseProxy(origin)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := asked.Add(1)
				if n <= 2 {
					if n == 2 {
						forward.ServeHTTP(httptest.NewRecorder(), r)
					}
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				forward.ServeHTTP(w, r)
			}))
			defer front.Close()
			run := func(token, input string) (string, error) {
				cmd := exec.CommandContext(t.Context(), interpreter, file)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "RELAY=" + front.URL, "TOKEN=" + token}
				cmd.Stdin = strings.NewReader(input)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			const input = "first\nit's \"quoted\", with a \\ and $HOME\n\nçà et là: 💡\nthe last, without a line end"
			token := s.token(testDevice, time.Hour)
			signal := s.post(token, `{"text":"","status":{"is_restarting":true}}`)
			if out, err := run(token, input); err != nil || signal.Status != 202 {
				t.Fatalf("%v: %s", err, out)
			}
			var want []string
			for line := range strings.SplitSeq(input, "\n") {
				want = append(want, line+"\n")
			}
			if program.heading == "Python" {
				want[len(want)-1] = strings.TrimSuffix(want[len(want)-1], "\n")
			}
			s.shows(want...)
			if n := asked.Load(); n != int64(len(want))+2 {
				t.Errorf("%d requests for %d messages", n, len(want))
			}
			out, err := run("x.y.canary", "no\n")
			if err == nil || !strings.Contains(out, "Authentication failed") || strings.Contains(out, "canary") {
				t.Errorf("with a wrong token (%v): %s", err, out)
			}
		})
	}
}
