package main

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/internal/freeport"
)

func TestHealthVerb(t *testing.T) {
	s := start(t, nil)
	answering := func(h http.HandlerFunc) string {
		other := httptest.NewServer(h)
		t.Cleanup(other.Close)
		return other.Listener.Addr().String()
	}
	for _, row := range []struct {
		name, host, addr string
		args             []string
		want             int
		says             string
	}{
		{"ready", "127.0.0.1", s.addr, nil, exitOK, "ready"},
		{"listening on every address", "0.0.0.0", s.addr, nil, exitOK, "ready"},
		{"by name", "localhost", s.addr, nil, exitOK, "ready"},
		{"no server listens", "127.0.0.1", freeport.Addr(t), nil, exitFailed, "refused"},
		{"stopping", "127.0.0.1", answering(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "stopping", http.StatusServiceUnavailable) }), nil, exitFailed, `503 Service Unavailable: "stopping"`},
		{"another server", "127.0.0.1", answering(http.NotFound), nil, exitFailed, "404"},
		{"a redirect is not followed", "127.0.0.1", answering(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }), nil, exitFailed, "302"},
		{"a flood", "127.0.0.1", answering(func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte("x"), 1<<20)) }), nil, exitOK, "x"},
		{"an argument", "127.0.0.1", s.addr, []string{"now"}, exitUsage, "takes no arguments"},
		{"no port", "127.0.0.1", "127.0.0.1:none", nil, exitFailed, "PORT"},
	} {
		_, port, err := net.SplitHostPort(row.addr)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		// The environment has no secret, since a health check needs none.
		env := environment(map[string]string{"JWT_SECRET": "-", "HOST": row.host, "PORT": port})
		code := run(t.Context(), append([]string{"health"}, row.args...), env, &out, &out)
		if code != row.want || !strings.Contains(out.String(), row.says) || out.Len() > 200 {
			t.Errorf("%s: exit code %d, want %d, and %q in:\n%s", row.name, code, row.want, row.says, &out)
		}
	}
	s.srv.DiskState("", errors.New("no space left"))
	var out bytes.Buffer
	_, port, _ := net.SplitHostPort(s.addr)
	if code := run(t.Context(), []string{"health"}, environment(map[string]string{"PORT": port}), &out, &out); code != exitOK || out.String() != "degraded\n" {
		t.Errorf("degraded: exit code %d, %q: it still serves", code, &out)
	}
}
