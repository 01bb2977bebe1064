package proxies_test

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/internal/redistest"
)

// With the balancing of compose-nodes.yaml, Caddy sends no visitor to a server
// that has stopped or waits for its engine.
func TestNodesBehindCaddy(t *testing.T) {
	compose, err := os.ReadFile("../../deploy/compose-nodes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?m)^      RELAY_BALANCING: \|\n((?:        .*\n)+)`).FindSubmatch(compose)
	if block == nil {
		t.Fatal("compose-nodes.yaml has no RELAY_BALANCING")
	}
	engine := redistest.Start(t)
	var nodes []*relay.Server
	for range 2 {
		n := relay.New(t, "REDIS_URL=redis://"+engine.Addr, "HISTORY_KEY=PVpLzpAmPvH0hqZ0mRVTvgBRVbVnNrLmzaBtLzLLdNE")
		n.Start()
		nodes = append(nodes, n)
	}
	p := startCaddyWith(t, nodes[0].Addr+" "+nodes[1].Addr, ecdsaKey, "RELAY_BALANCING="+string(block[1]))
	get := func(path string) (int, string) {
		res, err := p.client("127.0.0.2").Do(request(t, http.MethodGet, "https://"+site+path, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	ready := func() {
		t.Helper()
		testkit.Eventually(t, "both servers are ready, and Caddy knows it", func() bool {
			for range 20 {
				if status, body := get("/readyz"); status != http.StatusOK || body != "ready\n" {
					return false
				}
			}
			return true
		})
	}
	all := func(when string) {
		t.Helper()
		for i := range 30 {
			if status, body := get("/"); status != http.StatusOK || !strings.Contains(body, "<html") {
				t.Fatalf("%s, request %d is answered %d", when, i, status)
			}
		}
	}
	ready()
	for _, n := range nodes {
		n.Stop()
		all("after a server has stopped")
		n.Start()
		ready()
	}

	// A server that waits for its engine is not asked.
	nodes[0].Stop()
	engine.Kill()
	nodes[0].Start()
	testkit.Eventually(t, "only the server with a history is asked", func() bool {
		for range 20 {
			if status, body := get("/readyz"); status != http.StatusOK || body != "degraded: engine\n" {
				return false
			}
		}
		return true
	})
}
