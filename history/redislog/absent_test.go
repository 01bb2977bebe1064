package redislog_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/internal/redistest"
)

// A process starts while the engine is away. It must not take that for an empty
// history.
func TestStartWithoutEngine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why  string
		away func(*redistest.Server, *redistest.Proxy)
		back func(*redistest.Server, *redistest.Proxy)
	}{
		{"the engine is killed",
			func(s *redistest.Server, p *redistest.Proxy) { s.Kill(); p.Cut() },
			func(s *redistest.Server, p *redistest.Proxy) { s.Restart() }},
		{"the engine is stopped",
			func(s *redistest.Server, _ *redistest.Proxy) { s.Pause() },
			func(s *redistest.Server, _ *redistest.Proxy) { s.Continue() }},
		{"the network holds everything",
			func(_ *redistest.Server, p *redistest.Proxy) { p.Hold() },
			func(_ *redistest.Server, p *redistest.Proxy) { p.Release() }},
		{"connections are refused",
			func(_ *redistest.Server, p *redistest.Proxy) { p.Refuse(); p.Cut() },
			func(_ *redistest.Server, p *redistest.Proxy) { p.Accept() }},
	} {
		t.Run(test.why, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
			proxy := redistest.Forward(t, server.Addr)
			start(t, server.Addr, quick()).append("one", "two")
			late := prepare(t, redistest.Client(t, proxy.Addr), quick())
			test.away(server, proxy)
			for range 2 {
				err := late.open(history.Config{})
				if err == nil || !strings.Contains(err.Error(), "redislog: the engine does not answer") {
					t.Fatal("without the engine:", err)
				}
			}
			ctx, cancel := context.WithCancel(ctx0)
			cancel()
			if _, err := late.engine.Open(ctx, "room", history.Config{}); !errors.Is(err, context.Canceled) {
				t.Error("with a context that has ended:", err)
			}
			test.back(server, proxy)
			redistest.Wait(t, "a log that opens", func() bool { return late.open(history.Config{}) == nil })
			if got := late.texts(); got != "one two" {
				t.Errorf("the node that came late has %q", got)
			}
			v := watch(late, history.Oldest())
			late.append("three")
			v.saw("one two three", 0, 0)
		})
	}
}
