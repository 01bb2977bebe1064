package main

import (
	"bytes"
	"fmt"
	"go/scanner"
	"go/token"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/internal/freeport"
)

const ours = "../../../services/thirdparties"

// answers asks a service on plain HTTP and behind a load balancer.
func answers(t *testing.T, url string) map[string]http.Header {
	t.Helper()
	all := map[string]http.Header{}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, target := range []string{"GET /", "GET /absent", "POST /", "POST /checkout", "POST /reports"} {
		method, path, _ := strings.Cut(target, " ")
		for _, proto := range []string{"http", "https"} {
			req, err := http.NewRequest(method, url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Forwarded-Proto", proto)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			// Embedded files have no time.
			for _, name := range []string{"Date", "Content-Length", "Last-Modified"} {
				res.Header.Del(name)
			}
			all[fmt.Sprintf("%s over %s: %d", target, proto, res.StatusCode)] = res.Header
		}
	}
	return all
}

// Both services answer each request with the same status and headers.
func TestSameAnswers(t *testing.T) {
	peer := httptest.NewServer(site(slog.New(slog.DiscardHandler), os.DirFS(ours)))
	defer peer.Close()
	here, there := answers(t, start(t)), answers(t, peer.URL)
	if len(here) != 10 {
		t.Fatalf("%d answers, want 10", len(here))
	}
	for request, h := range here {
		if there[request] == nil {
			t.Errorf("%s: the peer answers with another status", request)
		}
		for name := range h {
			if got, want := h[name], there[request][name]; strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("%s: %s: %q here, %q there", request, name, got, want)
			}
		}
		if len(h) != len(there[request]) {
			t.Errorf("%s: %d headers here, %d there", request, len(h), len(there[request]))
		}
	}
}

// start runs our service and returns its URL.
func start(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "service")
	if runtime.GOOS == "windows" {
		file += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", file, "github.com/relayguard/relayguard/examples/services/thirdparties").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr := freeport.Addr(t)
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), "ADDR="+addr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	testkit.Eventually(t, "the service accepts connections", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return "http://" + addr
}

// The peer reduces and counts reports as ours does, so its lines are for the
// same work.
func TestReports(t *testing.T) {
	var log bytes.Buffer
	peer := httptest.NewServer(site(slog.New(slog.NewTextHandler(&log, nil)), os.DirFS(ours)))
	defer peer.Close()
	for _, report := range []string{
		`[{"type":"csp-violation","url":"https://shop.example/?user=7","body":{"effectiveDirective":"img-src","blockedURL":"https://evil.example/x.js?secret"}}]`,
		`{"csp-report":{"effective-directive":"img-src","blocked-uri":"https://evil.example/y","document-uri":"https://shop.example/"}}`,
		`{`,
	} {
		res, err := peer.Client().Post(peer.URL+"/reports", "application/reports+json", strings.NewReader(report))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusNoContent {
			t.Errorf("got %s", res.Status)
		}
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "blocked=https://evil.example page=/") {
		t.Errorf("got %s", got)
	}
}

// lines counts the lines of a file that have code.
func lines(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	f := fset.AddFile(file, -1, len(text))
	var s scanner.Scanner
	s.Init(f, text, nil, 0)
	code := map[int]bool{}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return len(code)
		}
		first := fset.Position(pos).Line
		for line := first; line <= first+strings.Count(strings.TrimSuffix(lit, "\n"), "\n"); line++ {
			code[line] = true
		}
	}
}

// Our service has fewer lines of code than the peer's.
func TestLines(t *testing.T) {
	here, there := lines(t, filepath.Join(ours, "main.go")), lines(t, "main.go")
	t.Logf("%d lines here, %d with unrolled/secure", here, there)
	if here >= there {
		t.Errorf("%d lines here, %d with unrolled/secure", here, there)
	}
}
