package main

import (
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/internal/redistest"
)

// How many watch is in the frames if asked for, in the list of sessions and in a
// metric. A device that only publishes does not count.
func TestWatching(t *testing.T) {
	t.Parallel()
	for _, show := range []bool{false, true} {
		s := start(t, func(c *config.Config) { c.ShowWatching = show; c.RateConnections = 1000 })
		device, _ := connectTo(t, "ws://"+s.addr+"/ws?watch=0")
		device.authenticate(s.token(testDevice, time.Hour))
		a, b := s.viewer(), s.viewer()
		says := func(p *peer, want any) {
			t.Helper()
			if !show {
				want = nil
			}
			if got := p.await(func(m map[string]any) bool { return m["type"] != nil })["watching"]; got != want {
				t.Errorf("a frame says that %v watch, want %v", got, want)
			}
		}
		testkit.Eventually(t, "two watch", func() bool { return s.srv.Relay.Watching() == 2 })
		device.publish("a")
		says(a, 2.0)
		says(b, 2.0)
		if code, out := s.verb("sessions"); code != exitOK || !strings.Contains(out, testDevice) || !strings.Contains(out, "Connections that watch: 2.") {
			t.Errorf("sessions says\n%s", out)
		}
		if got := s.operator().metric("relayguard_viewers_open"); got != 2 {
			t.Errorf("the metric is %v", got)
		}
		b.leave()
		testkit.Eventually(t, "one watches", func() bool { return s.srv.Relay.Watching() == 1 })
		device.publish("b")
		says(a, 1.0)
	}
}

// The number is that of all servers on one engine, and one that has ended counts
// no longer.
func TestNodesWatching(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		engine := e.Start(t)
		a, b := readyNode(t, engine.Addr), readyNode(t, engine.Addr)
		for range 3 {
			a.viewer()
		}
		b.viewer()
		says := func(n *node, text string) {
			t.Helper()
			testkit.Eventually(t, "sessions says "+text, func() bool {
				out, _ := n.verb(exitOK, "sessions")
				return strings.Contains(out, "Connections that watch: "+text+".\n")
			})
		}
		says(a, "4, of which 3 on this server")
		says(b, "4, of which 1 on this server")
		if code := a.p.terminate(); code != exitOK {
			t.Error("exit code", code)
		}
		says(b, "1")
	})
}
