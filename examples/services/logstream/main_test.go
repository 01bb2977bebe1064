package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/logcheck"
)

func TestService(t *testing.T) {
	s, err := newService()
	if err != nil {
		t.Fatal(err)
	}
	defer s.logs.Close()
	logcheck.Run(t, s.handler())
	if stats := s.logs.Stats(); stats.Logs != logcheck.Logs {
		t.Errorf("%+v", stats)
	}
}

// A build that is quiet, and whose request therefore lasts, does not keep the
// service from stopping.
func TestStopsDuringARequest(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- run(ctx, listener, time.Millisecond) }()
	body, lines := io.Pipe()
	defer lines.Close()
	url := "http://" + listener.Addr().String() + "/logs/build-7"
	go http.Post(url, "text/plain", body)
	io.WriteString(lines, "one\n")
	for {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK { // the build has begun
			break
		}
	}
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
