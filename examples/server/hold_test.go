package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/internal/redistest"
)

// numberOf returns the number of a text in an export.
func numberOf(t *testing.T, export, text string) string {
	t.Helper()
	for line := range strings.Lines(export) {
		var e struct {
			Seq  uint64
			Text string
		}
		if json.Unmarshal([]byte(line), &e) == nil && strings.Contains(e.Text, `"text":"`+text+`"`) {
			return strconv.FormatUint(e.Seq, 10)
		}
	}
	t.Fatalf("%q is not in the export:\n%s", text, export)
	return ""
}

// What is erased while viewers are held, none of them has seen. A hold outlasts
// a restart of a server with AUTH_DIR.
func TestHoldAndRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := operable(t, durable(t, filepath.Join(dir, "history"), "AUTH_DIR="+filepath.Join(dir, "auth")))
	s, p := serving(t, env)
	device := s.publisher()
	viewer := s.viewer()
	device.publish("a")
	viewer.until("a")
	if out, _ := runVerb(t, 0, env, "hold"); !strings.Contains(out, "server release") {
		t.Errorf("hold says %q", out)
	}
	if out, _ := runVerb(t, 0, env, "hold", "-json"); !strings.Contains(out, `"all": false`) {
		t.Errorf("a second time: %q", out)
	}
	device.publish("bad", "b")
	s.shows("a")
	_ = p.cmd.Process.Kill()
	p.wait()
	s, _ = serving(t, env)
	viewer = s.viewer()
	if texts, _ := viewer.texts(1); !slices.Equal(texts, []string{"a"}) {
		t.Errorf("after a restart of the server, a viewer has %q", texts)
	}
	out, _ := runVerb(t, 0, env, "export")
	runVerb(t, 0, env, "erase", numberOf(t, out, "bad"))
	if texts, kinds := viewer.texts(1); !slices.Equal(texts, []string{"a"}) || kinds[0] != "history" {
		t.Errorf("after the erasure, a viewer has %q in %q", texts, kinds)
	}
	runVerb(t, 0, env, "release")
	if texts, kinds := viewer.texts(1); !slices.Equal(texts, []string{"b"}) || kinds[0] != "live" {
		t.Errorf("after the release, a viewer got %q in %q", texts, kinds)
	}
	s.shows("a", "b")
	if _, told := runVerb(t, 1, env, "release"); !strings.Contains(told, "404") {
		t.Errorf("a second release: %s", told)
	}
	if _, err := os.Stat(filepath.Join(dir, "auth", "hold.json")); !os.IsNotExist(err) {
		t.Error("the hold is still in its file:", err)
	}
	runVerb(t, 2, env, "hold", "x")
	runVerb(t, 2, env, "release", "x")
}

// A hold on one node is in force on all, and what is erased meanwhile is seen
// nowhere.
func TestNodesHold(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		engine := e.Start(t)
		a := start(t, func(c *config.Config) { onEngine(t, c, engine.Addr) })
		b := start(t, func(c *config.Config) { onEngine(t, c, engine.Addr) })
		device := b.publisher()
		viewers := []*peer{a.viewer(), b.viewer()}
		device.publish("a")
		for _, v := range viewers {
			v.until("a")
		}
		// A hold hides what is published in its own moment, and the moment is as
		// long as the node knows the engine's clock.
		testkit.Eventually(t, "the moment of the message has passed", func() bool {
			return a.srv.History.Now().Add(-time.Millisecond).After(a.srv.History.Since(history.Oldest()).Entries[0].At)
		})
		if since, err := a.srv.Brake.Hold(t.Context()); since.IsZero() || err != nil {
			t.Fatal(since, err)
		}
		held := func(s *testSite) bool { since, _ := s.srv.Brake.Held(); return !since.IsZero() }
		testkit.Eventually(t, "the other node holds", func() bool { return held(b) })
		device.publish("bad", "b")
		a.shows("a")
		b.shows("a")
		if n, err := a.srv.Relay.Erase(t.Context(), 2); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		for i, v := range viewers {
			if texts, kinds := v.texts(1); !slices.Equal(texts, []string{"a"}) || kinds[0] != "history" {
				t.Errorf("the viewer of node %d has %q in %q", i, texts, kinds)
			}
		}
		if err := b.srv.Brake.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, v := range viewers {
			if texts, _ := v.texts(1); !slices.Equal(texts, []string{"b"}) {
				t.Errorf("after the release, the viewer of node %d got %q", i, texts)
			}
		}
		testkit.Eventually(t, "the other node releases", func() bool { return !held(a) })
	})
}

// With a delay, a node whose engine is away shows what it showed before, also to
// new viewers, and goes on afterwards.
func TestDelayWithoutEngine(t *testing.T) {
	t.Parallel()
	engine := redistest.Start(t)
	s := start(t, func(c *config.Config) { onEngine(t, c, engine.Addr); c.Delay = 2 * time.Second })
	device := s.publisher()
	viewer := s.viewer()
	device.publish("a")
	viewer.until("a") // in its time
	engine.Pause()
	s.readyz(200, "degraded: engine")
	late := s.viewer()
	if texts, _ := late.texts(1); !slices.Equal(texts, []string{"a"}) {
		t.Errorf("while the engine is away, a new viewer has %q", texts)
	}
	engine.Continue()
	s.readyz(200, "ready")
	device.publish("b")
	viewer.until("b")
	late.until("b")
}
