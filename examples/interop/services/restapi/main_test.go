package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/apicheck"
	ours "github.com/relayguard/relayguard/examples/services/restapi/api"
)

func peer(trusted string) (http.Handler, error) {
	return newAPI(trusted, apicheck.Tenants, apicheck.Login)
}

func own(trusted string) (http.Handler, error) {
	return ours.New(ours.Config{Trusted: trusted, Tenants: apicheck.Tenants, Login: apicheck.Login})
}

// Both services behave alike.
func TestPeer(t *testing.T) { apicheck.Run(t, peer) }

// The service with ratelimit is shorter than the one with httprate.
func TestLines(t *testing.T) {
	const dir = "../../../services/restapi/"
	here, there := lines(t, dir+"main.go", dir+"api/api.go"), lines(t, "main.go")
	t.Logf("%d lines, and %d with the peer", here, there)
	if here >= there {
		t.Errorf("%d lines, and %d with the peer", here, there)
	}
}

// lines counts the lines that hold code.
func lines(t *testing.T, files ...string) (count int) {
	t.Helper()
	for _, file := range files {
		text, err := os.ReadFile(filepath.FromSlash(file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				count++
			}
		}
	}
	return count
}

// BenchmarkOrders compares calls with an API key, in turns. It reports the
// peer's time divided by ours, the median of the rounds. Each round has
// services of its own, since a hundred calls reach the limit.
func BenchmarkOrders(b *testing.B) {
	const calls = 90
	run := func(make apicheck.New) time.Duration {
		h, err := make("127.0.0.1")
		if err != nil {
			b.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/v1/orders", nil)
		r.RemoteAddr = "127.0.0.1:4711"
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
		r.Header.Set("X-API-Key", "key-1")
		begin := time.Now()
		for i := range calls {
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != http.StatusOK {
				b.Fatalf("call %d: %d", i, w.Code)
			}
		}
		return time.Since(begin)
	}
	var ratios []float64
	for round := 0; b.Loop(); round++ {
		if round%2 == 0 {
			a := run(own)
			ratios = append(ratios, float64(run(peer))/float64(a))
		} else {
			z := run(peer)
			ratios = append(ratios, float64(z)/float64(run(own)))
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratios[len(ratios)/2], "peer/ours")
}
