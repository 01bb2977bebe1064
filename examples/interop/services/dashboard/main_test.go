package main

import (
	"testing"

	"github.com/relayguard/relayguard/examples/internal/servicetest"
)

func TestDashboard(t *testing.T) { servicetest.Dashboard(t, site) }
