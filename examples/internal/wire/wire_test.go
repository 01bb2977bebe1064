package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

func TestDecodeAccepts(t *testing.T) {
	for _, tc := range []struct{ name, in, out, why string }{
		{"text", `{"text":"a"}`, `{"text":"a","timestamp":5}`, "the least that a message can be"},
		{"empty text", `{"text":""}`, `{"text":"","timestamp":5}`, "text is required and may be empty"},
		{"all", `{"text":"a","memory":{"available_mb":1.5,"percent_used":2,"total_mb":3},"status":{"is_restarting":false,"num_restarts":7},"prompt":"p"}`,
			`{"text":"a","memory":{"available_mb":1.5,"percent_used":2,"total_mb":3},"status":{"is_restarting":false,"num_restarts":7},"prompt":"p","timestamp":5}`, "every field survives"},
		{"unknown", `{"text":"a","user":{"x":[1]},"timestamp":9}`, `{"text":"a","timestamp":5}`, "unknown fields are dropped, and only the server sets the timestamp"},
		{"id", `{"text":"a","id":"x1"}`, `{"text":"a","timestamp":5}`, "viewers do not get the id"},
		{"empty id", `{"text":"a","id":""}`, `{"text":"a","timestamp":5}`, "an empty id is none"},
		{"empty status", `{"text":"a","status":{}}`, `{"text":"a","status":{},"timestamp":5}`, "both of its fields are optional"},
		{"empty prompt", `{"text":"a","prompt":""}`, `{"text":"a","prompt":"","timestamp":5}`, "empty is not absent"},
		{"other case", `{"text":"a","Prompt":"p"}`, `{"text":"a","timestamp":5}`, "names are compared exactly: this one is unknown"},
		{"markup", `{"text":"<b>&"}`, `{"text":"<b>&","timestamp":5}`, "text is text, not HTML"},
		{"spaces", " {\"text\" : \"a\"}\n", `{"text":"a","timestamp":5}`, "JSON allows white space around a value"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := wire.Decode([]byte(tc.in))
			if err != nil {
				t.Fatalf("Decode: %v (%s)", err, tc.why)
			}
			if got := string(m.Encode(time.UnixMilli(5))); got != tc.out {
				t.Errorf("got %s, want %s (%s)", got, tc.out, tc.why)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range []struct{ name, in, field, why string }{
		{"array", `[]`, "message", "a message is an object"},
		{"null", `null`, "message", "null is not a message"},
		{"nothing", ``, "message", "an empty input is not a message"},
		{"two", `{"text":"a"}{"text":"b"}`, "message", "one message a frame"},
		{"stray brace", `{"text":"a"}}`, "message", "nothing may follow the message"},
		{"cut", `{"text":"a"`, "message", "cut off"},
		{"no text", `{"prompt":"p"}`, "text", "text is required"},
		{"text null", `{"text":null}`, "text", "null is not absent"},
		{"text number", `{"text":1}`, "text", "wrong type"},
		{"text twice", `{"text":"a","text":"b"}`, "message", "parsers disagree on which counts"},
		{"escaped twice", `{"text":"a","te\u0078t":"b"}`, "message", "the same name, written with an escape"},
		{"unknown twice", `{"text":"a","x":1,"x":2}`, "message", "the rule holds for dropped fields too"},
		{"twice in an unknown object", `{"text":"a","x":[{"y":1,"y":2}]}`, "message", "and in what they hold"},
		{"prompt null", `{"text":"a","prompt":null}`, "prompt", "null is not absent"},
		{"prompt list", `{"text":"a","prompt":["p"]}`, "prompt", "wrong type"},
		{"memory null", `{"text":"a","memory":null}`, "memory", "null is not absent"},
		{"memory list", `{"text":"a","memory":[]}`, "memory", "wrong type"},
		{"memory part", `{"text":"a","memory":{"available_mb":1,"percent_used":2}}`, "memory.total_mb", "all three figures belong together"},
		{"memory text", `{"text":"a","memory":{"available_mb":"1","percent_used":2,"total_mb":3}}`, "memory.available_mb", "a figure is a number"},
		{"memory figure null", `{"text":"a","memory":{"available_mb":null,"percent_used":2,"total_mb":3}}`, "memory.available_mb", "null would become 0"},
		{"huge", `{"text":"a","memory":{"available_mb":1e999,"percent_used":2,"total_mb":3}}`, "memory.available_mb", "beyond a float64"},
		{"memory twice", `{"text":"a","memory":{"available_mb":1,"available_mb":1,"percent_used":2,"total_mb":3}}`, "memory", "nested names count too"},
		{"status null", `{"text":"a","status":null}`, "status", "null is not absent"},
		{"restart string", `{"text":"a","status":{"is_restarting":"true"}}`, "status.is_restarting", "a string that looks like true must clear nothing"},
		{"restart null", `{"text":"a","status":{"is_restarting":null}}`, "status.is_restarting", "null is not false"},
		{"restarts", `{"text":"a","status":{"num_restarts":true}}`, "status.num_restarts", "wrong type"},
		{"id long", `{"text":"a","id":"` + strings.Repeat("é", 65) + `"}`, "id", "65 characters"},
		{"id number", `{"text":"a","id":7}`, "id", "wrong type"},
		{"deep", `{"text":"a","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "message", "nesting is bounded"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := wire.Decode([]byte(tc.in))
			var schema *wire.SchemaError
			if !errors.As(err, &schema) {
				t.Fatalf("got %v, want a SchemaError (%s)", err, tc.why)
			}
			if schema.Field != tc.field {
				t.Errorf("got field %q (%v), want %q (%s)", schema.Field, err, tc.field, tc.why)
			}
		})
	}
}

// A SchemaError goes back to the client and into logs, so no value may be in
// it.
func TestErrorsHoldNoValue(t *testing.T) {
	const canary = "canary7731"
	for _, in := range []string{
		`{"text":{"%s":1}}`, `{"text":["%s"]}`, `{"%s":1,"%s":1,"text":""}`, `{"text":"a","id":["%s"]}`,
		`{"text":"a","memory":"%s"}`, `{"text":"a","memory":{"available_mb":"%s"}}`, `{"text":"a","status":{"is_restarting":"%s"}}`, `"%s"`, `%s`,
	} {
		_, err := wire.Decode([]byte(strings.ReplaceAll(in, "%s", canary)))
		if err == nil {
			t.Errorf("%s: accepted", in)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error repeats the value: %v", in, err)
		}
	}
}

func TestFrame(t *testing.T) {
	for want, got := range map[string][]byte{
		`{"type":"history","messages":[]}`:              wire.Frame(wire.History, ""),
		`{"type":"live","messages":[1]}`:                wire.Frame(wire.Live, "", []byte("1")),
		`{"type":"live","pos":"p","messages":[1,2,33]}`: wire.Frame(wire.Live, "p", []byte("1"), []byte("2"), []byte("33")),
		`{"ack":"a\"b"}`:                                wire.Ack(`a"b`, false),
		`{"ack":"a","duplicate":true}`:                  wire.Ack("a", true),
	} {
		if string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"text":"a"}`, `{"text":"","memory":{"available_mb":1,"percent_used":2,"total_mb":3}}`, `{"text":"a","status":{"is_restarting":true}}`, `{"text":null}`, `[`, `{"text":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.Decode(data)
		if err != nil {
			var schema *wire.SchemaError
			if !errors.As(err, &schema) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted invalid JSON: %q", data)
		}
		again, err := wire.Decode(m.Encode(time.UnixMilli(1)))
		if err != nil {
			t.Fatalf("the encoded message is refused: %v", err)
		}
		again.ID = m.ID
		if fmt.Sprint(string(again.Encode(time.UnixMilli(2)))) != string(m.Encode(time.UnixMilli(2))) {
			t.Fatalf("round trip differs for %q", data)
		}
	})
}
