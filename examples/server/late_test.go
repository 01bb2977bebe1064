package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// late returns the first frame of a new viewer: what it says holds, and its
// first message.
func (s *testSite) late() (state, first string) {
	s.t.Helper()
	p := s.viewer()
	defer p.leave()
	frame := p.await(func(m map[string]any) bool { return m["type"] == "history" })
	list, _ := frame["messages"].([]any)
	if len(list) == 0 {
		s.t.Fatal("a history frame without messages")
	}
	message := list[0].(map[string]any)
	delete(message, "timestamp")
	b, _ := json.Marshal(frame["state"])
	m, _ := json.Marshal(message)
	return string(b), string(m)
}

// What was said once holds for late visitors: over a socket, after a crash, an
// end, an export, an import and an erasure.
func TestLateVisitors(t *testing.T) {
	t.Parallel()
	const (
		memory = `{"available_mb":1,"percent_used":2,"total_mb":3}`
		all    = `{"memory":` + memory + `,"prompt":"think","status":{"num_restarts":4}}`
	)
	dir := filepath.Join(t.TempDir(), "history")
	env := operable(t, durable(t, dir, "HISTORY_KEEP=5", "HISTORY_TRIM_AT=6"))
	s, p := serving(t, env)
	want := func(why, state, first string) {
		t.Helper()
		if gotState, gotFirst := s.late(); gotState != state || gotFirst != first {
			t.Errorf("%s: %s, and %s", why, gotState, gotFirst)
		}
	}
	device := s.publisher()
	device.send(`{"text":"","status":{"is_restarting":true,"num_restarts":4},"id":"r"}`)
	device.await(func(m map[string]any) bool { return m["ack"] == "r" })
	want("the life has no text yet", `{"status":{"num_restarts":4}}`, `{"status":{"num_restarts":4},"text":""}`)
	device.send(`{"text":"w0 ","prompt":"think","memory":` + memory + `,"id":"p"}`)
	device.await(func(m map[string]any) bool { return m["ack"] == "p" })
	want("the first message is kept", all, `{"memory":`+memory+`,"prompt":"think","status":{"num_restarts":4},"text":"w0 "}`)
	for i := 1; i < 20; i++ {
		device.publish(fmt.Sprintf("w%d ", i))
	}
	patched := func(text string) string {
		return strings.TrimSuffix(all, "}") + `,"text":"` + text + `"}`
	}
	want("it is dropped", all, patched("w14 "))

	_ = p.cmd.Process.Kill()
	p.wait()
	archived := filepath.Join(t.TempDir(), "a.jsonl")
	runVerb(t, 0, env, "export", "-o", archived)
	s, p = serving(t, env)
	want("after a crash", all, patched("w14 "))
	if code := p.terminate(); code != 0 {
		t.Error("exit code", code)
	}
	s, _ = serving(t, env)
	want("after an end", all, patched("w14 "))

	text, err := os.ReadFile(archived)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `{"seq":1,`) || !strings.Contains(string(text), "think") {
		t.Errorf("the archive:\n%s", text)
	}
	runVerb(t, 0, env, "erase", "1")
	state, first := s.late()
	if strings.Contains(state+first, "think") || strings.Contains(state+first, "percent_used") {
		t.Errorf("erased, but %s, and %s", state, first)
	}
	if out, _ := runVerb(t, 0, env, "export"); strings.Contains(out, "think") {
		t.Errorf("erased, but in an export:\n%s", out)
	}
	runVerb(t, 0, env, "import", archived)
	want("imported", all, patched("w14 "))
	runVerb(t, 0, env, "erase", "-all")
	if p := s.viewer(); p != nil {
		s.publisher().publish("new")
		p.await(func(m map[string]any) bool { return m["type"] == "live" && m["state"] == nil })
	}
}
