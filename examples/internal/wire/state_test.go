package wire_test

import (
	"encoding/json"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

// What holds after a series of messages, and what a message lacks of it.
func TestState(t *testing.T) {
	const memory = `{"available_mb":1,"percent_used":2,"total_mb":3}`
	for _, row := range []struct {
		why   string
		said  []string
		state string
		next  string // a message of a client of the original system that knows nothing else
		told  string
	}{
		{"nothing was said", []string{`{"text":"a"}`}, `{}`, `{"text":"b"}`, `{"text":"b"}`},
		{"each once", []string{`{"text":"","prompt":"p","timestamp":1}`, `{"text":"","memory":` + memory + `,"timestamp":2}`, `{"text":"","status":{"num_restarts":4},"timestamp":3}`, `{"text":"a","timestamp":4}`},
			`{"prompt":"p","status":{"num_restarts":4},"memory":` + memory + `}`,
			`{"text":"b","timestamp":9}`, `{"text":"b","memory":` + memory + `,"status":{"num_restarts":4},"prompt":"p","timestamp":9}`},
		{"the last counts", []string{`{"text":"","prompt":"p"}`, `{"text":"","prompt":"q"}`}, `{"prompt":"q"}`, `{"text":"","prompt":"r"}`, `{"text":"","prompt":"r"}`},
		{"empty is not absent", []string{`{"text":"","prompt":"p"}`, `{"text":"","prompt":""}`}, `{"prompt":""}`, `{"text":""}`, `{"text":"","prompt":""}`},
		{"a status holds field by field", []string{`{"text":"","status":{"num_restarts":4}}`, `{"text":"","status":{"is_restarting":false}}`, `{"text":"","status":{}}`},
			`{"status":{"is_restarting":false,"num_restarts":4}}`, `{"text":"","status":{"is_restarting":false}}`, `{"text":"","status":{"is_restarting":false,"num_restarts":4}}`},
		{"a restart begins anew, and is no state itself", []string{`{"text":"","prompt":"p","memory":` + memory + `}`, `{"text":"","status":{"is_restarting":true,"num_restarts":5}}`},
			`{"status":{"num_restarts":5}}`, `{"text":"a"}`, `{"text":"a","status":{"num_restarts":5}}`},
		{"what is before a restart does not hold after it", []string{`{"text":"","prompt":"p"}`}, `{"prompt":"p"}`, `{"text":"a","status":{"is_restarting":true}}`, `{"text":"a","status":{"is_restarting":true}}`},
		{"an empty status says nothing", []string{`{"text":"","status":{}}`}, `{}`, `{"text":""}`, `{"text":""}`},
	} {
		var s, parts wire.State
		for _, data := range row.said {
			m, ok := wire.Stored([]byte(data))
			if !ok {
				t.Fatal(data)
			}
			s.Take(&m)
			// Its parts say the same, each alone.
			if m.Restarting() {
				parts = wire.State{}
			}
			for _, part := range wire.Parts(&m) {
				if part != nil {
					parts.Take(part)
				}
			}
		}
		got, _ := json.Marshal(s)
		if fromParts, _ := json.Marshal(parts); string(got) != row.state || string(fromParts) != row.state || s.IsZero() != (row.state == "{}") {
			t.Errorf("%s: %s, from parts %s, want %s", row.why, got, fromParts, row.state)
		}
		m, _ := wire.Stored([]byte(row.next))
		if filled := s.Fill(&m); string(m.Bytes()) != row.told || filled != (row.told != row.next) {
			t.Errorf("%s: told %s, want %s", row.why, m.Bytes(), row.told)
		}
	}
}

// A text that quotes a field does not look as if it had one.
func TestSays(t *testing.T) {
	for _, row := range []struct {
		text string
		want bool
	}{{`{"prompt":1}`, false}, {`","memory":"`, false}, {`"status":`, false}} {
		m := wire.Message{Text: row.text}
		if got := wire.Says(m.Bytes()); got != row.want {
			t.Errorf("%s: %v", m.Bytes(), got)
		}
	}
	p := ""
	m := wire.Message{Prompt: &p}
	if !wire.Says(m.Bytes()) {
		t.Errorf("%s says nothing", m.Bytes())
	}
}

func TestHead(t *testing.T) {
	p := "<p>"
	got := string(wire.Head{Kind: wire.History, Pos: "x", State: wire.State{Prompt: &p}, Watching: 12}.Frame([]byte("1")))
	if want := `{"type":"history","pos":"x","state":{"prompt":"<p>"},"watching":12,"messages":[1]}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
