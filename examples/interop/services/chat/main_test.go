package main

import (
	"testing"

	"github.com/relayguard/relayguard/examples/internal/servicetest"
)

func TestChat(t *testing.T) { servicetest.Chat(t, site) }
