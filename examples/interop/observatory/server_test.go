package observatory_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/headers"
)

// The relay's own page, from the real server in production behind a proxy that ends TLS.
func TestServersPage(t *testing.T) {
	target := startServer(t)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}}
	s := serveBoth(t, proxy)
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()

	v := ask(t, request{Hosts: []string{s.Listener.Addr().String()}, Policies: res.Header["Content-Security-Policy"]}, s.Certificate().Raw)
	scan, got := v.Scans[0], headers.Grade(res.Header, true)
	if scan.Grade != "A+" || got.Score != scan.Score {
		t.Errorf("the Observatory says %d %s, Grade %d %s: %+v", scan.Score, scan.Grade, got.Score, got.Grade, scan.Results)
	}
	for _, f := range got.Findings {
		if f.Remark {
			t.Errorf("%s: %s", f.Test, f.Reason)
		}
	}
	for _, f := range v.Findings[0] {
		if f.Severity < informational {
			t.Errorf("csp_evaluator: %d %s: %s", f.Severity, f.Directive, f.Description)
		}
	}
}

// startServer builds the relay and runs it on a free port until the test ends.
func startServer(t *testing.T) *url.URL {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "relay")
	if out, err := exec.Command("go", "build", "-C", "../../..", "-o", bin, "./examples/server").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr)
	ln.Close()

	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), "NODE_ENV=production", "JWT_SECRET="+rand.Text()+rand.Text(), "ALLOWED_DEVICE_ID=pi-1",
		"HOST=127.0.0.1", fmt.Sprintf("PORT=%d", addr.Port), "OPERATOR_ADDR=")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-exited
		if t.Failed() {
			t.Logf("the server:\n%s", &log)
		}
	})
	target := &url.URL{Scheme: "http", Host: addr.String()}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); ; {
		if res, err := http.Get(target.String() + "/readyz"); err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			return target
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the server does not answer")
		case err := <-exited:
			exited <- err
			t.Fatalf("the server ended: %v", err)
		}
	}
}

// serveBoth serves a handler over TLS and redirects there from plain HTTP on the same port.
func serveBoth(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	both := newSplitter(s.Listener)
	s.Listener = both.secure
	s.StartTLS()
	t.Cleanup(s.Close)
	plain := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://"+r.Host+r.RequestURI, http.StatusMovedPermanently)
	}))
	plain.Listener.Close()
	plain.Listener = both.plain
	plain.Start()
	t.Cleanup(plain.Close)
	return s
}
