package main

import (
	"testing"

	"github.com/relayguard/relayguard/examples/internal/logcheck"
)

func TestService(t *testing.T) {
	s := &service{logs: map[string]*stream{}}
	defer s.close()
	logcheck.Run(t, s.handler())
}
