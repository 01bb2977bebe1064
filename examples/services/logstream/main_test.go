package main

import (
	"testing"

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
