package relay

import (
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
)

// A frame is one event, whatever line ends its JSON has.
func TestEventOf(t *testing.T) {
	for _, row := range []struct{ why, text, want string }{
		{"a frame", `{"a":1}`, `{"a":1}`},
		{"line ends between tokens", "{\n\"a\":\r\n1}", `{ "a":  1}`},
		{"an end of the event", "{}\n\nevent: close\ndata: {}", "{}  event: close data: {}"},
		{"a carriage return alone ends a line, too", "{}\r\rid: x", "{}  id: x"},
		{"line ends in a string are escaped", `{"a":"\n\r"}`, `{"a":"\n\r"}`},
		{"U+2028 is no line end for events", "{\"a\":\"\u2028\"}", "{\"a\":\"\u2028\"}"},
		{"nothing", "", ""},
	} {
		got := string(eventOf("p+1", []byte(row.text)))
		if want := "id: p+1\ndata: " + row.want + "\n\n"; got != want {
			t.Errorf("%s: %q, want %q", row.why, got, want)
		}
	}
}

// All streams share the bytes of an event, and it is made for them only.
func TestEventIsShared(t *testing.T) {
	log, err := history.Open(t.Context(), history.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if _, err := log.Append(t.Context(), []byte(`{"text":"hello"}`)); err != nil {
		t.Fatal(err)
	}
	var frames frameCache
	b := log.Since(history.Oldest())
	first, second := frames.get(b, true, 0).event(), frames.get(b, true, 0).event()
	if &first[0] != &second[0] {
		t.Error("the second stream got bytes of its own")
	}
	id, data, _ := strings.Cut(string(first), "\n")
	if id != "id: "+b.To.String() || !strings.Contains(data, "hello") {
		t.Errorf("%q", first)
	}
}
